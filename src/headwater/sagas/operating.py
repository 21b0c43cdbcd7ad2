"""What operators see of sagas, and what they do with them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from headwater.errors import SagaRefused, UnknownSaga
from headwater.log.database import Connection, Database
from headwater.log.failures import translated
from headwater.sagas.definition import SagaDefinition
from headwater.sagas.statements import SQL

State = Literal["running", "waiting", "compensating", "handed over", "paused", "stopped", "done", "compensated", "abandoned"]  # fmt: skip
Verb = Literal["paused", "resumed", "retried", "resolved", "abandoned"]


class SagaState(msgspec.Struct, frozen=True):
    """An instance now. ``todo`` is what a person must do; ``due_at`` when it goes on by itself."""

    tenant: str
    saga: str
    id: str
    version: int
    state: str
    detail: str | None
    todo: str | None
    due_at: datetime | None
    started_at: datetime
    changed_at: datetime
    ended_at: datetime | None

    @property
    def name(self) -> str:
        """The instance as commands take it: saga/id."""
        return f"{self.saga}/{self.id}"


class SagaRecord(msgspec.Struct, frozen=True):
    """One record of an instance's stream."""

    version: int
    recorded_at: datetime
    type: str
    data: msgspec.Raw


class SagaHistory(msgspec.Struct, frozen=True):
    """An instance, and all that is recorded of it."""

    state: SagaState
    records: list[SagaRecord]


async def register_saga(connection: Connection, definition: SagaDefinition[Any]) -> None:
    """Declares a saga in the database, as an operator."""
    told = {
        "saga": definition.name,
        "queue": definition.queue,
        "types": definition.event_types,
        "field": definition.key,
        "version": definition.version,
    }
    await connection.execute(SQL["sagas.register"], told)


class Sagas:
    """The sagas of an installation, as an operator sees them."""

    def __init__(self, operator: Database) -> None:
        self._operator = operator

    async def instances(
        self,
        saga: str | None = None,
        *,
        states: Sequence[str] | None = None,
        ended: bool = False,
        tenant: str | None = None,
        limit: int = 100,
    ) -> list[SagaState]:
        """Instances, the newest first: those that have not ended, those in some states, or all."""
        asked = {"saga": saga, "instance": None, "tenant": tenant, "limit": limit, "ended": ended, "states": None if states is None else [*states]}  # fmt: skip
        return [SagaState(*row) for row in await self._rows("sagas.list", asked)]

    async def find(self, name: str, *, tenant: str | None = None) -> SagaState:
        """The instance ``saga/id``. Raises UnknownSaga, and SagaRefused where several tenants have one."""
        saga, _, instance = name.partition("/")
        asked = {"saga": saga, "instance": instance, "tenant": tenant, "limit": 2, "ended": True, "states": None}  # fmt: skip
        rows = await self._rows("sagas.list", asked)
        if not rows:
            raise UnknownSaga(
                f"There is no saga {name!r}.",
                hint="headwater sagas lists them, as saga/id; the table forgets those that ended 30 days ago.",
            )
        if len(rows) > 1:
            raise SagaRefused(f"Several tenants have a saga {name!r}.", hint="Pass the tenant.")
        return SagaState(*rows[0])

    async def show(self, name: str, *, tenant: str | None = None) -> SagaHistory:
        """An instance whole. Raises UnknownSaga."""
        state = await self.find(name, tenant=tenant)
        asked = {"tenant": state.tenant, "saga": state.saga, "instance": state.id}
        rows = await self._rows("sagas.history", asked)
        records = [
            SagaRecord(v, at, type_, msgspec.Raw(data.encode())) for v, at, type_, data in rows
        ]
        return SagaHistory(state, records)

    async def pause(self, name: str, *, tenant: str | None = None, note: str | None = None) -> str:
        """Lets nothing new of an instance begin; what is under way is recorded. The state it has then."""
        return await self._steer(name, "paused", tenant, note)

    async def resume(self, name: str, *, tenant: str | None = None, note: str | None = None) -> str:
        """Lets a paused instance go on."""
        return await self._steer(name, "resumed", tenant, note)

    async def retry(self, name: str, *, tenant: str | None = None, note: str | None = None) -> str:
        """Tries again where an instance stopped, or what could not be undone, from the first attempt."""
        return await self._steer(name, "retried", tenant, note)

    async def resolve(
        self, name: str, *, tenant: str | None = None, note: str | None = None
    ) -> str:
        """Says that a person did what was handed over; the steps before are undone next."""
        return await self._steer(name, "resolved", tenant, note)

    async def abandon(
        self, name: str, *, undo: bool = False, tenant: str | None = None, note: str | None = None
    ) -> str:
        """Gives an instance up: as it is, or with ``undo`` once what it did is undone."""
        return await self._steer(name, "abandoned", tenant, note, undo=undo)

    async def retire(self, saga: str) -> None:
        """Has a saga that no app declares any more start no instances. Raises UnknownSaga.

        Whoever deploys an app that declares it has it start again, with the events from then on.
        """
        ((known,),) = await self._rows("sagas.retire", {"saga": saga})
        if not known:
            raise UnknownSaga(
                f"No saga {saga!r} starts.", hint="It is retired, or has another name."
            )

    async def _steer(
        self, name: str, verb: Verb, tenant: str | None, note: str | None, *, undo: bool = False
    ) -> str:
        state = await self.find(name, tenant=tenant)
        asked = {"tenant": state.tenant, "saga": state.saga, "instance": state.id, "verb": verb, "note": note, "undo": undo}  # fmt: skip
        with translated():
            ((told,),) = await self._rows("sagas.steer", asked)
        if told is None or told.startswith("refused"):
            raise SagaRefused(
                f"The saga {name!r} cannot be {verb}: it is {state.state}.",
                hint="headwater sagas show tells where it stands.",
            )
        return str(told)

    async def _rows(self, statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        async with self._operator.connection() as connection:
            return await (await connection.execute(SQL[statement], parameters)).fetchall()


__all__ = ["SagaHistory", "SagaRecord", "SagaState", "Sagas", "State", "register_saga"]
