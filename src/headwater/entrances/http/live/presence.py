"""Who is connected to a channel, over all processes."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime

import msgspec
import psycopg
from starlette.responses import Response

from headwater.entrances.http.access import SQL
from headwater.entrances.http.limits import Limits
from headwater.entrances.http.routes import Call
from headwater.errors import HeadwaterError
from headwater.log.database import Database
from headwater.log.tasks import ended

_log = logging.getLogger("headwater.http.live")
_LISTED = 1_000


class Member(msgspec.Struct):
    """One connection of a member."""

    member: str
    connection: str
    since: datetime


class Members(msgspec.Struct):
    """Who is connected to a channel, the longest first; at most 1,000 connections."""

    channel: str
    members: list[Member]


class Presence:
    """The members that are connected to this process, made known to all.

    One row per process is renewed; its members are present as long as it is. After a crash of the
    database, which empties the tables, the next renewal puts them back.
    """

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits
        self._holder = secrets.token_hex(8)
        self._here: dict[str, dict[str, tuple[str, str]]] = {}
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def of(self, tenant: str, channel: str, member: str | None) -> AsyncIterator[None]:
        """Makes a member present until the end of the block; nobody, where none is named."""
        if member is None:
            yield
            return
        connection = secrets.token_hex(8)
        self._here.setdefault(tenant, {})[connection] = (channel, member)
        try:
            if self._task is None or self._task.done():
                await self._renew()
                self._task = asyncio.create_task(self._run(), name="presence")
            else:
                await self._enter(tenant, [connection])
            yield
        finally:
            self._here[tenant].pop(connection, None)
            with suppress(HeadwaterError, psycopg.Error):
                await asyncio.shield(self._leave(tenant, channel, connection))

    async def close(self) -> None:
        """Lets all members go. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            await ended([task])
            with suppress(HeadwaterError, psycopg.Error):
                async with self._database.connection() as connection:
                    await connection.execute(SQL["http.end_presence"], {"holder": self._holder})

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._limits.presence_seconds / 3)
            try:
                await self._renew()
            except (HeadwaterError, psycopg.Error) as error:
                _log.warning("presence was not renewed: %s", str(error).partition("\n")[0])

    async def _renew(self) -> None:
        async with self._database.connection() as connection:
            parameters = {"holder": self._holder, "seconds": self._limits.presence_seconds}
            await connection.execute(SQL["http.renew_presence"], parameters)
        for tenant, here in tuple(self._here.items()):
            if here:
                await self._enter(tenant, list(here))
            else:
                self._here.pop(tenant, None)

    async def _enter(self, tenant: str, connections: list[str]) -> None:
        here = self._here.get(tenant, {})
        members = {c: here[c] for c in connections if c in here}
        async with self._database.transaction(tenant) as connection:
            await connection.execute(
                SQL["http.enter"],
                {
                    "tenant": tenant,
                    "connections": list(members),
                    "channels": [channel for channel, _ in members.values()],
                    "members": [member for _, member in members.values()],
                    "holder": self._holder,
                },
            )

    async def _leave(self, tenant: str, channel: str, connection: str) -> None:
        async with self._database.transaction(tenant) as session:
            parameters = {"tenant": tenant, "channel": channel, "connection": connection}
            await session.execute(SQL["http.leave"], parameters)


async def show_members(call: Call) -> Response:
    """GET /v1/presence/{channel}."""
    channel = call.text("channel") or ""
    async with call.service.app.database().transaction(call.caller.whose) as connection:
        parameters = {"channel": channel, "max_rows": _LISTED}
        cursor = await connection.execute(SQL["http.present"], parameters)
        members = [Member(row[1], row[0], row[2]) for row in await cursor.fetchall()]
    body = msgspec.json.encode(Members(channel, members))
    return Response(body, 200, {"Cache-Control": "no-store"}, "application/json")
