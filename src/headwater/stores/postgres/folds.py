"""Folds in the log's own database: data, checkpoint and parked events move in one commit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from headwater.errors import InvalidEvent
from headwater.log.database import Connection, Database
from headwater.personal.opener import Opener
from headwater.personal.places import Found, Person
from headwater.relay import CannotApply
from headwater.stores.postgres.derived import DeciderOf, DerivedEvents
from headwater.stores.postgres.documents import PostgresDocuments
from headwater.views.definition import Sample, Verification
from headwater.views.documents import SetAside, Step
from headwater.views.driving.checking import FoldCheck
from headwater.views.driving.fold import DrivenFold
from headwater.views.driving.purging import AT_ONCE, SEALED, drop_others, refolded
from headwater.views.driving.record import SQL, snapshot
from headwater.views.driving.replaying import Replay, concerned
from headwater.views.driving.view import DrivenView
from headwater.views.fold import Document, Fold, Key
from headwater.views.port import Report

D = TypeVar("D", bound=Document)


class PostgresFold(DrivenFold[D]):
    """A fold in Postgres. Changes are noted where SQL views over its documents are attached."""

    def __init__(
        self,
        database: Database,
        fold: Fold[D],
        decider_of: DeciderOf | None = None,
        opener: Opener | None = None,
    ) -> None:
        super().__init__(database, fold, opener=opener)
        derived = None if decider_of is None else DerivedEvents(self.record, decider_of)
        self.documents = PostgresDocuments(self.record, derived)
        self._readers: list[DrivenView] = []

    def attach(self, view: DrivenView) -> None:
        """Notes changes for a view over these documents. Before anything is deployed."""
        self._readers.append(view)
        self.documents.readers.append(view.name)

    async def start_over(self, connection: Connection) -> None:
        """A fold takes the views over its documents with it: they are sums of its changes."""
        await super().start_over(connection)
        for view in self._readers:
            await view.start_over(connection)

    async def _create(self, connection: Connection) -> None:
        await self.documents.create(connection)

    async def publish(self, connection: Connection) -> None:
        """Has readers see this generation."""
        await self.documents.publish(connection)

    @property
    def beside(self) -> bool:
        """Not with views over the documents, which are sums of their changes, nor with derived events."""
        return not self._readers and self.folding.fold.derive is None

    @property
    def has_baselines(self) -> bool:
        """Not where documents hold what was opened of a person: a copy would keep it."""
        return self.beside and not self.folding.fold.opens

    async def _drop(self, connection: Connection) -> None:
        await self.documents.drop(connection)

    async def _stored(self, keys: Sequence[Key]) -> Iterable[tuple[Key, bytes]]:
        return await self.documents.load(keys, self.record.connection)

    async def _commit(self, steps: Sequence[Step], aside: SetAside) -> None:
        (step,) = steps
        await self.documents.apply(step, aside)

    async def verify(
        self, report: Report | None = None, *, limit: int = 20, sample: Sample | None = None
    ) -> Verification:
        """Folds the log again and compares every document, in one snapshot."""
        async with snapshot(self._database) as connection:
            await self.learn(connection)
            async with self.documents.reading(connection) as reading:
                check: FoldCheck[Any] = FoldCheck(self.folding, self.record, connection, reading)
                return await check.run(report, limit, sample)

    async def replay(self, positions: Sequence[int] | None = None) -> int:
        """Applies the parked events of the keys concerned again, in order, up to the first failure.

        Raises InvalidEvent where what one of them derives is refused.
        """
        async with self._database.transaction() as connection:
            await self.learn(connection)
            await self.record.disturb(connection)

            async def load(keys: Sequence[Key]) -> Iterable[tuple[Key, bytes]]:
                return await self.documents.load(keys, connection)

            replay: Replay[Any] = Replay(self.folding, connection, load)
            await replay.run(concerned(await self.record.parked(connection), positions))
            # Views over the documents have read the changes up to the checkpoint: these come next.
            position = await self.record.checkpoint(connection)
            assert position is not None
            try:
                await self.documents.write(connection, replay.step(position + 1))
            except CannotApply as failure:
                raise InvalidEvent(
                    f"The event at position {failure.position} is still parked: {failure.reason}.",
                    hint="Mend the derivation, or discard the event.",
                ) from failure
            await self.record.unpark(connection, replay.done)
        return len(replay.done)

    async def purge(self, person: Person) -> Found:
        """Folds the documents again that hold something of a person, and then rewrites the table; see Purgeable."""
        purged, where = 0, f"view {self.name}"
        if not self.folding.fold.opens:
            return Found(where, note=SEALED)
        while keys := await self._purge_some(person):
            purged += keys
        note = await self.documents.rewrite() if purged else ""
        return Found(where, purged, note=note)

    async def _purge_some(self, person: Person) -> int:
        async with self._database.transaction() as connection:
            await connection.execute(SQL["record.lock_deployment"])
            status = await self.learn(connection)
            if status == "missing":
                return 0
            await drop_others(connection, self.record, person)
            names = await self.record.registered(connection, person.key_id, AT_ONCE)
            if not names:
                return 0
            keys = [(person.tenant, name) for name in names]
            await self.record.disturb(connection)
            upto = await self.record.checkpoint(connection)
            assert upto is not None
            if status == "stale":  # its documents come again with its rebuild, by the code of now
                step, aside = Step(upto, upto, removed=keys), SetAside()
            else:
                step, aside = await refolded(self.folding, self.record, connection, keys, upto)
            await self.documents.write(connection, step)
            await self.record.record_aside(connection, aside)
            await self.record.unregister(connection, person.key_id, names)
        return len(keys)
