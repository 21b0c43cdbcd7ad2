"""What is behind a row: the events that made it, and what it was at other moments."""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
from starlette.responses import Response

from headwater.app import FoldView
from headwater.entrances.http.keys import key_names, read_key
from headwater.entrances.http.routes import Call
from headwater.entrances.http.views import explained, raw_key, tagged, view_of
from headwater.errors import RequestRefused
from headwater.readers.history import Moment
from headwater.views.definition import Change

encode = msgspec.json.Encoder(decimal_format="string").encode


class Explained(msgspec.Struct):
    """The newest changes of a row, oldest first, of ``events`` in all, up to the view's position."""

    view: str
    key: list[str | None]
    position: int
    events: int
    changes: list[Change]


class PastRow(msgspec.Struct):
    """A document as of a moment; null where there was none."""

    row: dict[str, Any] | None


class FieldChange(msgspec.Struct):
    """A field at two moments."""

    before: Any
    after: Any


class Between(msgspec.Struct):
    """A document at two moments, the fields that differ, and the positions of the events between."""

    before: dict[str, Any] | None
    after: dict[str, Any] | None
    fields: dict[str, FieldChange]
    positions: list[int]


async def explain_row(call: Call) -> Response:
    """GET /v1/explain/{name}/{key}."""
    app, view = call.service.app, view_of(call)
    key = read_key(raw_key(call.request), key_names(view))
    await app.database("headwater_relay").open()
    try:
        found = await app.stored(view.name).explain(
            key, tenant=call.caller.whose, limit=call.number("limit")
        )
    except psycopg.Error as error:
        raise explained(error, view) from error
    body = Explained(view.name, list(key), found.position, found.events, list(found.changes))
    return tagged(call.request, encode(body))


async def show_past(call: Call) -> Response:
    """GET /v1/history/{name}/{key}."""
    view = view_of(call)
    if not isinstance(view, FoldView):
        raise RequestRefused(
            f"The view {view.name!r} is a SQL view, which is not folded event by event.",
            hint=f"See GET /v1/explain/{view.name}/KEY for the events behind a row.",
        )
    (key,) = read_key(raw_key(call.request), key_names(view))
    clock, tenant = call.text("clock") or "recorded", call.caller.whose
    as_of = Moment.of(call.text("as_of") or "", clock)
    since = call.text("since")
    if since is None:
        document = await view.history.as_of(key, as_of, tenant=tenant)
        return tagged(call.request, encode(PastRow(_plain(document))))
    change = await view.history.between(key, Moment.of(since, clock), as_of, tenant=tenant)
    body = Between(
        _plain(change.before),
        _plain(change.after),
        {name: FieldChange(*pair) for name, pair in change.fields.items()},
        [event.position for event in change.events],
    )
    return tagged(call.request, encode(body))


def _plain(document: msgspec.Struct | None) -> dict[str, Any] | None:
    if document is None:
        return None
    plain: dict[str, Any] = msgspec.json.decode(encode(document))
    return plain
