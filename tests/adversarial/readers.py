"""Readers that go on from their own last position, whatever happens to their connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from marked import READ, TYPES
from writers import LOST

from headwater.log import Connection, Database, LogReader
from headwater.log.database import connect
from simulation.verdict import Row, Sight

if TYPE_CHECKING:
    from attack import Attack

READS_BEFORE_FORGETTING = 50


@dataclass
class Reader:
    """Reads batches until it finds nothing after the attack's end. The base of the others."""

    attack: Attack
    name: str
    max_rows: int
    tenant: str | None = None
    rows: list[Row] = field(default_factory=list)

    @property
    def sight(self) -> Sight:
        return Sight(self.name, self.rows, self.tenant)

    @property
    def cursor(self) -> int:
        return self.rows[-1].position if self.rows else 0

    async def run(self) -> None:
        while True:
            with suppress(*LOST):
                await self.attack.up.wait()
                async with self.connected():
                    if await self.read():
                        return

    async def read(self) -> bool:
        """Reads some batches; whether nothing is left to read."""
        for _ in range(READS_BEFORE_FORGETTING):
            ended = self.attack.all_published.is_set()
            rows = await self.fetch()
            self.rows += rows
            if ended and not rows:
                return True
            if len(rows) < self.max_rows:
                await asyncio.sleep(0.005)
        return False

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        raise NotImplementedError
        yield

    async def fetch(self) -> list[Row]:
        raise NotImplementedError


@dataclass
class SqlReader(Reader):
    """Plain SQL: headwater.read()."""

    connection: Connection | None = None

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        async with await connect(
            self.attack.url, "headwater_relay", name="attack reader"
        ) as connection:
            self.connection = connection
            yield

    async def fetch(self) -> list[Row]:
        assert self.connection is not None
        cursor = await self.connection.execute(
            READ, {"after": self.cursor, "max_rows": self.max_rows}
        )
        return [Row(*row) for row in await cursor.fetchall()]


@dataclass
class PythonReader(Reader):
    """LogReader.read, of all tenants as the relay, or of one tenant as the application."""

    reader: LogReader | None = None

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        async with pool(self.attack, self.tenant) as database:
            self.reader = LogReader(database, TYPES)
            yield

    async def fetch(self) -> list[Row]:
        assert self.reader is not None
        events = await self.reader.read(self.cursor, max_rows=self.max_rows, tenant=self.tenant)
        return [Row(e.position, e.tenant, e.stream, e.version, e.event.mark) for e in events]


@dataclass
class TailReader(Reader):
    """LogReader.tail, which moves on to the watermark even where it saw nothing."""

    async def run(self) -> None:
        async with pool(self.attack, self.tenant) as database:
            tail = LogReader(database, TYPES).tail(max_rows=self.max_rows, tenant=self.tenant)
            async for e in tail:
                self.rows.append(Row(e.position, e.tenant, e.stream, e.version, e.event.mark))
                if e.event.mark == self.attack.last_mark:
                    return


@asynccontextmanager
async def pool(attack: Attack, tenant: str | None) -> AsyncIterator[Database]:
    role = "headwater_relay" if tenant is None else "headwater_app"
    database = Database(attack.url, role, max_size=2, name="attack reader")
    await database.open()
    try:
        yield database
    finally:
        await database.close()
