"""Every operation of the API, declared once: what it takes, what it answers, what it refuses."""

from __future__ import annotations

from headwater.entrances.http import appending, behind, events, health, overview, tickets, views
from headwater.entrances.http.job_operations import operations_on_jobs
from headwater.entrances.http.limits import Limits
from headwater.entrances.http.lines import CLOUD_EVENT, CLOUD_EVENTS, NDJSON
from headwater.entrances.http.live import presence, sse
from headwater.entrances.http.openapi import schema
from headwater.entrances.http.routes import (
    Answer,
    Flag,
    Number,
    Operation,
    Parameter,
    Schema,
    Text,
    Texts,
)
from headwater.errors import (
    AppendRefused,
    DefinitionError,
    IdempotencyKeyReused,
    InvalidEvent,
    InvalidMoment,
    InvalidStreamName,
    InvalidToken,
    KeyParked,
    LimitExceeded,
    NotCaughtUp,
    NothingHere,
    StaleToken,
    StateUnreadable,
    TooBusy,
    UnknownEventType,
    UnknownView,
    VersionConflict,
)

_JSON, _TEXT = "application/json", "text/plain"
_READS = (InvalidToken, StaleToken, NotCaughtUp)
_TOKEN = r"[0-9a-f]{8}\.[0-9]{1,9}\.[0-9]{1,16}"  # noqa: S105 - a pattern, no password
_TYPE = r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*){1,3}"
_STREAM = r"[a-z][a-z0-9_-]*/[^\x00-\x20\x7f]+"
_PLACE = r"[0-9]{1,19}|[0-9a-f]{8}\.[0-9]{1,9}\.[0-9]{1,16}"
_ANY = r"[^\x00]+"
_MOMENT = r"[0-9]{1,18}|[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:.]{4,15}([Zz]|[-+][0-9:]{2,6})"
_LAST_POSITION = 2**63 - 1


def _json(named: str) -> dict[str, Schema]:
    return {_JSON: schema(named)}


def _lines(named: str) -> dict[str, Schema]:
    return {_JSON: schema(named), NDJSON: schema("StoredEvent")}


def _at_least(limits: Limits) -> tuple[Parameter, ...]:
    return (
        Text("at_least", "Answer no older than this token; also as header Headwater-Token.", _TOKEN, 40),
        Number(
            "timeout_seconds", "How long to wait for the token.", 0, int(limits.wait_seconds), 5,
            fraction=True,
        ),
    )  # fmt: skip


def operations(limits: Limits) -> list[Operation]:
    """All operations under some limits."""
    return [
        _append(limits),
        *_log(limits),
        *_live(),
        *_views(limits),
        *_behind(),
        *_overview(limits),
        *_operate(),
        *operations_on_jobs(limits),
    ]


def _append(limits: Limits) -> Operation:
    return Operation(
        "POST",
        "/v1/events",
        "Append events, all or nothing.",
        appending.append_events,
        {
            201: Answer("At least one event is new.", _json("Receipt"), {"Headwater-Token": "The token to read by."}),
            200: Answer("Every event was appended before.", _json("Receipt"), {"Headwater-Token": "The token to read by."}),
            207: Answer("With each=true: some were refused.", _json("Receipt")),
        },
        "append",
        (
            Flag("each", "Let each event stand or fall by itself."),
            Text("Idempotency-Key", "Answer a repeated request with its first result; for NDJSON.", r"[\x20-\x7e]+", 255, "header"),
        ),
        {
            NDJSON: schema("EventLine"),
            CLOUD_EVENT: schema("CloudEvent"),
            CLOUD_EVENTS: {"type": "array", "items": schema("CloudEvent"), "minItems": 1, "maxItems": limits.batch_events},
        },
        (AppendRefused, VersionConflict, IdempotencyKeyReused, UnknownEventType, InvalidEvent, InvalidStreamName, LimitExceeded),
    )  # fmt: skip


def _log(limits: Limits) -> list[Operation]:
    limit = Number("limit", "The most events.", 1, limits.page_rows, 100)
    next_ = {"Link": "The next page.", "Headwater-Next": "Where the next page begins."}
    return [
        Operation(
            "GET",
            "/v1/events",
            "Read the tenant's events in order.",
            events.list_events,
            {200: Answer("A page.", _lines("EventPage"), next_)},
            "read",
            (
                Number("after", "Start after this position.", 0, _LAST_POSITION, 0),
                limit,
                Texts("type", "Only events of this type.", _TYPE, 100),
                Flag("newest", "The newest events instead, those after the position; still in order."),
                Number("wait_seconds", "Wait so long for an event where there is none.", 0, int(limits.wait_seconds), 0, fraction=True),
                *_at_least(limits),
            ),
            refusals=_READS,
        ),
        Operation(
            "GET",
            "/v1/streams/{stream:path}",
            "Read one stream.",
            events.list_stream,
            {200: Answer("A page; empty where there is no such stream.", _lines("StreamPage"), next_)},
            "read",
            (
                Text("stream", "The stream, such as order/42.", _STREAM, where="path"),
                Number("after_version", "Start after this version.", 0, 2**31 - 1, 0),
                limit,
            ),
        ),
    ]  # fmt: skip


_STREAM_OF_EVENTS = Answer(
    "Server-sent events. A WebSocket under the same path carries the same messages as JSON.",
    {"text/event-stream": {"type": "string"}},
)


def _live() -> list[Operation]:
    common: tuple[Parameter, ...] = (
        Text(
            "after",
            "Start after this token or position; also as header Last-Event-ID. Default: now.",
            _PLACE,
            40,
        ),
        Text("ticket", "A ticket in place of a token.", r"[A-Za-z0-9_-]+", 100),
        Text("member", "Be present under this name.", _ANY, 100),
        Text("room", "Where to be present; default the channel: events, or views/NAME.", _ANY, 100),
        Text("Last-Event-ID", "Start after this token or position.", _PLACE, 40, "header"),
    )
    return [
        Operation(
            "GET",
            "/v1/live/events",
            "Follow the tenant's events.",
            sse.live_events,
            {200: _STREAM_OF_EVENTS},
            "read",
            (
                Texts("type", "Only events of this type.", _TYPE, 100),
                Text("stream", "Only events of this stream.", _STREAM),
                Text("category", "Only events of streams of this category.", r"[a-z][a-z0-9_-]*"),
                Texts("key", "Only events with one of these keys."),
                *common,
            ),
            refusals=(InvalidToken, StaleToken, TooBusy),
            by_ticket=True,
        ),
        Operation(
            "GET",
            "/v1/live/views/{name}",
            "Follow the changed rows of a view.",
            sse.live_view,
            {200: _STREAM_OF_EVENTS},
            "read",
            (
                Text("name", "The view.", max_length=40, where="path"),
                Texts("key", "Only rows of these keys, as they stand in a path.", _ANY, 2000),
                *common,
            ),
            refusals=(InvalidToken, StaleToken, TooBusy, UnknownView),
            by_ticket=True,
        ),
        Operation(
            "GET",
            "/v1/presence/{channel:path}",
            "Who is connected to a channel.",
            presence.show_members,
            {200: Answer("The members.", _json("Members"))},
            "read",
            (Text("channel", "The channel or room.", _ANY, 100, "path"),),
        ),
    ]  # fmt: skip


def _views(limits: Limits) -> list[Operation]:
    name = Text("name", "The view.", max_length=40, where="path")
    tag = {"ETag": "Changes when the body does."}
    same = Answer("The body is the one whose tag was sent.", headers=tag)
    return [
        Operation(
            "GET",
            "/v1/views",
            "List the views.",
            views.list_views,
            {200: Answer("The views.", _json("ViewList"), tag), 304: same},
            "read",
        ),
        Operation(
            "GET",
            "/v1/views/{name}",
            "Show a view and a page of its rows.",
            views.show_view,
            {200: Answer("The view.", _json("ViewPage"), tag), 304: same},
            "read",
            (
                name,
                Text("after", "Start after this key, as it stands in a path.", _ANY, 4000),
                Number("limit", "The most rows.", 1, limits.page_rows, 100),
                *_at_least(limits),
            ),
            refusals=(*_READS, KeyParked, UnknownView),
        ),
        Operation(
            "GET",
            "/v1/views/{name}/{key:path}",
            "Read one row.",
            views.show_row,
            {200: Answer("The row.", {_JSON: {"type": "object"}}, tag), 304: same},
            "read",
            (name, Text("key", "The row's key; its parts with commas between.", max_length=2000, where="path", encoded=True), *_at_least(limits)),
            refusals=(*_READS, KeyParked, UnknownView, NothingHere),
        ),
    ]  # fmt: skip


def _behind() -> list[Operation]:
    name = Text("name", "The view.", max_length=40, where="path")
    key = Text(
        "key",
        "The row's key; its parts with commas between.",
        max_length=2000,
        where="path",
        encoded=True,
    )
    tag = {"ETag": "Changes when the body does."}
    same = Answer("The body is the one whose tag was sent.", headers=tag)
    return [
        Operation(
            "GET",
            "/v1/explain/{name}/{key:path}",
            "Name the events behind a row, and how it changed at each.",
            behind.explain_row,
            {200: Answer("The newest changes.", _json("Explained"), tag), 304: same},
            "read",
            (name, key, Number("limit", "The most changes.", 1, 1_000, 20)),
            refusals=(UnknownView, DefinitionError),
        ),
        Operation(
            "GET",
            "/v1/history/{name}/{key:path}",
            "A fold's document as it was, or how it differs at two moments.",
            behind.show_past,
            {200: Answer("The document, or with since= the difference.", {_JSON: {"oneOf": [schema("PastRow"), schema("Between")]}}, tag), 304: same},
            "read",
            (
                name,
                key,
                Text("as_of", "The moment: a position, or a time with a zone.", _MOMENT, 40, required=True),
                Text("since", "The moment to compare with.", _MOMENT, 40),
                Text("clock", "What times count by: recorded, the default, or occurred.", "recorded|occurred", 10),
            ),
            refusals=(UnknownView, InvalidMoment, NotCaughtUp, StateUnreadable),
        ),
    ]  # fmt: skip


def _overview(limits: Limits) -> list[Operation]:
    return [
        Operation(
            "GET",
            "/v1/caller",
            "Whom the token stands for.",
            overview.show_caller,
            {200: Answer("Its tenant and scopes.", _json("CallerState"))},
            "any",
        ),
        Operation(
            "GET",
            "/v1/parked/{name}",
            "List the tenant's events that a view has parked.",
            overview.list_parked,
            {200: Answer("A page.", _json("ParkedPage"))},
            "read",
            (
                Text("name", "The view.", max_length=40, where="path"),
                Number("after", "Start after this position.", 0, _LAST_POSITION, 0),
                Number("limit", "The most events.", 1, limits.page_rows, 100),
            ),
            refusals=(UnknownView,),
        ),
        Operation(
            "GET",
            "/v1/overview",
            "The log's head and each view's lag, over all tenants.",
            overview.show_overview,
            {200: Answer("The log and the views.", _json("Overview"))},
            "operate",
        ),
        Operation(
            "GET",
            "/v1/definitions/{name}",
            "A view's definition as text.",
            overview.show_definition,
            {200: Answer("The definition.", _json("DefinitionText"))},
            "operate",
            (Text("name", "The view.", max_length=40, where="path"),),
            refusals=(UnknownView,),
        ),
    ]  # fmt: skip


def _operate() -> list[Operation]:
    findings = {"type": "array", "items": schema("Finding")}
    return [
        Operation(
            "POST",
            "/v1/tickets",
            "Make a ticket: it opens one live channel, once and soon.",
            tickets.create_ticket,
            {201: Answer("The ticket.", _json("Ticket"))},
            "read",
        ),
        Operation(
            "GET",
            "/v1/doctor",
            "Examine the installation.",
            health.doctor,
            {200: Answer("The findings.", {_JSON: findings})},
            "operate",
        ),
        Operation(
            "GET",
            "/metrics",
            "Metrics in Prometheus's text format.",
            health.metrics,
            {200: Answer("The metrics.", {_TEXT: {"type": "string"}})},
            "operate",
        ),
        Operation(
            "GET",
            "/readyz",
            "Whether this process can serve.",
            health.readyz,
            {200: Answer("It can.", _json("Readiness")), 503: Answer("It cannot.", _json("Readiness"))},
        ),
        Operation(
            "GET",
            "/healthz",
            "Whether this process is alive.",
            health.healthz,
            {200: Answer("It is.", {_TEXT: {"type": "string"}})},
        ),
    ]  # fmt: skip
