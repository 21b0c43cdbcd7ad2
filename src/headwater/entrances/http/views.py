"""Reading views: which there are, a page of rows, one row."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Literal
from urllib.parse import quote, urlencode

import msgspec
import psycopg
from starlette.requests import Request
from starlette.responses import Response

from headwater.app import FoldView
from headwater.entrances.http.access import SQL
from headwater.entrances.http.events import at_least
from headwater.entrances.http.keys import (
    Handle,
    Key,
    key_names,
    key_parts,
    page_query,
    read_key,
    written_key,
)
from headwater.entrances.http.routes import Call
from headwater.errors import NothingHere, RequestRefused, UnknownView
from headwater.log.failures import caused_by_data


class ViewState(msgspec.Struct):
    """A view: what it is, and how far it is. ``parked`` counts the caller's own events."""

    name: str
    kind: Literal["fold", "sql", "feed", "publication", "sagas"]
    key: list[str]
    status: Literal["current", "stale", "missing"]
    position: int
    behind_positions: int
    driven: bool
    parked: int


class ViewList(msgspec.Struct):
    """The app's views."""

    views: list[ViewState]


class Row(msgspec.Struct):
    """One row, and its key as it stands in a path."""

    key: str
    row: msgspec.Raw


class ViewPage(msgspec.Struct):
    """A view and some of its rows. ``next`` is what to pass as ``after``; null at the end."""

    view: ViewState
    rows: list[Row]
    next: str | None


encode = msgspec.json.Encoder(decimal_format="string").encode


# Operations --------------------------------------------------------------------------------------


async def list_views(call: Call) -> Response:
    """GET /v1/views."""
    states = await _states(call, call.service.app.readable)
    return tagged(call.request, encode(ViewList(list(states.values()))))


async def show_view(call: Call) -> Response:
    """GET /v1/views/{name}."""
    view = view_of(call)
    names, limit, after = key_names(view), call.number("limit"), call.text("after")
    rows = await _rows(call, view, None if after is None else read_key(after, names), limit)
    state = (await _states(call, [view.name]))[view.name]
    next_ = rows[-1].key if len(rows) == limit and names else None
    response = tagged(call.request, encode(ViewPage(state, rows, next_)))
    if next_ is not None:
        query = urlencode({"after": next_, "limit": limit})
        response.headers["Link"] = f'</v1/views/{view.name}?{query}>; rel="next"'
    return response


async def show_row(call: Call) -> Response:
    """GET /v1/views/{name}/{key}."""
    view = view_of(call)
    key = read_key(raw_key(call.request), key_names(view))
    token, timeout = at_least(call), call.seconds("timeout_seconds")
    try:
        if isinstance(view, FoldView):
            row = (
                None
                if key[0] is None
                else await view.get(
                    key[0], tenant=call.caller.whose, at_least=token, timeout_seconds=timeout
                )
            )
        else:
            row = await view.get(
                *key, tenant=call.caller.whose, at_least=token, timeout_seconds=timeout
            )
    except psycopg.Error as error:
        raise explained(error, view) from error
    if row is None:
        raise NothingHere(
            f"The view {view.name!r} has no row under this key.",
            hint="If it was just written, pass the write's token as at_least.",
        )
    return tagged(call.request, encode(row))


def view_of(call: Call) -> Handle:
    """The view that the path names. Raises UnknownView."""
    return call.service.app.view(call.request.path_params["name"])


def raw_key(request: Request) -> str:
    """The key as it was sent: a comma between parts is told from one that is percent-encoded."""
    raw = request.scope.get("raw_path") or quote(request.url.path).encode()
    match = re.search(rb"/v1/(?:views|explain|history)/[^/]+/([^?]*)", raw)
    return "" if match is None else match[1].decode("latin-1")


def explained(error: psycopg.Error, view: Handle) -> Exception:
    """What Postgres says of a read, as the caller is told."""
    if isinstance(error, psycopg.errors.UndefinedTable):
        return UnknownView(f"The view {view.name!r} is not deployed.", hint="Run headwater up.")
    if caused_by_data(error):
        return RequestRefused(
            f"The key does not fit the view's key ({', '.join(key_names(view))}).",
            hint=error.diag.message_primary,
        )
    return error


def tagged(request: Request, body: bytes) -> Response:
    """A body under a tag that changes when it does; 304 where the caller has it already."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Authorization"}
    wanted = request.headers.get("if-none-match", "")
    known = {part.strip().removeprefix("W/") for part in wanted.split(",")}
    if tag in known or "*" in known:
        return Response(None, 304, headers)
    return Response(body, 200, headers, "application/json")


# What is read ------------------------------------------------------------------------------------


async def _states(call: Call, names: Sequence[str]) -> dict[str, ViewState]:
    app = call.service.app
    async with app.database().transaction(call.caller.whose) as connection:
        cursor = await connection.execute(SQL["http.views"], {"views": list(names)})
        found = {row[0]: row for row in await cursor.fetchall()}
    states = {}
    for name in names:
        view, definition = app.view(name), app.stored(name).definition
        key = list(key_names(view))
        if (row := found.get(name)) is None:
            states[name] = ViewState(name, definition.kind, key, "missing", 0, 0, False, 0)
            continue
        status: Literal["current", "stale"] = (
            "current" if row[2] == definition.fingerprint else "stale"
        )
        states[name] = ViewState(name, definition.kind, key, status, row[3], row[4], row[5], row[6])
    return states


async def _rows(call: Call, view: Handle, after: Key | None, limit: int) -> list[Row]:
    tenant, token = call.caller.whose, at_least(call)
    timeout = call.seconds("timeout_seconds")
    try:
        if isinstance(view, FoldView):
            start = "" if after is None else after[0] or ""
            documents = await view.list(
                tenant=tenant, at_least=token, timeout_seconds=timeout, after=start, limit=limit
            )
            return [
                Row(written_key([key]), msgspec.Raw(encode(document)))
                for key, document in documents
            ]
        if view.store is not None:
            raise RequestRefused(
                f"The view {view.name!r} is in the store {view.store.name!r}, which HTTP does not page through.",
                hint="Read rows by their keys, or list it by the application.",
            )
        statement, parameters = page_query(view, after)
        _, rows = await call.service.app.reader.rows(
            statement,
            parameters | {"tenant": tenant, "max_rows": limit},
            views=[view.name],
            tenant=tenant,
            at_least=token,
            timeout_seconds=timeout,
        )
    except psycopg.Error as error:
        raise explained(error, view) from error
    stored = call.service.app.stored(view.name)
    return [
        Row(written_key(key_parts(row[0])), msgspec.Raw(encode(stored.row_of(row[1:]))))
        for row in rows
    ]
