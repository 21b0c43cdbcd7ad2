"""Drives a feed: hands typed rows of the log, as they are, to a store that keeps them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

from psycopg import sql

from headwater.errors import DefinitionError, HeadwaterError
from headwater.log.copying import copied
from headwater.log.database import Connection, Database
from headwater.log.tasks import ended
from headwater.views.batches import OutsideRows, Part, RowsStep, StoredFile, Tended
from headwater.views.definition import Difference, Explanation, Sample, Verification
from headwater.views.driving.batches import DrivenBatches, csv_rows
from headwater.views.driving.record import SQL
from headwater.views.feed import Feed
from headwater.views.port import Report
from headwater.views.storage import Place

_log = logging.getLogger("headwater.relay")

_BLOCK_BITS = 40  # a month of positions; see headwater.block_of
_FIRST_YEAR = 2020
_TEND_EVERY = 16  # batches
_SAMPLED_ROWS = 200_000


class DrivenFeed(DrivenBatches):
    """A feed and its rows."""

    def __init__(
        self, database: Database, feed: Feed, storage: OutsideRows, pause_seconds: float = 0.0
    ) -> None:
        super().__init__(database, feed.definition, feed.on_failure, storage, pause_seconds)
        self.feed = feed
        self.storage = storage
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
        self, connection: Connection, name: str, after: int, upto: int, *, month: str
    ) -> Part:
        """The rows of one type in a range."""
        columns = self.feed.columns[name]
        statement = sql.SQL(SQL["feed.part"]).format(
            # The expressions are Headwater's own, made from the type's schema.
            **csv_rows([(sql.SQL(c.expression), c.sql_type) for c in columns], self.storage.limits),
            after=sql.Literal(after),
            upto=sql.Literal(upto),
            type=sql.Literal(name),
            aside=sql.Literal(sorted(p for p in self._aside if after < p <= upto)),
        )
        return Part(name, month, columns, after, upto, await copied(connection, statement))

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
