"""Appending by HTTP: a request is one transaction unless its caller asks for each event on its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import msgspec
import psycopg
from starlette.responses import Response

from headwater.entrances.http import bodies
from headwater.entrances.http.access import SQL
from headwater.entrances.http.lines import CLOUD_EVENT, CLOUD_EVENTS, NDJSON, Incoming, decode
from headwater.entrances.http.problems import Problem, problem_of
from headwater.entrances.http.routes import Call
from headwater.errors import (
    AppendRefused,
    DatabaseUnavailable,
    HeadwaterError,
    InvalidEvent,
    MediaTypeRefused,
    RequestRefused,
)
from headwater.log import arrays
from headwater.log.carrying import carried
from headwater.log.database import Connection, Database
from headwater.log.failures import caused_by_data, refusal, translate, translated
from headwater.log.writing import Group, Written, append_groups

_AT_ONCE = 500
MEDIA = (CLOUD_EVENT, CLOUD_EVENTS, NDJSON)


class AppendedEvent(msgspec.Struct, omit_defaults=True):
    """Where one event stands, or why it was refused."""

    position: int | None = None
    version: int | None = None
    duplicate: bool = False
    problem: Problem | None = None


class Receipt(msgspec.Struct):
    """What an append answers: the token to read by, and what became of each event, in order."""

    token: str | None
    events: list[AppendedEvent]


_encode = msgspec.json.Encoder().encode


async def append_events(call: Call) -> Response:
    """POST /v1/events."""
    tenant, limits = call.caller.whose, call.service.limits
    media = bodies.media_type(call.request)
    if media not in MEDIA:
        raise MediaTypeRefused(
            f"The content type {media[:100]!r} is not taken.", hint=f"Send {', '.join(MEDIA)}."
        )
    key = _idempotency_key(call, media)
    incoming = decode(media, await bodies.read(call.request, limits), tenant, limits)
    incoming.group.idempotency_key = key
    _carry(incoming.group)
    await call.service.app.seal_group(incoming.group)
    database = call.service.app.database()
    if call.flag("each"):
        if key is not None:
            raise RequestRefused(
                "Idempotency-Key is of the whole request, and with each=true there is no whole.",
                hint="Send CloudEvents: each has its own identity.",
            )
        return _receipt(await _each(database, incoming))
    try:
        written = await _together(call, database, incoming)
    except AppendRefused as error:
        if len(incoming) > 1:
            await _point_at(database, incoming, error)
        raise
    return _receipt(written)


def _carry(group: Group) -> None:
    """Adds what the request carries, such as its trace, to the metadata that was sent."""
    around = carried({})
    if around:
        group.metadata = [
            msgspec.json.encode({**around, **msgspec.json.decode(sent or b"{}")})
            for sent in group.metadata
        ]


def _idempotency_key(call: Call, media: str) -> str | None:
    key = call.request.headers.get("idempotency-key")
    if key is None:
        return None
    if media != NDJSON:
        raise RequestRefused(
            "CloudEvents are told apart by source and id, not by an Idempotency-Key.",
            hint="Leave the header out.",
        )
    if not 1 <= len(key) <= 255 or not key.isascii() or not key.isprintable():
        raise RequestRefused("The Idempotency-Key is not 1 to 255 printable ASCII characters.")
    return key


Outcome = Written | HeadwaterError


async def _together(call: Call, database: Database, incoming: Incoming) -> list[Outcome]:
    """All or nothing. Without keys of their own, in a commit that callers share."""
    if len(incoming.once) > 1:
        async with database.connection() as connection:
            return list(await _append_once(connection, incoming))
    if incoming.once:
        incoming.group.idempotency_key = incoming.once[0]
    return list(_singly(await call.service.app.commits.append(incoming.group)))


def _singly(written: Written) -> list[Written]:
    token, places = written.token, zip(written.positions, written.versions, strict=True)
    return [Written(token, (p,), (v,), written.duplicate) for p, v in places]


async def _append_once(connection: Connection, incoming: Incoming) -> list[Written]:
    group = incoming.group
    parameters = {
        "tenant": group.tenant,
        "once": arrays.text_array(incoming.once),
        "streams": arrays.text_array(group.streams),
        "types": arrays.text_array(group.types),
        "data": arrays.jsonb_array(group.data),
        "expected_versions": arrays.int_array(group.expected_versions),
        "metadata": arrays.jsonb_array(group.metadata),
        "ids": arrays.uuid_array(group.ids),
        "occurred_at": arrays.instant_array(group.occurred_at),
        "schema_versions": arrays.int_array(group.schema_versions),
    }
    try:
        with translated():
            cursor = await connection.execute(SQL["http.append_once"], parameters, binary=True)
            row = await cursor.fetchone()
    except psycopg.DataError as error:
        raise _unstorable(error) from error
    assert row is not None
    positions, versions, duplicates, token = row
    places = zip(positions, versions, duplicates, strict=True)
    return [Written(token, (p,), (v,), d) for p, v, d in places]


def _unstorable(error: psycopg.Error) -> InvalidEvent:
    return InvalidEvent(
        f"Postgres cannot store it: {error.diag.message_primary}.", hint="Nothing was appended."
    )


# Each on its own ---------------------------------------------------------------------------------


async def _each(database: Database, incoming: Incoming) -> list[Outcome]:
    """Each event stands or falls by itself; those of one stream stay in order."""
    groups = _groups(incoming)
    outcomes: list[Outcome] = []
    for start in range(0, len(groups), _AT_ONCE):
        async with database.connection() as connection:
            outcomes += await _independent(connection, groups[start : start + _AT_ONCE])
    return outcomes


def _groups(incoming: Incoming) -> list[Group]:
    groups = incoming.group.chunks(1)
    for group, once in zip(groups, incoming.once, strict=False):
        group.idempotency_key = once
    return groups


async def _independent(connection: Connection, groups: Sequence[Group]) -> list[Outcome]:
    try:
        appended = await append_groups(connection, groups)
    except psycopg.Error as error:
        translation = translate(error)
        if isinstance(translation, DatabaseUnavailable) or not caused_by_data(error):
            raise
        if len(groups) == 1:
            return [_unstorable(error)]
        half = len(groups) // 2  # what Postgres cannot read fails the whole statement: find it
        first = await _independent(connection, groups[:half])
        return first + await _independent(connection, groups[half:])
    refused = {outcome["g"]: outcome for outcome in appended.outcomes}
    log_epoch = appended.token.rpartition(".")[0]
    places = zip(appended.positions, appended.versions, strict=True)
    outcomes: list[Outcome] = []
    for number in range(len(groups)):
        told = refused.get(number)
        if told is not None and told.get("refusal") is not None:
            outcomes.append(refusal(told))
            continue
        position, version = (
            next(places) if told is None else (told["positions"][0], told["versions"][0])
        )
        token = type(appended.token)(f"{log_epoch}.{position}")
        outcomes.append(Written(token, (position,), (version,), told is not None))
    return outcomes


async def _point_at(database: Database, incoming: Incoming, error: AppendRefused) -> None:
    """Finds the first event that is refused by itself, for the answer; nothing stays behind."""
    with suppress(psycopg.Error, HeadwaterError):
        async with (
            database.connection() as connection,
            connection.transaction(force_rollback=True),
        ):
            appended = await append_groups(connection, incoming.group.chunks(1))
            refused = [o["g"] for o in appended.outcomes if o.get("refusal") is not None]
            error.event = min(refused, default=None)


def _receipt(outcomes: Sequence[Outcome]) -> Response:
    events = [_told(outcome) for outcome in outcomes]
    written = [outcome for outcome in outcomes if isinstance(outcome, Written)]
    newest = max(written, key=lambda w: w.position, default=None)
    token = None if newest is None else str(newest.token)
    if any(event.problem is not None for event in events):
        status = 207
    else:
        status = 200 if all(event.duplicate for event in events) else 201
    headers = {"Cache-Control": "no-store"} | ({} if token is None else {"Headwater-Token": token})
    return Response(_encode(Receipt(token, events)), status, headers, "application/json")


def _told(outcome: Outcome) -> AppendedEvent:
    if isinstance(outcome, Written):
        return AppendedEvent(outcome.position, outcome.version, outcome.duplicate)
    return AppendedEvent(problem=problem_of(outcome))
