"""Folds in stores outside the log's database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from headwater.log.database import Connection, Database
from headwater.personal.opener import Opener
from headwater.personal.places import Found, Person
from headwater.views.definition import Sample, Verification
from headwater.views.documents import (
    IndexedDocuments,
    LogDocuments,
    OutsideDocuments,
    Rewritten,
    SetAside,
    Sliced,
    Step,
)
from headwater.views.driving.checking import FoldCheck
from headwater.views.driving.checking_indexes import IndexedFoldCheck
from headwater.views.driving.fold import DrivenFold
from headwater.views.driving.outside import Outside
from headwater.views.driving.purging import AT_ONCE, SEALED, drop_others, refolded
from headwater.views.driving.record import SQL, ViewRecord, snapshot
from headwater.views.driving.replaying import Replay, concerned
from headwater.views.fold import Document, Fold, Key
from headwater.views.port import Report
from headwater.views.storage import Hold, Place

D = TypeVar("D", bound=Document)


class OutsideFold(DrivenFold[D]):
    """A fold whose documents are in another engine.

    ``former`` is where the documents would be in the log's database: a rebuild that moves a view out
    removes them there.
    """

    identified = True

    def __init__(
        self,
        database: Database,
        fold: Fold[D],
        storage: OutsideDocuments,
        former: Callable[[ViewRecord], LogDocuments],
        opener: Opener | None = None,
    ) -> None:
        # An index is one more write for each event; what a step writes stays bounded.
        self._at_once = max(storage.max_writes // (1 + len(fold.indexes)), 1)
        super().__init__(database, fold, self._at_once, opener)
        self.storage = storage
        self.outside = Outside(self.record, storage)
        self._former = former(self.record)
        self._hold: Hold | None = None

    async def _create(self, connection: Connection) -> None:
        """Nothing: the store makes room when it is first opened, so deploying does not need it."""

    @property
    def beside(self) -> bool:
        """Each generation has a place of its own."""
        return True

    async def _drop(self, connection: Connection) -> None:
        await self._former.drop(connection)

    # Slices of a candidate -----------------------------------------------------------------------

    @property
    def max_slices(self) -> int:
        """As many as the store keeps checkpoints for."""
        return self.storage.max_slices if isinstance(self.storage, Sliced) else 1

    async def join_outside(self, connection: Connection, fences: Sequence[int], upto: int) -> bool:
        """Sets the candidate's checkpoint in the store where its slices are; see DrivenFold."""
        place = await self.outside.place(connection)
        *taken, fence = fences
        for number, taken_by in enumerate(taken):
            found = await self.storage.open(replace(place, slice=number), taken_by)
            if found.position != upto:
                return False
        found = await self.storage.open(place, fence)
        epoch, last = await self.outside.newest(connection, self.folding.fold.type_names, upto)
        hold = Hold(place, fence, epoch, found.revision)
        await self.storage.adopt(hold, replace(found, position=upto, epoch=epoch, last=last))
        return True

    # Driving -------------------------------------------------------------------------------------

    async def _opened(self, checkpoint: int) -> int:
        self._hold, position = await self.outside.open(checkpoint)
        return await super()._opened(position)

    @property
    def hold(self) -> Hold:
        """What writes carry. The view must be open."""
        assert self._hold is not None
        return self._hold

    async def _stored(self, keys: Sequence[Key]) -> Iterable[tuple[Key, bytes]]:
        return await self.storage.load(self.hold.place, keys)

    async def _commit(self, steps: Sequence[Step], aside: SetAside) -> None:
        # In this order: what is set aside is on record before the data goes on without it, and the
        # record's checkpoint is never ahead of the data. Each is idempotent or compares first.
        if aside:
            async with self.record.connection.transaction():
                await self.record.record_aside(self.record.connection, aside)
        await self.record.register_ahead(steps[0].opened)
        await self.storage.apply(self.hold, steps)
        await self.record.at_once(steps[0].after, steps[-1].upto)

    # Care ----------------------------------------------------------------------------------------

    async def verify(
        self, report: Report | None = None, *, limit: int = 20, sample: Sample | None = None
    ) -> Verification:
        """Folds the log again and compares every document, while the store may go on."""
        async with self._database.connection() as connection:
            await self.learn(connection)
            place = await self.outside.place(connection)
        async with (
            self.storage.reading(
                place
            ) as reading,  # first, so that the log's snapshot is not older
            snapshot(self._database) as connection,
        ):
            parts = (self.folding, self.record, connection, reading)
            check: FoldCheck[Any] = FoldCheck(*parts)
            if self.folding.fold.indexes and isinstance(self.storage, IndexedDocuments):
                check = IndexedFoldCheck(*parts, indexes=self.storage.indexed(place))
            return await check.run(report, limit, sample)

    async def replay(self, positions: Sequence[int] | None = None) -> int:
        """Applies the parked events of the keys concerned again, in order, up to the first failure."""
        replayed = 0
        async with self._database.connection() as connection:
            await self.learn(connection)
            place = await self.outside.place(connection)
            checkpoint = await self.storage.disturb(place)
            await self.outside.replayed(connection, checkpoint.replayed)
            waiting = [
                row
                for row in concerned(await self.record.parked(connection), positions)
                # Later ones are on record, but their batch is not: the relay comes to them.
                if row[0] <= checkpoint.position
            ]

            async def load(keys: Sequence[Key]) -> Iterable[tuple[Key, bytes]]:
                return await self.storage.load(place, keys)

            stuck: set[Key] = set()
            for start in range(0, len(waiting), self._at_once):
                replay: Replay[Any] = Replay(self.folding, connection, load, stuck=stuck)
                await replay.run(waiting[start : start + self._at_once])
                step = replay.step(checkpoint.position)
                async with connection.transaction():
                    await self.record.register(connection, step.opened)
                wanted = replace(checkpoint, replayed=tuple(replay.done))
                checkpoint = await self.storage.redo(place, wanted, step)
                await self.outside.replayed(connection, replay.done)
                replayed += len(replay.done)
        return replayed

    async def purge(self, person: Person) -> Found:
        """Folds the documents again that hold something of a person; see Purgeable."""
        where = f"view {self.name}"
        if not self.folding.fold.opens:
            return Found(where, note=SEALED)
        async with self._database.transaction() as connection:
            await connection.execute(SQL["record.lock_deployment"])
            status = await self.learn(connection)
            if status == "missing":
                return Found(where)
            place = await self.outside.place(connection)
            await drop_others(connection, self.record, person, self.storage, place)
        async with self._database.connection() as connection:
            purged = await self._purge(connection, person, place, is_stale=status == "stale")
        note = ""
        if purged and isinstance(self.storage, Rewritten):
            note = await self.storage.rewrite()
        return Found(where, purged, note=note)

    async def _purge(
        self, connection: Connection, person: Person, place: Place, *, is_stale: bool
    ) -> int:
        """From the first write on, what a relay has under way is refused: it reads it again."""
        purged, record = 0, self.record
        while names := await record.registered(
            connection, person.key_id, min(AT_ONCE, self._at_once)
        ):
            keys = [(person.tenant, name) for name in names]
            checkpoint = await self.storage.disturb(place)
            await self.outside.replayed(connection, checkpoint.replayed)
            upto = checkpoint.position
            if is_stale:
                step, aside = (
                    Step(upto, upto, removed=keys, indexes=self.folding.fold.indexes),
                    SetAside(),
                )
            else:
                step, aside = await refolded(self.folding, record, connection, keys, upto)
            async with connection.transaction():
                await record.register(connection, step.opened)
                await record.record_aside(connection, aside)
                if aside:
                    await record.disturb(connection)
            await self.storage.redo(place, replace(checkpoint, replayed=()), step)
            await record.unregister(connection, person.key_id, names)
            purged += len(names)
        return purged
