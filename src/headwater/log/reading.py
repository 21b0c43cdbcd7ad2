"""Reading the log in order.

A reader takes the published watermark in one statement and the rows in a later one, under READ
COMMITTED, so that whoever has read up to a position has seen every event at or below it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec
import psycopg

from headwater import errors
from headwater.events import Event, EventTypes, Recorded
from headwater.log.database import SQL, Connection, Database
from headwater.log.failures import translated
from headwater.log.tokens import Token

_POLL_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)

StoredRow = tuple[
    int, str, str, int, str, int, UUID, datetime, datetime | None, str, str, list[str] | None
]
_metadata = msgspec.json.Decoder(dict)


def recorded(types: EventTypes, row: StoredRow) -> Recorded[Event]:
    """A row of the log as a typed event. Raises UnknownEventType or msgspec.ValidationError."""
    (
        position,
        tenant,
        stream,
        version,
        type_,
        schema_version,
        id_,
        recorded_at,
        occurred_at,
        data,
        meta,
        keys,
    ) = row
    declared = types.named(type_)
    return Recorded(
        position,
        tenant,
        stream,
        version,
        type_,
        schema_version,
        id_,
        recorded_at,
        occurred_at,
        declared.decode(data, schema_version),
        _metadata.decode(meta),
        tuple(keys or ()),
    )


class LogReader:
    """Reads one log in order, what the database's role may see; of the tenant named here where none is named later.

    What the app does not declare is passed by: captured tables, records of sagas, types of newer code. Asked for by
    name, it is refused with UnknownEventType.
    """

    def __init__(self, database: Database, types: EventTypes, tenant: str | None = None) -> None:
        self._database = database
        self._types = types
        self._tenant = tenant

    async def safe(self) -> int:
        """The published watermark: readers may read up to here."""
        async with self._database.connection() as connection:
            return await safe_position(connection)

    async def token(self) -> Token:
        """The token of the published watermark: views that have reached it have all that readers may see by now."""
        position = await self.safe()
        return self._database.identity.token(position)

    async def read(
        self,
        after: int = 0,
        *,
        max_rows: int = 1000,
        types: Sequence[str] | None = None,
        tenant: str | None = None,
    ) -> list[Recorded[Event]]:
        """Up to ``max_rows`` events after a position, in order, of those types, or all declared ones, and that tenant."""
        rows, _ = await self._rows(after, max_rows, types, tenant)
        return [recorded(self._types, row) for row in rows]

    async def stream(
        self, stream: str, *, tenant: str, after_version: int = 0, max_rows: int = 1000
    ) -> list[Recorded[Event]]:
        """Up to ``max_rows`` events of a stream after a version, in order.

        A stream needs no watermark: its versions are dense, and committed in order.
        """
        async with self._database.transaction(tenant) as connection:
            cursor = await connection.execute(
                SQL["log.stream"],
                {
                    "tenant": tenant,
                    "stream": stream,
                    "after_version": after_version,
                    "types": self._declared(),
                    "max_rows": max_rows,
                },
                binary=True,
            )
            return [recorded(self._types, row) for row in await cursor.fetchall()]

    async def with_key(
        self, key: str, *, tenant: str, max_rows: int = 1000
    ) -> list[Recorded[Event]]:
        """Up to ``max_rows`` events of a tenant that carry a key, in order, as far as they are committed."""
        async with self._database.transaction(tenant) as connection:
            asked = {
                "tenant": tenant,
                "key": key,
                "types": self._declared(),
                "max_rows": max_rows,
            }
            cursor = await connection.execute(SQL["log.with_key"], asked, binary=True)
            return [recorded(self._types, row) for row in await cursor.fetchall()]

    async def tail(
        self,
        after: int = 0,
        *,
        types: Sequence[str] | None = None,
        tenant: str | None = None,
        max_rows: int = 1000,
    ) -> AsyncIterator[Recorded[Event]]:
        """Events after a position, in order, without end. Survives a restart of the server."""
        idle = 0
        while True:
            try:
                rows, upto = await self._rows(after, max_rows, types, tenant)
            except (errors.DatabaseUnavailable, psycopg.OperationalError):
                rows, upto = [], after
            for row in rows:
                yield recorded(self._types, row)
            full = len(rows) == max_rows
            after = rows[-1][0] if full else max(upto, after)
            idle = 0 if rows else min(idle + 1, len(_POLL_SECONDS) - 1)
            if not full:
                await asyncio.sleep(_POLL_SECONDS[idle])

    def _declared(self) -> list[str]:
        return [declared.name for declared in self._types]

    async def _rows(
        self, after: int, max_rows: int, types: Sequence[str] | None, tenant: str | None
    ) -> tuple[list[StoredRow], int]:
        tenant = tenant or self._tenant
        async with self._database.connection() as connection:
            upto = await safe_position(connection)
            if upto <= after:
                return [], upto
            parameters = {
                "after": after,
                "upto": upto,
                "types": self._declared() if types is None else list(types),
                "tenant": tenant,
                "max_rows": max_rows,
            }
            if tenant is None:
                return await _fetch(connection, parameters), upto
            async with (
                connection.transaction()
            ):  # READ COMMITTED: the statement has its own snapshot
                await connection.execute(SQL["log.set_tenant"], {"tenant": tenant})
                return await _fetch(connection, parameters), upto


async def safe_position(connection: Connection) -> int:
    """The published watermark, read in a statement of its own."""
    with translated():
        row = await (await connection.execute(SQL["log.safe"], prepare=True)).fetchone()
    assert row is not None
    position: int = row[0]
    return position


async def _fetch(connection: Connection, parameters: Mapping[str, object]) -> list[StoredRow]:
    cursor = await connection.execute(SQL["log.read"], parameters, binary=True)
    rows: list[StoredRow] = await cursor.fetchall()
    return rows
