"""Reading streams for decisions: commands that run at the same time share a read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from headwater.commands.statements import SQL
from headwater.log import arrays
from headwater.log.database import Database
from headwater.log.reading import StoredRow
from headwater.log.tasks import ended

_READERS = 2
_AT_ONCE = 200


@dataclass(slots=True)
class _Waiting:
    tenant: str
    name: str
    answer: asyncio.Future[list[StoredRow]]


class SharedReads:
    """Whole streams. Whoever asks while a read is under way shares the next one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Waiting] = []
        self._readers: set[asyncio.Task[None]] = set()

    async def rows(self, name: str, tenant: str) -> list[StoredRow]:
        """The events of a stream, in order, as they are in a snapshot that is taken after the call."""
        waiting = _Waiting(tenant, name, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if len(self._readers) < _READERS:
            reader = asyncio.create_task(self._read(), name="shared reads")
            self._readers.add(reader)
            reader.add_done_callback(self._readers.discard)
        return await waiting.answer

    async def close(self) -> None:
        """Ends what reads. Idempotent."""
        await ended(list(self._readers))

    async def _read(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
            by_tenant: dict[str, list[_Waiting]] = {}
            for one in taken:
                by_tenant.setdefault(one.tenant, []).append(one)
            for tenant, some in by_tenant.items():
                await self._answer(tenant, some)

    async def _answer(self, tenant: str, some: Sequence[_Waiting]) -> None:
        try:
            found = await self._fetch(tenant, {one.name for one in some})
        except BaseException as error:  # whatever it is, it is the callers'
            for one in some:
                if not one.answer.done():
                    if isinstance(error, Exception):
                        one.answer.set_exception(error)
                    else:
                        one.answer.cancel()
            if not isinstance(error, Exception):
                raise
            return
        for one in some:
            if not one.answer.done():
                one.answer.set_result(found.get(one.name, []))

    async def _fetch(self, tenant: str, names: set[str]) -> dict[str, list[StoredRow]]:
        parameters = {"tenant": tenant, "names": arrays.text_array(sorted(names))}
        async with self._database.connection() as connection:
            # One round trip: the statements of a transaction, sent together.
            async with connection.pipeline(), connection.transaction():
                await connection.execute(SQL["commands.begin"], {"tenant": tenant}, prepare=True)
                cursor = await connection.execute(
                    SQL["commands.streams"], parameters, binary=True, prepare=True
                )
            rows: list[StoredRow] = await cursor.fetchall()
        found: dict[str, list[StoredRow]] = {}
        for row in rows:
            found.setdefault(row[2], []).append(row)
        return found
