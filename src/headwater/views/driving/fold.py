"""Drives a fold, whatever its store: reads the batch, evolves documents, hands them to the storage."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Generic, TypeVar

from headwater.log.database import Connection, Database
from headwater.personal.opener import Opener
from headwater.relay import Batch
from headwater.views.definition import Explanation
from headwater.views.documents import SetAside, Step
from headwater.views.driving.checking import read_log
from headwater.views.driving.explaining import explain_fold
from headwater.views.driving.record import SQL, row_beside, snapshot
from headwater.views.driving.view import DrivenView
from headwater.views.driving.work import Folding, NotApplied, Row, Work
from headwater.views.fold import Document, Fold, Key, Slice

D = TypeVar("D", bound=Document)

_CACHED_DOCUMENTS = 250_000


class DrivenFold(DrivenView, Generic[D]):
    """A fold and its documents; subclasses say how a batch is committed where the documents are."""

    max_batch = 20_000
    identified = False

    def __init__(
        self,
        database: Database,
        fold: Fold[D],
        max_writes: int | None = None,
        opener: Opener | None = None,
    ) -> None:
        super().__init__(database, fold.definition, fold.on_failure)
        self.folding = Folding(fold, max_writes, opener)
        self._cache: dict[Key, D | None] = {}
        self._known = NotApplied()

    # What subclasses give ------------------------------------------------------------------------

    @abstractmethod
    async def _stored(self, keys: Sequence[Key]) -> Iterable[tuple[Key, bytes]]:
        """The documents of those keys that have one."""

    @abstractmethod
    async def _commit(self, steps: Sequence[Step], aside: SetAside) -> None:
        """Writes a batch, so that it counts once or not at all."""

    async def touched(
        self, connection: Connection, *, after: int, upto: int, parked: Sequence[int]
    ) -> list[str] | None:
        """The keys that events in (after, upto] belong to; see StoredView."""
        fold = self.folding.fold
        parameters = {
            "keys": fold.key_names,
            "types": fold.type_names,
            "after": after,
            "upto": upto,
            "parked": list(parked),
        }
        cursor = await connection.execute(SQL["log.touched"], parameters)
        return [row[0] for row in await cursor.fetchall()]

    # Slices of a candidate -----------------------------------------------------------------------

    @property
    def max_slices(self) -> int:
        """How many slices of a generation may be built beside one another; see slicing."""
        return 64

    def take_slice(self, part: Slice) -> None:
        """From now on this object drives a slice of the candidate. Before it is opened."""
        self.folding.slice = part
        self.record.row, self.record.slice = row_beside(self.name, part.number), part.number

    async def join_outside(self, connection: Connection, fences: Sequence[int], upto: int) -> bool:  # noqa: ARG002 - for subclasses
        """Makes one of the slices where the documents are; False where one is not at the position.

        Takes them over under these fences first, and the candidate under the last.
        """
        return True

    # Driving -------------------------------------------------------------------------------------

    async def _opened(self, checkpoint: int) -> int:
        self._cache.clear()
        self._known = NotApplied.of(await self.record.not_applied(self.record.connection))
        return checkpoint

    async def apply(self, batch: Batch) -> None:
        """Applies a batch of events; see Target."""
        rows = await self._read(batch)
        work = self.folding.take_apart(rows, batch, self._known)
        work.events, work.opened = await self.folding.opening.events(work.events)
        await self._load({item.key for item in work.events})
        steps, documents = await self._evolved(work, batch)
        await self._commit(steps, work.aside)
        self._cache.update(documents)
        self._known.remember(work.aside)

    async def _read(self, batch: Batch) -> Sequence[Row]:
        return await read_log(
            self.record.connection,
            self.folding,
            batch.after,
            batch.upto,
            identified=self.identified,
        )

    async def _load(self, keys: Collection[Key]) -> None:
        missing = [key for key in keys if key not in self._cache]
        if len(self._cache) + len(missing) > _CACHED_DOCUMENTS:
            self._cache.clear()
            missing = list(keys)
        if missing:
            self._cache.update(dict.fromkeys(missing))
            decode = self.folding.document
            stored = await self._stored(missing)
            self._cache.update((key, decode(document)) for key, document in stored)

    async def _evolved(
        self, work: Work, batch: Batch
    ) -> tuple[Sequence[Step], dict[Key, D | None]]:
        if not work.events:
            return [Step(batch.after, batch.upto)], {}
        # The user's function may be slow; in a thread it delays no other view.
        return await asyncio.to_thread(self.folding.steps, work, batch, self._cache)

    async def explain(
        self, key: Sequence[str | None], *, tenant: str, limit: int = 20
    ) -> Explanation:
        """The events behind a document, and how it changed at each of the newest; see StoredView."""
        async with snapshot(self._database) as connection:
            return await explain_fold(self.folding, self.record, connection, key, tenant, limit)

    # Reading -------------------------------------------------------------------------------------

    def row_of(self, values: Sequence[Any]) -> D:
        """A stored document as the fold's state."""
        return self.folding.document(values[0])
