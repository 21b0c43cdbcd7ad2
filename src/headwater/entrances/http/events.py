"""Reading the log: pages in order, long polling, one stream."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

import msgspec
from starlette.responses import Response

from headwater.entrances.http.lines import NDJSON
from headwater.entrances.http.routes import Call
from headwater.errors import StaleToken
from headwater.log.database import SQL, Connection, Database
from headwater.log.reading import safe_position
from headwater.readers.received import Wait


class StoredEvent(msgspec.Struct):
    """An event as the log holds it."""

    position: int
    stream: str
    version: int
    type: str
    schema_version: int
    id: UUID
    recorded_at: datetime
    occurred_at: datetime | None
    data: msgspec.Raw
    metadata: msgspec.Raw
    keys: list[str]


class EventPage(msgspec.Struct):
    """Events in order. ``next`` is what to pass as ``after`` to go on from here."""

    events: list[StoredEvent]
    next: int


class StreamPage(msgspec.Struct):
    """Events of one stream, in order. ``next`` is what to pass as ``after_version`` to go on."""

    stream: str
    events: list[StoredEvent]
    next: int


encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines


def stored(row: Sequence[Any]) -> StoredEvent:
    """A row of the log, its data as the database wrote it."""
    return StoredEvent(
        row[0], row[2], row[3], row[4], row[5], row[6], row[7], row[8],
        msgspec.Raw(row[9].encode()), msgspec.Raw(row[10].encode()), row[11] or [],
    )  # fmt: skip


async def read_events(
    database: Database, tenant: str, after: int, upto: int, types: Sequence[str], max_rows: int
) -> list[tuple[Any, ...]]:
    """Rows of one tenant in (after, upto]; ``upto`` is a watermark read in an earlier statement."""
    if upto <= after:
        return []
    async with database.transaction(tenant) as connection:
        parameters = {
            "after": after,
            "upto": upto,
            "types": list(types) or None,
            "tenant": tenant,
            "max_rows": max_rows,
        }
        cursor = await connection.execute(SQL["log.read"], parameters, binary=True, prepare=True)
        rows: list[tuple[Any, ...]] = await cursor.fetchall()
        return rows


async def position_of(database: Database, token: str) -> int:
    """The position of a token. Raises TokenError."""
    try:
        return database.identity.position_of(token)
    except StaleToken:
        return (await database.identify()).position_of(token)


def at_least(call: Call) -> str | None:
    """The token that a read must not be older than: from the query, or from the header."""
    return call.text("at_least") or call.request.headers.get("headwater-token")


def _page(
    call: Call, events: list[StoredEvent], page: msgspec.Struct, link: str, next_: int
) -> Response:
    headers = {"Cache-Control": "no-store", "Link": link, "Headwater-Next": str(next_)}
    if NDJSON in call.request.headers.get("accept", ""):
        return Response(_encode_lines(events), 200, headers, NDJSON)
    return Response(encode(page), 200, headers, "application/json")


async def list_events(call: Call) -> Response:
    """GET /v1/events."""
    tenant, types = call.caller.whose, call.texts("type")
    database, limit, after = call.service.app.database(), call.number("limit"), call.number("after")
    if (token := at_least(call)) is not None:
        wait = Wait(call.seconds("timeout_seconds"))
        position = await call.service.app.reader.position_of(token, tenant=tenant, wait=wait)
        await call.service.watermark.reached(position, timeout_seconds=wait.left_seconds)
    async with database.connection() as connection:
        upto = await safe_position(connection)
        if call.flag("newest"):
            after = await _before_newest(connection, tenant, types, after, upto, limit)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + call.seconds("wait_seconds")
    scanned = after
    while not (rows := await read_events(database, tenant, scanned, upto, types, limit)):
        scanned = max(scanned, upto)
        left = deadline - loop.time()
        if left <= 0 or await call.request.is_disconnected():
            break
        upto = await call.service.watermark.beyond(scanned, timeout_seconds=left)
    events = [stored(row) for row in rows]
    next_ = events[-1].position if len(events) == limit else max(upto, scanned)
    query = urlencode({"after": next_, "limit": limit, "type": list(types)}, doseq=True)
    link = f'</v1/events?{query}>; rel="next"'
    return _page(call, events, EventPage(events, next_), link, next_)


async def _before_newest(
    connection: Connection, tenant: str, types: Sequence[str], after: int, upto: int, limit: int
) -> int:
    """The position after which the tenant's newest events are a page."""
    parameters = {"upto": upto, "types": list(types) or None, "tenant": tenant, "max_rows": limit}
    async with connection.transaction():
        await connection.execute(SQL["log.set_tenant"], {"tenant": tenant})
        rows = await (await connection.execute(SQL["log.newest"], parameters)).fetchall()
    return max(after, rows[-1][0] - 1) if rows else after


async def list_stream(call: Call) -> Response:
    """GET /v1/streams/{stream}. A stream needs no watermark: its versions are dense."""
    tenant = call.caller.whose
    name = call.text("stream") or ""
    after, limit = call.number("after_version"), call.number("limit")
    async with call.service.app.database().transaction(tenant) as connection:
        parameters = {"tenant": tenant, "stream": name, "after_version": after, "types": None, "max_rows": limit}  # fmt: skip
        cursor = await connection.execute(SQL["log.stream"], parameters, binary=True, prepare=True)
        events = [stored(row) for row in await cursor.fetchall()]
    next_ = events[-1].version if events else after
    query = urlencode({"after_version": next_, "limit": limit})
    link = f'</v1/streams/{quote(name)}?{query}>; rel="next"'
    return _page(call, events, StreamPage(name, events, next_), link, next_)
