"""SQL views over the log whose groups are in another store.

Postgres evaluates the query's expressions and conditions as it reads a batch, exactly as they were written;
the store brings the values together. So a query means the same in every store, and checking a view compares
the store's groups with the query over the log, inside Postgres.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from psycopg import sql

from headwater.log.copying import copied
from headwater.log.database import Connection, Database
from headwater.stores.postgres.sql_view import Storage, plan_sql_view
from headwater.stores.postgres.sql_view_driven import DrivenSql
from headwater.stores.postgres.sql_view_source import Sources
from headwater.stores.postgres.sql_view_text import listed, name, template
from headwater.stores.postgres.sql_view_values import Values, table_columns
from headwater.views.batches import OutsideTables, Part, RowsStep
from headwater.views.definition import Sample, Verification
from headwater.views.driving.batches import DrivenBatches
from headwater.views.driving.record import SQL
from headwater.views.port import Report
from headwater.views.sql_view import SqlView
from headwater.views.storage import Place

_FORGET_SECONDS = 60.0

_COPY = Storage("headwater_compared", "headwater_compared", "pg_temp")


class OutsideSql(DrivenSql, DrivenBatches):
    """A SQL view in another store."""

    def __init__(
        self, database: Database, view: SqlView, tables: OutsideTables, pause_seconds: float
    ) -> None:
        super().__init__(database, view.definition, view.on_failure, tables, pause_seconds)
        self._view = view
        self._forget_at = 0.0
        self._tables = tables

    @property
    def types(self) -> Sequence[str]:
        """The event types that the query reads."""
        return self._view.query.reads

    @property
    def _values(self) -> Values:
        return Values(self.plan, Sources(self._view.query))

    async def prepare(self, connection: Connection) -> None:
        """Has Postgres describe the query."""
        self._planned = await plan_sql_view(
            connection, self._view.query, _COPY, float_tolerance=self._view.float_tolerance,
            is_elsewhere=True, retention=self._view.retention,
        )  # fmt: skip

    async def _create(self, connection: Connection) -> None:  # noqa: ARG002 - the base's
        # Before the first batch, so that whoever deploys hears what the store would not keep.
        self._tables.check(self._values.shape())

    # Driving -------------------------------------------------------------------------------------

    async def _make_room(self, place: Place) -> None:
        await self._tables.prepare(place, self._values.shape())

    async def _opened(self, checkpoint: int) -> int:
        self._forget_at = 0.0
        return await super()._opened(checkpoint)

    async def _write(self, step: RowsStep) -> None:
        await super()._write(step)
        retention = self._view.retention
        if retention is None or time.monotonic() < self._forget_at:
            return
        cursor = await self.record.connection.execute(
            self.plan.tables.kept_from(), {"upto": step.upto}
        )
        row = await cursor.fetchone()
        if row is not None and row[0] is not None:
            assert self._hold is not None
            await self._tables.forget(self._hold.place, self.plan.tables.bucket, row[0])
        # Removing rewrites what is stored: not for each batch, and for long retentions less often.
        self._forget_at = time.monotonic() + max(retention.seconds / 100, _FORGET_SECONDS)

    async def _parts(self, connection: Connection, after: int, upto: int) -> AsyncIterator[Part]:
        values = self._values
        aside = sorted(p for p in self._aside if after < p <= upto)
        batch = {"after": after, "upto": upto, "parked": aside}
        data = await copied(connection, values.copy(self._tables.limits), batch)
        if data:
            yield Part(self.name, "", values.columns, after, upto, data)

    # Care ----------------------------------------------------------------------------------------

    async def verify(
        self, report: Report | None = None, *, limit: int = 20, sample: Sample | None = None
    ) -> Verification:
        """Copies the store's groups into a temporary table and compares, inside Postgres.

        A group tells how far it is. All are at least at the store's checkpoint, which is read first, and
        none is beyond the newest batch among them.
        """
        async with self._database.connection() as connection:
            await self.learn(connection)
            async with self._held(connection) as upto:
                found = await self._compared(connection, upto, limit, sample)
            if report is not None:
                report(1, 1)
        return found

    @asynccontextmanager
    async def _held(self, connection: Connection) -> AsyncIterator[int]:
        values = self._values
        place = await self.outside.place(connection)
        position, data = await self._tables.export(place, values.shape())
        try:
            upto = max(position, await self._copy(connection, values, data))
            await connection.execute(SQL["session.snapshot"])
            try:
                yield upto
            finally:
                await connection.execute(SQL["session.end"])
        finally:
            await connection.execute(template("drop_compared").format(table=self.plan.tables.main))

    async def _copy(self, connection: Connection, values: Values, data: bytes) -> int:
        """Fills the temporary table; the end of the newest batch in it."""
        table = self.plan.tables.main
        columns = [
            sql.SQL("{} {}").format(name(column), sql.SQL(sql_type))
            for column, sql_type in table_columns(self.plan, values.columns)
        ]
        await connection.execute(
            template("create_compared").format(table=table, columns=listed(columns))
        )
        async with connection.cursor() as cursor:
            async with cursor.copy(template("fill_compared").format(table=table)) as copy:
                await copy.write(data)
            await cursor.execute(template("newest_compared").format(table=table))
            row = await cursor.fetchone()
        assert row is not None
        newest: int = row[0]
        return newest
