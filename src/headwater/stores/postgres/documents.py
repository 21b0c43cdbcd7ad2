"""A fold's documents in Postgres: a table, one row per tenant and key."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from psycopg import sql
from psycopg.errors import Diagnostic, LockNotAvailable, QueryCanceled

from headwater.log import arrays
from headwater.log.database import Connection, connect
from headwater.stores.postgres.derived import DerivedEvents
from headwater.stores.postgres.publishing import point
from headwater.stores.postgres.sql_view_text import template
from headwater.stores.postgres.tables import identifier, secure
from headwater.views.documents import SetAside, Step
from headwater.views.driving.record import SQL, ViewRecord
from headwater.views.driving.work import encode
from headwater.views.fold import Document, Key

_PRUNE_EVERY = 50
_REWRITTEN_BYTES = 256 * 2**20
"""A table of up to this size is rewritten at once when a person is forgotten: for about a second or two."""
_RETAINED = 100_000
"""For how many positions behind the views over the documents their changes are kept.

Live channels tell from them which rows of those views have changed."""


class PostgresDocuments:
    """The documents of one fold; see LogDocuments. ``readers`` are the SQL views over them."""

    def __init__(self, record: ViewRecord, derived: DerivedEvents | None = None) -> None:
        self._record = record
        self._derived = derived
        self.readers: list[str] = []
        self._batches = 0

    # Tables --------------------------------------------------------------------------------------

    @property
    def table(self) -> sql.Identifier:
        """The table of documents."""
        return identifier(f"{self._record.name}__{self._record.generation}")

    @property
    def changes(self) -> sql.Identifier:
        """What each batch changed: (after_position, tenant, key, old, new)."""
        return identifier(f"{self._record.name}__changes")

    @property
    def _view(self) -> sql.Identifier:
        return identifier(self._record.name)

    def _sql(self, name: str, table: sql.Identifier | None = None) -> sql.Composed:
        return template(name, file="documents.sql").format(table=table or self.table)

    @property
    def _write_batch(self) -> sql.Composed:
        advance = sql.SQL(SQL["record.advance"])
        return template("write_batch", file="documents.sql").format(
            table=self.table, advance=advance
        )

    async def create(self, connection: Connection) -> None:
        """Creates this generation's table."""
        await connection.execute(self._sql("create"))
        if "opens" in self._record.definition.content:
            await connection.execute(self._sql("no_statistics"))
        await secure(connection, self.table)

    async def publish(self, connection: Connection) -> None:
        """Points the view that readers use at this generation."""
        creation = template("publish", file="documents.sql")
        await point(connection, self._view, creation.format(view=self._view, table=self.table))
        for grant in ("grant_reading", "grant_keeping"):
            await connection.execute(
                template(grant, file="sql_view_tables.sql").format(relation=self._view)
            )
        exists = sql.SQL("SELECT to_regclass({})").format(
            sql.Literal(self.changes.as_string(connection))
        )
        cursor = await connection.execute(exists)
        if await cursor.fetchone() == (None,):
            await connection.execute(self._sql("create_changes", self.changes))
            await connection.execute(self._sql("index_changes", self.changes))
            await secure(connection, self.changes)

    async def drop(self, connection: Connection) -> None:
        """Removes this generation's tables and the view that readers use."""
        drop = template("drop_view", file="sql_view_tables.sql")
        await connection.execute(drop.format(view=self._view))
        for table in (self.changes, self.table):
            await connection.execute(
                template("drop_table", file="sql_view_tables.sql").format(table=table)
            )

    # Batches -------------------------------------------------------------------------------------

    async def load(
        self, keys: Sequence[Key], connection: Connection
    ) -> Iterable[tuple[Key, bytes]]:
        """The documents of those keys that have one."""
        cursor = await connection.execute(
            self._sql("load"), _arrays(keys), binary=True, prepare=True
        )
        rows = await cursor.fetchall()
        return (((tenant, key), document) for tenant, key, document in rows)

    async def apply(self, step: Step, aside: SetAside) -> None:
        """A batch in one commit: in one statement, where nothing but documents is to be written."""
        if step.removed or aside or step.derived or step.opened or self.readers:
            async with self._record.batch(step.after, step.upto) as connection:
                await self.write(connection, step)
                await self._record.record_aside(connection, aside)
        elif step.kept:
            await self._record.at_once(step.after, step.upto, self._write_batch, **_documents(step))
        else:
            await self._record.at_once(step.after, step.upto)

    async def write(self, connection: Connection, step: Step) -> None:
        """Documents, and what changed for the views over them, inside a transaction."""
        await self._record.register(connection, step.opened)
        if step.kept:
            await connection.execute(self._sql("write"), _documents(step), prepare=True)
        if step.removed:
            await connection.execute(self._sql("remove"), _arrays(step.removed))
        if (step.kept or step.removed) and self.readers:
            await self._note_changes(connection, step)
        if step.derived:
            assert self._derived is not None
            await self._derived.append(connection, step.derived)

    async def _note_changes(self, connection: Connection, step: Step) -> None:
        changed = [*step.kept, *step.removed]

        def documents(states: Mapping[Key, Document | None]) -> Iterator[bytes | None]:
            return (None if states[key] is None else encode(states[key]) for key in changed)

        parameters = _arrays(changed) | {
            "upto": step.upto,
            "old": arrays.jsonb_array(documents(step.before)),
            "new": arrays.jsonb_array(documents(step.states)),
        }
        await connection.execute(self._sql("note_changes", self.changes), parameters)
        self._batches += 1
        if self._batches % _PRUNE_EVERY == 0:
            await connection.execute(
                self._sql("prune_changes", self.changes),
                {"view": self._record.name, "readers": self.readers, "retained": _RETAINED},
            )

    async def rewrite(self) -> str:
        """Writes the table anew, without what was there before; what stays, where some does.

        A row that was overwritten leaves its bytes in the page, where VACUUM does not clear them. Readers wait
        meanwhile, so a large table is left to a quiet hour.
        """
        named = self.table.as_string()
        later = (
            f"In free space of the table {named}, until VACUUM FULL rewrites it in a quiet hour."
        )
        dead: list[int] = []

        def hear(told: Diagnostic) -> None:
            if (counted := re.match(r"\d+", told.message_detail or "")) is not None:
                dead.append(int(counted[0]))

        connection = await connect(self._record.database.url, "headwater_relay", name="headwater forget")  # fmt: skip
        async with connection:
            connection.add_notice_handler(hear)
            await connection.execute(SQL["opened.wait_for_readers"])
            row = await (await connection.execute(self._sql("size"), {"table": named})).fetchone()
            assert row is not None
            if row[0] > _REWRITTEN_BYTES:
                return later
            try:
                await connection.execute(self._sql("rewrite"))
            except (LockNotAvailable, QueryCanceled):
                return later
        if dead and dead[-1]:
            return f"In rows of {named} that a transaction of before still sees: end it, then VACUUM FULL."
        return ""

    async def changes_kept(self, connection: Connection, after: int) -> bool:
        """Whether all changes after a position are still known."""
        cursor = await connection.execute(
            SQL["record.changes_from"], {"view": self._record.name}, prepare=True
        )
        row = await cursor.fetchone()
        return row is not None and after >= row[0]

    # Checking ------------------------------------------------------------------------------------

    @asynccontextmanager
    async def reading(self, connection: Connection) -> AsyncIterator[_Reading]:
        """Reads for a check, inside a snapshot."""
        position = await self._record.checkpoint(connection)
        yield _Reading(self, connection, position or 0)


class _Reading:
    """Documents in a snapshot: nothing moves."""

    def __init__(self, documents: PostgresDocuments, connection: Connection, position: int) -> None:
        self._documents = documents
        self._connection = connection
        self.position = position

    async def count(self) -> int:
        cursor = await self._connection.execute(self._documents._sql("rows"))  # noqa: SLF001
        row = await cursor.fetchone()
        assert row is not None
        rows: int = row[0]
        return rows

    async def documents(self) -> AsyncIterator[tuple[Key, bytes]]:
        async with self._connection.cursor(name="stored") as cursor:
            await cursor.execute(self._documents._sql("stored"))  # noqa: SLF001
            async for tenant, key, text in cursor:
                yield (tenant, key), text

    async def at_once(self, keys: Sequence[Key]) -> tuple[int, dict[Key, bytes]]:
        return self.position, dict(await self._documents.load(keys, self._connection))


def _documents(step: Step) -> dict[str, Any]:
    return _arrays(step.kept) | {
        "documents": arrays.jsonb_array(step.documents),
        "positions": arrays.bigint_array(step.positions),
    }


def _arrays(keys: Sequence[Key]) -> dict[str, Any]:
    return {
        "tenants": arrays.text_array(tenant for tenant, _ in keys),
        "keys": arrays.text_array(key for _, key in keys),
    }
