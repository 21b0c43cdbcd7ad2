"""The events channel: one tail of the log per process, handed on by tenant."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import psycopg

from headwater.app import App
from headwater.entrances.http.events import read_events
from headwater.entrances.http.live.channel import Channel, Page
from headwater.entrances.http.live.messages import of_event
from headwater.entrances.http.watermark import Watermark
from headwater.errors import HeadwaterError
from headwater.log.database import SQL, Database
from headwater.log.reading import safe_position
from headwater.log.tasks import ended

_log = logging.getLogger("headwater.http.live")
_PAGE = 1_000
_CATCHING_UP = 4
_RETRY_SECONDS = 0.2


class EventChannel(Channel):
    """One tenant's events. What came before is read as that tenant, under row-level security."""

    def __init__(self, tenant: str, database: Database, turns: asyncio.Semaphore) -> None:
        super().__init__()
        self._tenant = tenant
        self._database = database
        self._turns = turns

    async def between(self, after: int, upto: int) -> Page:
        """A page of the tenant's events."""
        async with self._turns:
            rows = await read_events(self._database, self._tenant, after, upto, (), _PAGE)
        identity = self._database.identity
        log_epoch = f"{identity.log_id}.{identity.epoch}"
        reached = rows[-1][0] if len(rows) == _PAGE else upto
        return [of_event(row, log_epoch) for row in rows], reached


class Tail:
    """Follows the whole log while someone follows an events channel."""

    def __init__(self, app: App, watermark: Watermark) -> None:
        self._app = app
        self._watermark = watermark
        self._turns = asyncio.Semaphore(_CATCHING_UP)
        self._channels: dict[str, EventChannel] = {}
        self._task: asyncio.Task[None] | None = None
        self._position = -1
        self._log_epoch = ""
        self._started = asyncio.Lock()

    async def channel(self, tenant: str) -> EventChannel:
        """The channel of a tenant, level with the tail."""
        async with self._started:
            if self._task is None or self._task.done():
                async with self._app.database().connection() as connection:
                    self._position = await safe_position(connection)
                for channel in self._channels.values():
                    channel.position = self._position  # nobody followed meanwhile
                self._task = asyncio.create_task(self._run(), name="live tail")
        if tenant not in self._channels:
            channel = EventChannel(tenant, self._app.database(), self._turns)
            channel.position = self._position
            self._channels[tenant] = channel
        return self._channels[tenant]

    @property
    def followers(self) -> int:
        """How many clients follow now."""
        return sum(len(channel.followers) for channel in self._channels.values())

    def drop_all(self, reason: str) -> None:
        """Ends all clients, with a reason."""
        for channel in self._channels.values():
            channel.drop_all(reason)

    async def close(self) -> None:
        """Ends the tail. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            await ended([task])

    async def _run(self) -> None:
        database = self._app.database("headwater_relay")
        while True:
            try:
                await self._identify(database)
                while True:
                    await self._step(database)
            except (HeadwaterError, psycopg.Error) as error:
                _log.warning("the tail lost the log: %s", str(error).partition("\n")[0])
                await asyncio.sleep(_RETRY_SECONDS)

    async def _identify(self, database: Database) -> None:
        """Learns which log this is; after a restore positions mean something else."""
        await database.open()
        identity = await database.identify()
        known, self._log_epoch = self._log_epoch, f"{identity.log_id}.{identity.epoch}"
        if known not in {"", self._log_epoch}:
            await self._app.database().identify()
            self.drop_all("the log was restored")
            self._channels.clear()
            async with database.connection() as connection:
                self._position = await safe_position(connection)

    async def _step(self, database: Database) -> None:
        upto = await self._watermark.beyond(self._position, timeout_seconds=30)
        if upto <= self._position:
            return
        rows = await self._read(database, upto)
        reached = rows[-1][0] if len(rows) == _PAGE else upto
        by_tenant: dict[str, list[Sequence[Any]]] = {}
        for row in rows:
            by_tenant.setdefault(row[1], []).append(row)
        for tenant, channel in self._channels.items():
            mine = by_tenant.get(tenant, ()) if channel.followers else ()
            channel.publish([of_event(row, self._log_epoch) for row in mine], reached)
        self._position = reached
        if len(rows) == _PAGE:
            await asyncio.sleep(0)  # clients take what there is before more comes

    async def _read(self, database: Database, upto: int) -> list[tuple[Any, ...]]:
        wanted = {
            "after": self._position,
            "upto": upto,
            "types": None,
            "tenant": None,
            "max_rows": _PAGE,
        }
        async with database.connection() as connection:
            cursor = await connection.execute(SQL["log.read"], wanted, binary=True, prepare=True)
            return await cursor.fetchall()
