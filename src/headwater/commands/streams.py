"""Reading streams for decisions: commands that run at the same time share a read."""

from __future__ import annotations

from collections.abc import Sequence

from headwater.commands.statements import SQL
from headwater.log import arrays
from headwater.log.database import Database
from headwater.log.reading import StoredRow
from headwater.log.sharing import Shared

_AT_ONCE = 200
Stream = tuple[str, str]
"""Tenant and name."""


class SharedReads:
    """Whole streams."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._shared = Shared(self._answer, at_once=_AT_ONCE, name="shared reads")

    async def rows(self, name: str, tenant: str) -> list[StoredRow]:
        """The events of a stream, in order, as they are in a snapshot that is taken after the call."""
        return await self._shared.ask((tenant, name))

    async def close(self) -> None:
        """Ends what reads. Idempotent."""
        await self._shared.close()

    async def _answer(self, streams: Sequence[Stream]) -> list[list[StoredRow]]:
        found: dict[Stream, list[StoredRow]] = {}
        for tenant in sorted({tenant for tenant, _ in streams}):
            names = sorted({name for whose, name in streams if whose == tenant})
            for row in await self._fetch(tenant, names):
                found.setdefault((tenant, row[2]), []).append(row)
        return [found.get(stream, []) for stream in streams]

    async def _fetch(self, tenant: str, names: Sequence[str]) -> list[StoredRow]:
        parameters = {"tenant": tenant, "names": arrays.text_array(names)}
        async with self._database.connection() as connection:
            # One round trip: the statements of a transaction, sent together.
            async with connection.pipeline(), connection.transaction():
                await connection.execute(SQL["commands.begin"], {"tenant": tenant}, prepare=True)
                cursor = await connection.execute(
                    SQL["commands.streams"], parameters, binary=True, prepare=True
                )
            rows: list[StoredRow] = await cursor.fetchall()
        return rows
