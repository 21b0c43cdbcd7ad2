"""Drives a feed: hands typed rows of the log, as they are, to a store that keeps them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from psycopg import sql

from headwater.errors import DefinitionError
from headwater.events import Column
from headwater.log.database import Connection, Database
from headwater.relay import Batch
from headwater.views.definition import Difference, Verification
from headwater.views.driving.outside import Outside
from headwater.views.driving.record import SQL
from headwater.views.driving.view import DrivenView
from headwater.views.feed import Feed
from headwater.views.port import Report
from headwater.views.store import Culprit, Hold, LastEvent, OutsideRows, Part, RowsStep, SetAside

_BLOCK_BITS = 40  # a month of positions; see headwater.block_of
_FIRST_YEAR = 2020


class DrivenFeed(DrivenView):
    """A feed and its rows. A batch is recorded before it is written, and written again as it was."""

    def __init__(
        self, database: Database, feed: Feed, storage: OutsideRows, pause_seconds: float = 0.0
    ) -> None:
        super().__init__(database, feed.definition, feed.on_failure)
        self.feed = feed
        self.storage = storage
        self.outside = Outside(self.record, storage)
        self.pause_seconds = pause_seconds
        self._hold: Hold | None = None
        self._aside: set[int] = set()

    async def _create(self, connection: Connection) -> None:
        """Nothing: the store makes room when it is first opened."""

    async def _drop(self, connection: Connection) -> None:
        """Nothing: the next generation begins elsewhere."""

    async def touched(
        self,
        connection: Connection,  # noqa: ARG002 - the protocol's
        *,
        after: int,  # noqa: ARG002
        upto: int,  # noqa: ARG002
        parked: Sequence[int],  # noqa: ARG002
    ) -> list[str] | None:
        """None: a feed's rows are events, which have a channel of their own."""
        return None

    # Driving -------------------------------------------------------------------------------------

    async def _opened(self, checkpoint: int) -> int:
        self._hold, position = await self.outside.open(checkpoint)
        connection = self.record.connection
        self._aside = {row[0] for row in await self.record.not_applied(connection)}
        planned = await self.record.planned(position)
        if planned is None:
            return position
        await self._write(await self._step(position, planned))
        return planned

    async def apply(self, batch: Batch) -> None:
        """Hands on a batch; see Target."""
        marked = {**batch.parked, **batch.skipped}
        self._aside.update(marked)
        step = await self._step(batch.after, batch.upto)
        connection = self.record.connection
        if marked:
            culprits: list[Culprit] = [
                (position, None, reason, "parked" if position in batch.parked else "skipped")
                for position, reason in marked.items()
            ]
            async with connection.transaction():
                await self.record.record_aside(connection, SetAside(culprits))
        if step.parts:
            await self.record.plan(batch.after, batch.upto)
        await self._write(step)

    async def _write(self, step: RowsStep) -> None:
        assert self._hold is not None
        await self.storage.append(self._hold, step)
        await self.record.at_once(step.after, step.upto)

    async def _step(self, after: int, upto: int) -> RowsStep:
        """What the log holds in a range. Raises CannotApply where a value does not cast."""
        connection = self.record.connection
        with self.record.faults():
            parts = [part async for part in self._parts(connection, after, upto)]
        cursor = await connection.execute(
            SQL["log.newest"], {"after": after, "upto": upto, "types": self.feed.type_names}
        )
        row = await cursor.fetchone()
        last = None if row is None else LastEvent(row[0], bytes(row[1]))
        return RowsStep(after, upto, parts, last)

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
            columns=sql.SQL(", ").join(map(_expression, columns)),
            after=sql.Literal(after),
            upto=sql.Literal(upto),
            type=sql.Literal(name),
            aside=sql.Literal(sorted(p for p in self._aside if after < p <= upto)),
        )
        async with connection.cursor() as cursor, cursor.copy(statement) as copy:
            data = b"".join([bytes(block) async for block in copy])
        return Part(name, month, columns, after, upto, data)

    # Care ----------------------------------------------------------------------------------------

    async def verify(self, report: Report | None = None, *, limit: int = 20) -> Verification:
        """Reads every file and compares it with the log's rows of its range; counts the rest."""
        async with self._database.connection() as connection:
            await self.learn(connection)
            place = await self.outside.place(connection)
            position, files = await self.storage.files(place)
            position = max(position, 0)
            aside = await self.record.not_applied(connection)
            self._aside = {row[0] for row in aside}
            differences = []
            for done, file in enumerate(files, start=1):
                part = await self.part(
                    connection, file.type, file.after, file.upto, month=file.month
                )
                if not await self.storage.same(place, file, part):
                    differences.append(Difference("", file.path, "the log's rows", "other rows"))
                if report is not None:
                    report(done, len(files))
            rows = sum(file.rows for file in files)
            cursor = await connection.execute(
                SQL["log.count"],
                {"upto": position, "types": self.feed.type_names, "aside": sorted(self._aside)},
            )
            counted = await cursor.fetchone()
            assert counted is not None
            if counted[0] != rows:
                differences.append(Difference("", "rows", counted[0], rows))
        parked = sum(status == "parked" for _, _, _, status in aside)
        return Verification(
            self.name, position, rows, len(differences), tuple(differences[:limit]), parked
        )

    async def replay(self, positions: Sequence[int] | None = None) -> int:
        """Nothing: a feed's rows are in order of position, so parked ones come with a rebuild."""
        _ = positions
        return 0

    def row_of(self, values: Sequence[Any]) -> Any:
        """Refused: files are read by other programs."""
        _ = values
        raise DefinitionError(f"The rows of {self.name!r} are files.", hint="Use its files().")


def month_of(block: int) -> str:
    """The month that owns a block of positions, such as 2026-11."""
    return f"{_FIRST_YEAR + block // 12}-{block % 12 + 1:02}"


def _expression(column: Column) -> sql.Composed:
    kind = "microseconds" if column.sql_type == "timestamp with time zone" else "text"
    # The expressions are Headwater's own, made from the type's schema.
    own: Any = column.expression
    return sql.SQL(SQL[f"feed.{kind}"]).format(expression=sql.SQL(own))


async def _first_after(connection: Connection, after: int, upto: int) -> int | None:
    cursor = await connection.execute(SQL["record.first_after"], {"after": after, "upto": upto})
    row = await cursor.fetchone()
    return None if row is None else row[0]
