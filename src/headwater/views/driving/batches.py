"""Drives a view whose rows go to a store batch by batch.

A batch is recorded before it is written, and written again as it was. While the store writes one, the next is
read from the log: see ``reading_ahead``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import date, timedelta

from psycopg import sql

from headwater.log.database import Connection, Database
from headwater.log.reading import safe_position
from headwater.relay import Batch, OnFailure
from headwater.views.batches import Limits, OutsideBatches, Part, RowsStep
from headwater.views.definition import Definition
from headwater.views.driving.outside import Outside
from headwater.views.driving.reading_ahead import ReadingAhead
from headwater.views.driving.record import SQL
from headwater.views.driving.view import DrivenView
from headwater.views.storage import Hold, LastEvent, Place


class DrivenBatches(DrivenView):
    """A view of rows; subclasses say which rows the log gives, and make room for them."""

    def __init__(
        self,
        database: Database,
        definition: Definition,
        on_failure: OnFailure,
        batches: OutsideBatches,
        pause_seconds: float,
    ) -> None:
        super().__init__(database, definition, on_failure)
        self.batches = batches
        self.outside = Outside(self.record, batches)
        self.pause_seconds = pause_seconds
        self._hold: Hold | None = None
        self._aside: set[int] = set()
        self._ahead = ReadingAhead(self._read)

    # What subclasses give ------------------------------------------------------------------------

    @property
    @abstractmethod
    def types(self) -> Sequence[str]:
        """The event types that it reads."""

    @abstractmethod
    def _parts(self, connection: Connection, after: int, upto: int) -> AsyncIterator[Part]:
        """What the log holds in a range, without what is set aside."""

    @abstractmethod
    async def _make_room(self, place: Place) -> None:
        """Prepares the store for the rows."""

    async def _keys_of(self, position: int) -> Sequence[str] | None:  # noqa: ARG002 - for subclasses
        """The keys that an event that is set aside concerns, or None where they cannot be told."""
        return None

    async def _create(self, connection: Connection) -> None:
        """Nothing: the store makes room when it is first opened."""

    async def _drop(self, connection: Connection) -> None:
        """Nothing: the next generation begins elsewhere."""

    # Generations ---------------------------------------------------------------------------------

    @property
    def beside(self) -> bool:
        """Each generation has a place of its own."""
        return True

    async def publish_outside(self) -> None:
        """Points the names that other programs read at the generation that the log's database names.

        That one cannot be exchanged meanwhile, so nobody points them back at one that was.
        """
        async with self._database.transaction() as connection:
            await connection.execute(SQL["session.patient"])
            cursor = await connection.execute(SQL["rebuild.read_now"], {"view": self.name})
            if (row := await cursor.fetchone()) is not None:
                place = await self.outside.place(connection)
                await self.batches.publish(replace(place, generation=row[0]))

    # Driving -------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Gives back what driving holds. Idempotent."""
        await self._ahead.forget()
        await super().close()

    async def _opened(self, checkpoint: int) -> int:
        await self._ahead.forget()
        hold, position = await self.outside.open(checkpoint)
        self._hold = hold
        self._aside = {row[0] for row in await self.record.not_applied(self.record.connection)}
        await self._make_room(hold.place)
        if self.record.row == self.name:  # nobody reads a candidate
            await self.publish_outside()
        planned = await self.record.planned(position)
        await self.batches.trim(hold, position if planned is None else planned)
        if planned is None:
            return position
        step = await self._step(position, planned)
        step.again = True
        await self._write(step)
        return planned

    async def apply(self, batch: Batch) -> None:
        """Hands on a batch; see Target."""
        marked = {**batch.parked, **batch.skipped}
        self._aside.update(marked)
        if marked:
            await self._ahead.forget()  # read without what is set aside now
        step = await self._step(batch.after, batch.upto)
        if marked:
            await self._record_aside(batch)
        if step.parts:
            await self.record.plan(batch.after, batch.upto)
            await self._read_ahead(batch)
        await self._write(step)

    async def _record_aside(self, batch: Batch) -> None:
        connection = self.record.connection
        keys = {p: await self._keys_of(p) for p in (*batch.parked, *batch.skipped)}
        async with connection.transaction():
            for status, marked in (("parked", batch.parked), ("skipped", batch.skipped)):
                for position, reason in marked.items():
                    await self.record.set_aside(
                        connection, position, keys[position], reason, status=status
                    )

    async def _write(self, step: RowsStep) -> None:
        assert self._hold is not None
        await self.record.register_ahead([one for part in step.parts for one in part.opened])
        await self.batches.append(self._hold, step)
        await self.record.at_once(step.after, step.upto)

    async def _read_ahead(self, batch: Batch) -> None:
        """Begins to read what the next batch begins with, where so much is published already.

        On the view's own connection: what is read is published, so it is what any later read gives, and the
        boundaries are recorded when the batch is handed over, as ever.
        """
        upto = batch.upto + min(batch.upto - batch.after, self.max_batch)
        if await safe_position(self.record.connection) >= upto:
            self._ahead.begin(batch.upto, upto)

    async def _read(self, after: int, upto: int) -> list[Part]:
        with self.record.faults():
            return [part async for part in self._parts(self.record.connection, after, upto)]

    async def _step(self, after: int, upto: int) -> RowsStep:
        """What the log holds in a range. Raises CannotApply where a value does not fit."""
        connection = self.record.connection
        parts = await self._ahead.parts(after, upto)
        cursor = await connection.execute(
            SQL["log.newest"], {"after": after, "upto": upto, "types": list(self.types)}
        )
        row = await cursor.fetchone()
        last = None if row is None else LastEvent(row[0], bytes(row[1]))
        return RowsStep(after, upto, parts, last)

    async def replay(self, positions: Sequence[int] | None = None) -> int:
        """Nothing: rows are added in order of position, so parked ones come with a rebuild."""
        _ = positions
        return 0


def csv_rows(
    expressions: Sequence[tuple[sql.Composable, str]], limits: Limits | None
) -> dict[str, sql.Composable]:
    """Expressions of these Postgres types as ``values``, and as CSV carries them as ``written``.

    A value that the store would not keep as it is raises.
    """
    names = [sql.Identifier("row_of", f"value_{n}") for n, _ in enumerate(expressions, start=1)]
    values = [
        sql.SQL("{} AS {}").format(expression, sql.Identifier(f"value_{n}"))
        for n, (expression, _) in enumerate(expressions, start=1)
    ]
    written = [
        _csv_value(name, sql_type, limits)
        for name, (_, sql_type) in zip(names, expressions, strict=True)
    ]
    return {"values": sql.SQL(", ").join(values), "written": sql.SQL(", ").join(written)}


def _csv_value(expression: sql.Composable, sql_type: str, limits: Limits | None) -> sql.Composable:
    if limits is not None and sql_type.startswith("numeric"):
        expression = sql.SQL(SQL["feed.limited_number"]).format(
            expression=expression,
            bound=sql.Literal(f"1e{limits.digits}"),
            digits=sql.Literal(limits.digits),
            decimals=sql.Literal(limits.decimals),
        )
    elif limits is not None and (sql_type == "date" or sql_type.startswith("timestamp")):
        expression = sql.SQL(SQL["feed.limited_date"]).format(
            expression=expression,
            first=sql.Literal(limits.first_date),
            last=sql.Literal(limits.last_date),
            beyond=sql.Literal(str(date.fromisoformat(limits.last_date) + timedelta(days=1))),
            type=sql.SQL(sql_type),
        )
    kind = "microseconds" if sql_type.startswith("timestamp") else "text"
    return sql.SQL(SQL[f"feed.{kind}"]).format(expression=expression)
