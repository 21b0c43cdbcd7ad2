"""Incremental SQL views in Postgres, as the relay drives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from headwater.errors import NotCaughtUp
from headwater.log.database import Connection, Database
from headwater.relay import Batch
from headwater.stores.postgres.documents import PostgresDocuments
from headwater.stores.postgres.sql_view import SqlViewPlan, Storage, plan_sql_view
from headwater.stores.postgres.sql_view_text import template
from headwater.stores.postgres.stored import SQL, PostgresView, snapshot
from headwater.views.definition import Difference, Verification
from headwater.views.port import Report
from headwater.views.sql_view import SqlView


class PostgresRows(PostgresView):
    """A SQL view's rows, over the log or over a fold's documents."""

    def __init__(
        self, database: Database, view: SqlView, documents: PostgresDocuments[Any] | None = None
    ) -> None:
        super().__init__(database, view.definition, view.on_failure)
        self._view = view
        self._documents = documents
        self._planned: SqlViewPlan | None = None
        if documents is not None:
            documents.attach(self)

    @property
    def follows(self) -> str | None:
        """The fold whose documents this view reads, or None for the log."""
        return None if self._documents is None else self._documents.name

    @property
    def plan(self) -> SqlViewPlan:
        """The statements of the current generation; known once the view's status is."""
        assert self._planned is not None
        return self._planned

    async def _prepare(self, connection: Connection) -> None:
        changes = documents = None
        if self._documents is not None:
            await self._documents._status(connection)  # noqa: SLF001 - one room's own
            changes = self._documents.changes
            documents = sql.SQL("(SELECT tenant, key, document AS data FROM {})").format(
                self._documents.table
            )
        storage = Storage(self.name, f"{self.name}__{self._generation}")
        self._planned = await plan_sql_view(
            connection,
            self._view.query,
            storage,
            changes=changes,
            documents=documents,
            float_tolerance=self._view.float_tolerance,
        )

    async def _create_tables(self, connection: Connection) -> None:
        for statement in (*self.plan.tables.create(), *self.plan.tables.publish()):
            await connection.execute(statement)

    async def _drop_tables(self, connection: Connection) -> None:
        for statement in (*self.plan.tables.unpublish(), *self.plan.tables.drop()):
            await connection.execute(statement)

    async def first_after(self, after: int, upto: int) -> int | None:
        """The first position of the source in (after, upto]."""
        if self._documents is None:
            return await super().first_after(after, upto)
        async with self._database.connection() as connection:
            statement = template("first_change", file="documents.sql").format(
                table=self._documents.changes
            )
            row = await (
                await connection.execute(statement, {"after": after, "upto": upto})
            ).fetchone()
            return None if row is None else row[0]

    async def apply(self, batch: Batch) -> None:
        """Merges a batch; see Target."""
        if self._documents is not None:
            await self._wait_no_further(batch.upto)
        aside = {**batch.parked, **batch.skipped}
        if not aside and (merge := self.plan.merge_at_once) is not None:
            await self._at_once(batch.after, batch.upto, merge, parked=[])
            return
        keys = {position: await self._keys_of(position) for position in aside}
        async with self._batch(batch.after, batch.upto) as connection:
            await self.plan.apply(
                connection, after=batch.after, upto=batch.upto, parked=list(aside)
            )
            for position, reason in aside.items():
                status = "parked" if position in batch.parked else "skipped"
                await self._set_aside(connection, position, keys[position], reason, status=status)

    async def _wait_no_further(self, upto: int) -> None:
        """Refuses a batch beyond the documents.

        A fold that starts over takes this view with it in one commit, so one that starts over after this check fails the batch's own first statement.
        """
        assert self._connection is not None
        cursor = await self._connection.execute(SQL["stored.checkpoint"], {"view": self.follows})
        row = await cursor.fetchone()
        if row is None or row[0] < upto:
            raise NotCaughtUp(f"The documents that {self.name!r} reads start over.")

    async def _keys_of(self, position: int) -> list[str] | None:
        """The groups of an event, or None where they cannot be told."""
        assert self._connection is not None
        try:
            cursor = await self._connection.execute(self.plan.keys_of, {"position": position})
            return [row[0] for row in await cursor.fetchall()] or None
        except psycopg.DataError:
            return None

    async def touched(
        self, connection: Connection, *, after: int, upto: int, parked: Sequence[int]
    ) -> list[str] | None:
        """The groups that events in (after, upto] belong to; see StoredView."""
        if self._documents is not None:
            return None
        if self._planned is None:
            await self._status(connection)
        batch = {"after": after, "upto": upto, "parked": list(parked)}
        cursor = await connection.execute(self.plan.touched, batch)
        return [row[0] for row in await cursor.fetchall()]

    async def verify(self, report: Report | None = None, *, limit: int = 20) -> Verification:
        """Runs the view's own query over the log and compares, inside Postgres."""
        async with snapshot(self._database) as connection:
            await self._status(connection)
            upto = await self._checkpoint(connection)
            aside = await self._not_applied(connection)
            parked = [
                key for _, _, keys, status in aside if status == "parked" for key in keys or ()
            ]
            parameters = {"upto": upto, "parked": [row[0] for row in aside], "parked_keys": parked}
            cursor = await connection.execute(self.plan.verify_count, parameters)
            counted = await cursor.fetchone()
            assert counted is not None
            rows, differing = counted
            cursor = await connection.execute(self.plan.verify, parameters | {"limit": limit})
            differences = tuple(
                _difference(self._view.query.key, *row) for row in await cursor.fetchall()
            )
            if report is not None:
                report(1, 1)
        return Verification(self.name, upto, rows, differing, differences, len(set(parked)))

    async def _checkpoint(self, connection: Connection) -> int:
        cursor = await connection.execute(SQL["stored.checkpoint"], {"view": self.name})
        row = await cursor.fetchone()
        assert row is not None
        position: int = row[0]
        if self._documents is not None:
            cursor = await connection.execute(
                SQL["stored.checkpoint"], {"view": self._documents.name}
            )
            source = await cursor.fetchone()
            if source is not None and source[0] != position:
                raise NotCaughtUp(
                    f"The view {self.name!r} is behind the documents that it reads.",
                    hint="Verify it while the fold is quiet, or try again.",
                )
        return position

    async def replay(self, positions: Sequence[int] | None = None) -> int:
        """Merges parked events again, one by one; those that fail stay parked."""
        done: list[int] = []
        async with self._database.transaction() as connection:
            await self._status(connection)
            await connection.execute(SQL["stored.disturb"], {"view": self.name})
            wanted = None if positions is None else list(positions)
            cursor = await connection.execute(
                SQL["stored.parked_here"], {"view": self.name, "positions": wanted}
            )
            for position, _, _ in await cursor.fetchall():
                try:
                    async with connection.transaction():
                        await self.plan.apply(connection, after=position - 1, upto=position)
                    done.append(position)
                except psycopg.DataError:
                    continue
            await connection.execute(SQL["stored.unpark"], {"view": self.name, "positions": done})
        return len(done)

    def row_of(self, values: Sequence[Any]) -> Any:
        """A stored row as the view's row type."""
        outputs = self._view.query.outputs
        named = {output.name: value for output, value in zip(outputs, values, strict=True)}
        return msgspec.convert(named, self._view.row, strict=False)


def _difference(key: tuple[str, ...], side: str, tenant: str, row: dict[str, Any]) -> Difference:
    place = ", ".join(f"{name}={row.get(name)}" for name in key)
    expected, stored = (row, None) if side == "expected" else (None, row)
    return Difference(tenant, place, expected, stored)
