"""Events and jobs that a fold derives, appended in the commit of its batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import psycopg

from headwater.commands import Command, Decider
from headwater.commands.deciding import Request, decide_within
from headwater.errors import (
    DatabaseUnavailable,
    DecisionOutdated,
    UnknownEventType,
    UnknownQueue,
    VersionConflict,
)
from headwater.log import Fact
from headwater.log.database import SQL as LOG
from headwater.log.database import Connection
from headwater.log.enqueuing import Enqueue
from headwater.log.failures import translated
from headwater.log.writing import append_group, enqueue, group_of
from headwater.relay import CannotApply
from headwater.views.driving.record import SQL, ViewRecord
from headwater.views.fold import Derived

_LATER = (
    psycopg.Error,
    DecisionOutdated,
    VersionConflict,
    UnknownEventType,
    UnknownQueue,
    DatabaseUnavailable,
)
"""Nobody's fault: the same batch may go through later, or once the app is deployed."""

DeciderOf = Callable[[type[Command]], Decider[Any]]


class DerivedEvents:
    """Appends what a fold derives, for the tenant of the event that it follows from.

    Data, checkpoint and derived events are one commit, so each is derived once, whatever is killed. A
    rebuild derives nothing again from the positions that it had passed.
    """

    def __init__(self, record: ViewRecord, decider_of: DeciderOf) -> None:
        self._record = record
        self._decider_of = decider_of

    async def append(self, connection: Connection, derived: Sequence[Derived]) -> None:
        """Appends in order, inside the batch's transaction.

        Raises DecisionOutdated where a command's decision has been overtaken: the batch is tried again. Raises
        CannotApply where what an event derives is refused, or its decider fails.
        """
        cursor = await connection.execute(SQL["record.derived_upto"], {"view": self._record.name})
        row = await cursor.fetchone()
        assert row is not None
        due = [one for one in derived if one.position > row[0]]
        cursor = await connection.execute(
            SQL["log.correlations"], {"positions": [one.position for one in due]}
        )
        carried: dict[int, dict[str, Any]] = dict(await cursor.fetchall())
        for one in due:
            cause = {"view": self._record.name, "position": one.position}
            try:
                await self._append(connection, one, {**carried[one.position], "cause": cause})
            except _LATER:
                raise
            except Exception as error:
                reason = f"what it derives is refused: {type(error).__name__}: {error}"
                raise CannotApply(reason, one.position) from error

    async def _append(
        self, connection: Connection, derived: Derived, carried: dict[str, Any]
    ) -> None:
        await connection.execute(LOG["log.set_tenant"], {"tenant": derived.tenant})
        facts = []
        for item in derived.what:
            if isinstance(item, Command):
                request = Request(item, derived.tenant, carried)
                await decide_within(connection, self._decider_of(type(item)), request)
            elif isinstance(item, Enqueue):
                job = msgspec.structs.replace(item, metadata={**carried, **item.metadata})
                with translated():
                    await enqueue(connection, derived.tenant, [job], {})
            else:
                facts.append(Fact(event=item, metadata=carried))
        if facts:
            with translated():
                await append_group(connection, group_of(derived.tenant, facts))
