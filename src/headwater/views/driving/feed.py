"""Drives a feed: hands typed rows of the log, as they are, to a store that keeps them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

from psycopg import sql

from headwater.errors import DefinitionError, HeadwaterError, LeaseLost
from headwater.log.copying import copied
from headwater.log.database import Connection, Database
from headwater.log.tasks import ended
from headwater.personal.opener import Opener
from headwater.personal.places import Found, Person
from headwater.relay import Leases
from headwater.views.batches import OutsideRows, Part, PurgedRows, RowsStep, StoredFile, Tended
from headwater.views.definition import Difference, Explanation, Sample, Verification
from headwater.views.driving.batches import DrivenBatches, csv_rows
from headwater.views.driving.opened_rows import OpenedRows
from headwater.views.driving.purging import SEALED, drop_others
from headwater.views.driving.record import SQL
from headwater.views.feed import Feed
from headwater.views.port import Report
from headwater.views.storage import Place

_log = logging.getLogger("headwater.relay")

_BLOCK_BITS = 40  # a month of positions; see headwater.block_of
_FIRST_YEAR = 2020
_TEND_EVERY = 16  # batches
_SAMPLED_ROWS = 200_000
_PURGED_AT_MOST = 10_000_000


class DrivenFeed(DrivenBatches):
    """A feed and its rows."""

    def __init__(
        self,
        database: Database,
        feed: Feed,
        storage: OutsideRows,
        pause_seconds: float = 0.0,
        opener: Opener | None = None,
    ) -> None:
        super().__init__(database, feed.definition, feed.on_failure, storage, pause_seconds)
        self.feed = feed
        self.storage = storage
        self._opening = OpenedRows(feed, opener)
        self._alone = asyncio.Lock()
        self._written = 0
        self._tending: asyncio.Task[None] | None = None

    @property
    def types(self) -> Sequence[str]:
        """The event types that it hands on."""
        return self.feed.type_names

    async def _opened(self, checkpoint: int) -> int:
        self._written = 0
        return await super()._opened(checkpoint)

    async def close(self) -> None:
        """Gives back what driving holds. Idempotent."""
        tending, self._tending = self._tending, None
        if tending is not None:
            await ended([tending])
        await super().close()

    async def _write(self, step: RowsStep) -> None:
        async with self._alone:
            await super()._write(step)
        is_idle = self._tending is None or self._tending.done()
        if is_idle and isinstance(self.storage, Tended) and self._written % _TEND_EVERY == 0:
            self._tending = asyncio.create_task(self._tend(), name=f"tend {self.name}")
        self._written += 1

    async def _tend(self) -> None:
        """Tends in the background; where that fails, it is tried again some batches later."""
        try:
            await self.tend()
        except (HeadwaterError, OSError) as error:
            _log.warning("%s: not tended: %s", self.name, error)

    async def tend(self) -> None:
        """Does the work that the storage needs beside its batches, until there is none left."""
        assert self._hold is not None
        while isinstance(self.storage, Tended) and await self.storage.tend(self._hold, self._alone):
            pass

    async def _make_room(self, place: Place) -> None:
        await self.storage.prepare(place, self.feed.columns)

    async def _parts(self, connection: Connection, after: int, upto: int) -> AsyncIterator[Part]:
        while (first := await _first_after(connection, after, upto)) is not None:
            block = first >> _BLOCK_BITS
            end = min(upto, ((block + 1) << _BLOCK_BITS) - 1)
            for name in self.feed.type_names:
                part = await self.part(connection, name, after, end, month=month_of(block))
                if part.data:
                    yield part
            after = end

    async def part(
        self,
        connection: Connection,
        name: str,
        after: int,
        upto: int,
        *,
        month: str,
        only: Sequence[int] | None = None,
    ) -> Part:
        """The rows of one type in a range, or those at some positions of it."""
        columns = self.feed.columns[name]
        statement = sql.SQL(SQL["feed.part"]).format(
            **csv_rows(self._opening.expressions(name), self.storage.limits),
            only=sql.Literal(None if only is None else list(only)),
            after=sql.Literal(after),
            upto=sql.Literal(upto),
            type=sql.Literal(name),
            aside=sql.Literal(sorted(p for p in self._aside if after < p <= upto)),
        )
        data, opened = await self._opening.opened(await copied(connection, statement))
        return Part(name, month, columns, after, upto, data, opened)

    # Care ----------------------------------------------------------------------------------------

    async def verify(
        self, report: Report | None = None, *, limit: int = 20, sample: Sample | None = None
    ) -> Verification:
        """Reads every file and compares it with the log's rows of its range; counts the rest.

        A difference's key is the position of the event. A sample is of the files that are not too large to be
        read beside views that are driven, one at least; then the rest is not counted.
        """
        async with self._database.connection() as connection:
            await self.learn(connection)
            place = await self.outside.place(connection)
            position, files = await self.storage.files(place)
            position = max(position, 0)
            aside = await self.record.not_applied(connection)
            self._aside = {row[0] for row in aside}
            differences = []
            if sample is not None:
                files = _sampled(files, sample)
            else:
                differences += await self._miscounted(connection, position, files)
            for done, file in enumerate(files, start=1):
                part = await self.part(
                    connection, file.type, file.after, file.upto, month=file.month
                )
                differences += [
                    Difference("", key, "the log's row", "another, or none")
                    for key in await self.storage.differing(place, file, part, limit)
                ]
                if report is not None:
                    report(done, len(files))
        rows = sum(file.rows for file in files)
        parked = sum(status == "parked" for _, _, _, status in aside)
        return Verification(
            self.name, position, rows, len(differences), tuple(differences[:limit]), parked
        )

    async def _miscounted(
        self, connection: Connection, position: int, files: Sequence[StoredFile]
    ) -> list[Difference]:
        """Whether all files together have another number of rows than the log has events."""
        counting = {
            "after": self.storage.first(),
            "upto": position,
            "types": self.feed.type_names,
            "aside": sorted(self._aside),
        }
        row = await (await connection.execute(SQL["log.count"], counting)).fetchone()
        assert row is not None
        rows = sum(file.rows for file in files)
        return [] if row[0] == rows else [Difference("", "rows", row[0], rows)]

    async def purge(self, person: Person) -> Found:
        """Writes the rows anew that hold something of a person; see Purgeable.

        It takes the view over for that, so what a relay has under way is refused.
        """
        where = f"view {self.name}"
        if not self.feed.opens:
            return Found(where, note=SEALED)
        async with self._database.transaction() as connection:
            await connection.execute(SQL["record.lock_deployment"])
            status = await self.learn(connection)
            if status != "missing":
                place = await self.outside.place(connection)
                await drop_others(connection, self.record, person, self.storage, place)
                names = await self.record.registered(connection, person.key_id, _PURGED_AT_MOST)
        if status == "missing" or not names:
            return Found(where)
        if status == "stale" or not isinstance(self.storage, PurgedRows):
            return Found(
                where,
                note=f"It is {status}, so nothing is purged: run headwater rebuild {self.name}, and forget again.",
            )
        async with self._database.connection() as connection:
            leases = Leases()
            await connection.execute(SQL["opened.give_back"], {"view": self.name})
            fence = await leases.acquire(connection, self.name)
            if fence is None:
                raise LeaseLost(f"A relay has taken over {self.name!r} again.")
            try:
                await self.open(fence)
                note = await self._purge_files(connection, self.storage, sorted(map(int, names)))
                await self.record.unregister(connection, person.key_id, names)
            finally:
                await self.close()
                await leases.release(connection, self.name)
        return Found(where, len(names), note=note)

    async def _purge_files(
        self, connection: Connection, storage: PurgedRows, positions: Sequence[int]
    ) -> str:
        """Every file of the types at these positions; what stays."""
        assert self._hold is not None
        cursor = await connection.execute(SQL["opened.types"], {"positions": list(positions)})
        types: dict[int, str] = dict(await cursor.fetchall())
        _, files = await self.storage.files(self._hold.place)
        concerned: dict[str, list[tuple[StoredFile, Sequence[int]]]] = {}
        for file in files:
            own = [p for p in positions if file.after < p <= file.upto and types[p] == file.type]
            if own:
                concerned.setdefault(file.type, []).append((file, own))

        async def read(file: StoredFile, only: Sequence[int] | None) -> Part:
            return await self.part(
                connection, file.type, file.after, file.upto, month=file.month, only=only
            )

        notes = {await storage.purge(self._hold, rows, read) for rows in concerned.values()}
        return " ".join(sorted(notes - {""}))

    async def explain(
        self, key: Sequence[str | None], *, tenant: str, limit: int = 20
    ) -> Explanation:
        """Refused: a feed's rows are events."""
        _ = key, tenant, limit
        raise DefinitionError(
            f"The rows of {self.name!r} are events themselves.", hint="Use headwater stream."
        )

    def row_of(self, values: Sequence[Any]) -> Any:
        """Refused: files are read by other programs."""
        _ = values
        raise DefinitionError(f"The rows of {self.name!r} are files.", hint="Use its files().")


def _sampled(files: Sequence[StoredFile], sample: Sample) -> list[StoredFile]:
    small = [file for file in files if file.rows <= _SAMPLED_ROWS]
    first = sample.number % max(min(sample.slices, len(small)), 1)
    return small[first :: sample.slices]


def month_of(block: int) -> str:
    """The month that owns a block of positions, such as 2026-11."""
    return f"{_FIRST_YEAR + block // 12}-{block % 12 + 1:02}"


async def _first_after(connection: Connection, after: int, upto: int) -> int | None:
    cursor = await connection.execute(SQL["record.first_after"], {"after": after, "upto": upto})
    row = await cursor.fetchone()
    return None if row is None else row[0]
