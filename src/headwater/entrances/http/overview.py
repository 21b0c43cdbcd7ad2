"""What an operator looks at first: the log's head, each view's lag, definitions, parked events."""

from __future__ import annotations

import inspect
from datetime import datetime
from typing import Literal

import msgspec
from starlette.responses import Response

from headwater.app import FoldView
from headwater.entrances.http.access import SQL
from headwater.entrances.http.routes import Call
from headwater.receiving.operating import inbox_states

COUNTED = 10_000
"""How many waiting events of a view are counted."""
BLOCK = 2**40
"""How many positions a month has."""


class CallerState(msgspec.Struct):
    """Whom a token stands for. ``tenant`` is null for a token that opens none."""

    app: str
    tenant: str | None
    scopes: list[str]


class LogState(msgspec.Struct):
    """How far the log is: published up to ``position``, positions drawn up to ``drawn``."""

    position: int
    drawn: int
    newest_at: datetime | None
    relays: int


class ViewLag(msgspec.Struct):
    """How far a view is, over all tenants.

    Where more than 10,000 events wait, ``exact`` is false: ``behind`` is told from positions, which rolled
    back appends leave gaps in; or it is 10,001, where the view is in another month than the log.
    """

    name: str
    kind: str
    status: Literal["current", "stale", "missing", "unknown"]
    position: int
    behind: int
    exact: bool
    behind_seconds: float
    parked: int
    driven_by: str | None
    state: str | None
    detail: str | None


class Received(msgspec.Struct):
    """How far an inbox is: ``position`` is one of its source's log, ``received_at`` when it last took something."""

    name: str
    position: int
    received_at: datetime
    parked: int
    driven_by: str | None
    state: str | None
    detail: str | None


class Overview(msgspec.Struct):
    """The log, all views and what is received from other services, at one moment."""

    at: datetime
    log: LogState
    views: list[ViewLag]
    inboxes: list[Received]


class DefinitionText(msgspec.Struct):
    """A view's definition as people read it: a SELECT, or a function."""

    name: str
    kind: str
    language: Literal["sql", "python", "json"]
    text: str
    key: list[str]
    reads: list[str]
    on_failure: str
    fingerprint: str


class ParkedEvent(msgspec.Struct):
    """An event that a view has set aside. ``culprit`` is false where it only followed one of the same key."""

    position: int
    keys: list[str] | None
    reason: str
    culprit: bool
    parked_at: datetime
    stream: str | None
    version: int | None
    type: str | None
    data: msgspec.Raw


class ParkedPage(msgspec.Struct):
    """Parked events in the order of the log. ``next`` is what to pass as ``after``; null at the end."""

    parked: list[ParkedEvent]
    next: int | None


_encode = msgspec.json.Encoder().encode
_NO_STORE = {"Cache-Control": "no-store"}


async def show_caller(call: Call) -> Response:
    """GET /v1/caller."""
    caller = call.caller
    return _answer(CallerState(call.service.app.name, caller.tenant, sorted(caller.scopes)))


async def show_overview(call: Call) -> Response:
    """GET /v1/overview."""
    app = call.service.app
    async with app.database("headwater_operator").connection() as connection:
        cursor = await connection.execute(SQL["http.overview_log"])
        row = await cursor.fetchone()
        assert row is not None
        at, safe, drawn, newest_at, first, relays = row
        parameters = {"upto": safe, "max_rows": COUNTED + 1}
        cursor = await connection.execute(SQL["http.overview_views"], parameters)
        rows = await cursor.fetchall()
    views = [
        ViewLag(
            name,
            kind,
            _status(call, name, fingerprint),
            position,
            _behind(behind, max(position, first - 1), safe),
            behind <= COUNTED,
            waiting,
            parked,
            holder,
            state,
            detail,
        )
        for name, kind, fingerprint, position, behind, waiting, parked, holder, state, detail in rows
    ]
    for name in set(app.readable) - {view.name for view in views}:
        kind = app.stored(name).definition.kind
        views.append(ViewLag(name, kind, "missing", 0, 0, True, 0, 0, None, None, None))
    views.sort(key=lambda view: view.name)
    inboxes = [
        Received(
            one.inbox,
            one.position,
            one.updated_at,
            one.parked,
            one.driven_by,
            one.state,
            one.detail,
        )
        for one in await inbox_states(app.database("headwater_operator"))
    ]
    return _answer(Overview(at, LogState(safe, drawn, newest_at, relays), views, inboxes))


def _behind(counted: int, position: int, safe: int) -> int:
    if counted <= COUNTED or position // BLOCK != safe // BLOCK:
        return counted
    return max(safe - position, counted)


def _status(call: Call, name: str, fingerprint: str) -> Literal["current", "stale", "unknown"]:
    app = call.service.app
    if name not in app.views:
        return "unknown"
    return "current" if app.stored(name).definition.fingerprint == fingerprint else "stale"


async def show_definition(call: Call) -> Response:
    """GET /v1/definitions/{name}."""
    app, name = call.service.app, call.text("name") or ""
    view, definition = app.view(name), app.stored(name).definition
    language: Literal["sql", "python", "json"]
    if isinstance(view, FoldView):
        key, reads, on_failure = [view.fold.key], view.fold.type_names, view.fold.on_failure
        try:
            language, text = "python", inspect.getsource(view.fold.evolve)
        except (OSError, TypeError):
            language, text = "json", msgspec.json.format(definition.encoded, indent=2)
    else:
        language, text = "sql", view.view.text
        key, reads = list(view.view.query.key), list(view.view.query.reads)
        on_failure = view.view.on_failure
    text = inspect.cleandoc(text)
    return _answer(
        DefinitionText(
            name, definition.kind, language, text, key, reads, on_failure, definition.fingerprint
        )
    )


async def list_parked(call: Call) -> Response:
    """GET /v1/parked/{name}."""
    tenant, limit = call.caller.whose, call.number("limit")
    name = call.service.app.view(call.text("name") or "").name
    parameters = {"view": name, "tenant": tenant, "after": call.number("after"), "max_rows": limit}
    async with call.service.app.database().transaction(tenant) as connection:
        rows = await (await connection.execute(SQL["http.parked"], parameters)).fetchall()
    parked = [
        ParkedEvent(
            position, keys, reason, culprit, at, stream, version, event_type,
            msgspec.Raw(b"{}" if data is None else data.encode()),
        )
        for position, keys, reason, culprit, at, stream, version, event_type, data in rows
    ]  # fmt: skip
    next_ = parked[-1].position if len(parked) == limit else None
    return _answer(ParkedPage(parked, next_))


def _answer(body: msgspec.Struct) -> Response:
    return Response(_encode(body), 200, _NO_STORE, "application/json")
