"""Incremental SQL views in Postgres, as the relay drives them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import sql

from headwater.errors import NotCaughtUp
from headwater.log.database import Connection, Database
from headwater.relay import Batch
from headwater.stores.postgres.folds import PostgresFold
from headwater.stores.postgres.publishing import point
from headwater.stores.postgres.sql_view import Storage, plan_sql_view
from headwater.stores.postgres.sql_view_driven import DrivenSql
from headwater.stores.postgres.sql_view_text import template
from headwater.views.definition import Sample, Verification
from headwater.views.driving.record import SQL, snapshot
from headwater.views.port import Report
from headwater.views.sql_view import SqlView


class PostgresRows(DrivenSql):
    """A SQL view's rows, over the log or over a fold's documents."""

    max_built = 1_000_000

    def __init__(
        self, database: Database, view: SqlView, fold: PostgresFold[Any] | None = None
    ) -> None:
        super().__init__(database, view.definition, view.on_failure)
        self._view = view
        self._fold = fold
        if fold is not None:
            fold.attach(self)

    @property
    def follows(self) -> str | None:
        """The fold whose documents this view reads, or None for the log."""
        return None if self._fold is None else self._fold.name

    async def prepare(self, connection: Connection) -> None:
        """Plans the statements of the generation."""
        changes = documents = None
        if self._fold is not None:
            await self._fold.learn(connection)
            changes = self._fold.documents.changes
            documents = sql.SQL("(SELECT tenant, key, document AS data FROM {})").format(
                self._fold.documents.table
            )
        storage = Storage(self.name, f"{self.name}__{self.record.generation}")
        self._planned = await plan_sql_view(
            connection,
            self._view.query,
            storage,
            changes=changes,
            documents=documents,
            float_tolerance=self._view.float_tolerance,
            retention=self._view.retention,
        )

    async def _create(self, connection: Connection) -> None:
        for statement in self.plan.tables.create():
            await connection.execute(statement)

    async def publish(self, connection: Connection) -> None:
        """Has readers see this generation."""
        tables = self.plan.tables
        creation, *grants = tables.publish()
        await point(connection, tables.view, creation)
        for grant in grants:
            await connection.execute(grant)

    @property
    def beside(self) -> bool:
        """Not over a fold's documents, whose changes are told once."""
        return self._fold is None

    @property
    def has_baselines(self) -> bool:
        """Where it is over the log."""
        return self.beside

    async def _drop(self, connection: Connection) -> None:
        for statement in (*self.plan.tables.unpublish(), *self.plan.tables.drop()):
            await connection.execute(statement)

    async def _opened(self, checkpoint: int) -> int:
        return checkpoint

    async def first_after(self, after: int, upto: int) -> int | None:
        """The first position of the source in (after, upto]."""
        if self._fold is None:
            return await super().first_after(after, upto)
        async with self._database.connection() as connection:
            statement = template("first_change", file="documents.sql").format(
                table=self._fold.documents.changes
            )
            row = await (
                await connection.execute(statement, {"after": after, "upto": upto})
            ).fetchone()
            return None if row is None else row[0]

    async def apply(self, batch: Batch) -> None:
        """Merges a batch; see Target."""
        if self._fold is not None:
            await self._wait_no_further(batch.upto)
        aside = {**batch.parked, **batch.skipped}
        is_first = batch.after == 0 and self.record.row != self.name
        if is_first and not aside and self.plan.fills:
            async with self.record.batch(batch.after, batch.upto) as connection:
                await self.plan.fill(connection, after=batch.after, upto=batch.upto)
            return
        if not aside and (merge := self.plan.merge_at_once) is not None:
            await self.record.at_once(batch.after, batch.upto, merge, parked=[])
            return
        keys = {position: await self._keys_of(position) for position in aside}
        async with self.record.batch(batch.after, batch.upto) as connection:
            await self.plan.apply(
                connection, after=batch.after, upto=batch.upto, parked=list(aside)
            )
            for position, reason in aside.items():
                status = "parked" if position in batch.parked else "skipped"
                await self.record.set_aside(
                    connection, position, keys[position], reason, status=status
                )

    async def _wait_no_further(self, upto: int) -> None:
        """Refuses a batch beyond the documents.

        A fold that starts over takes this view with it in one commit, so one that starts over after this check fails the batch's own first statement.
        """
        position = await self.record.checkpoint(self.record.connection, self.follows)
        if position is None or position < upto:
            raise NotCaughtUp(f"The documents that {self.name!r} reads start over.")

    async def touched(
        self, connection: Connection, *, after: int, upto: int, parked: Sequence[int]
    ) -> list[str] | None:
        """The groups that events in (after, upto] belong to; see StoredView."""
        if self._fold and not await self._fold.documents.changes_kept(connection, after):
            return None
        return await super().touched(connection, after=after, upto=upto, parked=parked)

    async def verify(
        self, report: Report | None = None, *, limit: int = 20, sample: Sample | None = None
    ) -> Verification:
        """Runs the view's own query over the log and compares, inside Postgres."""
        async with snapshot(self._database) as connection:
            await self.learn(connection)
            upto = await self._checkpoint(connection)
            found = await self._compared(connection, upto, limit, sample)
            if report is not None:
                report(1, 1)
        return found

    @asynccontextmanager
    async def _held(self, connection: Connection) -> AsyncIterator[int]:
        await connection.execute(SQL["session.snapshot"])
        try:
            await self.learn(connection)
            yield await self._checkpoint(connection)
        finally:
            await connection.execute(SQL["session.end"])

    async def _checkpoint(self, connection: Connection) -> int:
        position = await self.record.checkpoint(connection)
        assert position is not None
        if self._fold is not None:
            source = await self.record.checkpoint(connection, self._fold.name)
            if source is not None and source != position:
                raise NotCaughtUp(
                    f"The view {self.name!r} is behind the documents that it reads.",
                    hint="Verify it while the fold is quiet, or try again.",
                )
        return position

    async def replay(self, positions: Sequence[int] | None = None) -> int:
        """Merges parked events again, one by one; those that fail stay parked."""
        done: list[int] = []
        async with self._database.transaction() as connection:
            await self.learn(connection)
            await self.record.disturb(connection)
            for position, _, _ in await self.record.parked(connection, positions):
                try:
                    async with connection.transaction():
                        await self.plan.apply(connection, after=position - 1, upto=position)
                    done.append(position)
                except psycopg.DataError:
                    continue
            for statement in self.plan.tables.forget() if done else ():
                await connection.execute(statement, {"upto": await self._checkpoint(connection)})
            await self.record.unpark(connection, done)
        return len(done)
