"""Readers that tail the whole round: of all tenants, of each tenant, and a broken one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg

from headwater import App, Event
from headwater.errors import DatabaseUnavailable
from headwater.events.event import Recorded
from headwater.log import Database, LogReader
from headwater.log.database import connect
from headwater.log.tasks import ended
from simulation.doubles import READER
from simulation.shop import SQL, TENANTS
from simulation.verdict import Row, Sight


@dataclass
class Readers:
    """All of them. ``sights`` is what they saw."""

    app: App
    broken: str
    sights: list[Sight] = field(default_factory=list)
    _seen: dict[str, list[Row]] = field(default_factory=dict)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self) -> None:
        """Begins before the first event."""
        relay = self.app.database("headwater_relay")
        await relay.open()
        watched = _unwatched if READER in self.broken.split(",") else _watched
        self._begin("a reader of all tenants", watched(self.app, relay), None)
        for tenant in TENANTS:
            self._begin(f"a reader of {tenant}", _of_tenant(self.app, tenant), tenant)

    def _begin(self, name: str, rows: AsyncIterator[Row], tenant: str | None) -> None:
        seen: list[Row] = []
        self._seen[name] = seen
        self.sights.append(Sight(name, seen, tenant))

        async def read() -> None:
            async for row in rows:
                seen.append(row)  # noqa: PERF401 - what was seen counts at once

        self._tasks.append(asyncio.create_task(read()))

    async def reached(self, position: int) -> None:
        """Returns once each has seen what it will see up to a position, or its log moves no more."""
        tenants = {sight.tenant for sight in self.sights}
        loop = asyncio.get_running_loop()
        until = loop.time() + 10
        while loop.time() < until and len(tenants) > 0:
            last = max((rows[-1].position for rows in self._seen.values() if rows), default=0)
            if last >= position:
                return
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Ends them. Raises what one of them ended with."""
        failed = [t.exception() for t in self._tasks if t.done() and not t.cancelled()]
        await ended(self._tasks)
        for error in failed:
            if error is not None:
                raise error


async def _watched(app: App, database: Database) -> AsyncIterator[Row]:
    async for e in LogReader(database, app.events).tail():
        yield _row(e)


async def _of_tenant(app: App, tenant: str) -> AsyncIterator[Row]:
    async for e in app.log.tail(tenant=tenant):
        yield _row(e)


def _row(e: Recorded[Event]) -> Row:
    return Row(e.position, e.tenant, e.stream, e.version, getattr(e.event, "mark", str(e.id)))


async def _unwatched(_: App, database: Database) -> AsyncIterator[Row]:
    """The broken one: what comes after the last position that it saw, whoever is still to commit before it."""
    last = 0
    while True:
        with suppress(psycopg.Error, DatabaseUnavailable):
            async with await connect(database.url, "headwater_relay") as connection:
                while True:
                    cursor = await connection.execute(SQL["simulation.unwatched"], {"after": last})
                    for row in await cursor.fetchall():
                        last = row[0]
                        yield Row(*row)
                    await asyncio.sleep(0.002)
        await asyncio.sleep(0.1)
