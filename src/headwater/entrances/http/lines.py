"""Bodies as groups of events: newline-delimited JSON in Headwater's own form, and CloudEvents."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, NoReturn
from uuid import UUID

import msgspec

from headwater.entrances.http.bodies import check_json
from headwater.entrances.http.limits import Limits
from headwater.errors import HeadwaterError, LimitExceeded, RequestRefused
from headwater.log.writing import Group

NDJSON = "application/x-ndjson"
CLOUD_EVENT = "application/cloudevents+json"
CLOUD_EVENTS = "application/cloudevents-batch+json"

Version = Annotated[int, msgspec.Meta(ge=0, le=2_147_483_646)]
SchemaVersion = Annotated[int, msgspec.Meta(ge=1, le=2_147_483_647)]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]
Attribute = str | int | bool | None


class EventLine(msgspec.Struct, forbid_unknown_fields=True):
    """An event in Headwater's own form: one line of a body of newline-delimited JSON.

    The fields are those of ``headwater.append_many``.
    """

    stream: Annotated[str, msgspec.Meta(max_length=255)]
    type: Annotated[str, msgspec.Meta(max_length=100)]
    data: msgspec.Raw
    expected_version: Version | None = None
    metadata: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    id: UUID | None = None
    keys: Annotated[list[str], msgspec.Meta(max_length=32)] | None = None
    occurred_at: Instant | None = None
    schema_version: SchemaVersion = 1


class CloudEvent(msgspec.Struct):
    """A CloudEvent 1.0 as JSON. Other attributes, the extensions, become metadata."""

    specversion: str
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    type: Annotated[str, msgspec.Meta(max_length=100)]
    subject: Annotated[str, msgspec.Meta(max_length=255)]
    data: msgspec.Raw
    time: Instant | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    expectedversion: Version | None = None
    schemaversion: SchemaVersion = 1


@dataclass(slots=True)
class Incoming:
    """Events as they came: one list per field, and each event's own idempotency key, where it has one."""

    group: Group
    once: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.group)


_lines = msgspec.json.Decoder(EventLine)
_cloud_event = msgspec.json.Decoder(CloudEvent)
_cloud_events = msgspec.json.Decoder(list[msgspec.Raw])
_attributes = msgspec.json.Decoder(dict[str, msgspec.Raw])
_scalar: msgspec.json.Decoder[Attribute] = msgspec.json.Decoder(Attribute)
_UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeError)


def _unreadable(number: int, message: str, hint: str | None = None) -> HeadwaterError:
    """An event of the body cannot be read; it is counted from 0."""
    return _of_event(RequestRefused(message, hint=hint), number)


def decode(media: str, body: bytes, tenant: str, limits: Limits) -> Incoming:
    """The events of a body. Raises RequestRefused, InvalidEvent or LimitExceeded; nothing is half read."""
    incoming = (
        _own_lines(body, tenant, limits)
        if media == NDJSON
        else _clouds(_members(body, media, limits), tenant, limits)
    )
    if not len(incoming):
        raise RequestRefused("The body holds no event.", hint="Send at least one.")
    return incoming


# Newline-delimited JSON --------------------------------------------------------------------------


def _own_lines(body: bytes, tenant: str, limits: Limits) -> Incoming:
    if body.count(b"\n") > 2 * limits.batch_events:
        raise _too_many(limits)
    try:
        events = _lines.decode_lines(body)
    except _UNREADABLE:
        _blame(body, limits)
    if len(events) > limits.batch_events:
        raise _too_many(limits)
    data = [bytes(event.data) for event in events]
    metadata = [_given(bytes(event.metadata)) for event in events]
    for number, text in enumerate(data):
        _check(text, limits, "The data", number)
    for number, extra in enumerate(metadata):
        if extra is not None:
            _check(extra, limits, "The metadata", number)
    return Incoming(
        Group(
            tenant,
            None,
            [event.stream for event in events],
            [event.type for event in events],
            data,
            [event.expected_version for event in events],
            metadata,
            [event.id for event in events],
            [None if e.keys is None else msgspec.json.encode(e.keys) for e in events],
            [event.occurred_at for event in events],
            [event.schema_version for event in events],
        )
    )


def _given(text: bytes) -> bytes | None:
    return None if text in {b"", b"null"} else text


def _blame(body: bytes, limits: Limits) -> NoReturn:
    """Says which line cannot be read, and why."""
    number = 0
    for line in body.split(b"\n"):
        if not line.strip():
            continue
        try:
            _lines.decode(line)
        except _UNREADABLE as error:
            raise _undecodable(error, f"Line {number + 1}", number, limits) from error
        number += 1
    raise RequestRefused("The body is not newline-delimited JSON.")


def _undecodable(error: Exception, what: str, number: int, limits: Limits) -> HeadwaterError:
    if isinstance(error, RecursionError):
        refusal = LimitExceeded(
            f"{what} nests more than {limits.nesting} levels.", hint="Flatten it."
        )
        return _of_event(refusal, number)
    return _unreadable(number, f"{what} cannot be read: {error}.", "Nothing was appended.")


def _check(text: bytes, limits: Limits, what: str, number: int) -> None:
    try:
        check_json(text, limits.nesting, what)
    except HeadwaterError as error:
        raise _of_event(error, number) from None


def _of_event(error: HeadwaterError, number: int) -> HeadwaterError:
    error.event = number
    return error


def _too_many(limits: Limits) -> LimitExceeded:
    return LimitExceeded(
        f"A request takes at most {limits.batch_events:,} events.",
        hint="Split it; nothing was done.",
    )


# CloudEvents -------------------------------------------------------------------------------------


def _members(body: bytes, media: str, limits: Limits) -> Sequence[bytes | msgspec.Raw]:
    if media == CLOUD_EVENT:
        return [body]
    try:
        members = _cloud_events.decode(body)
    except _UNREADABLE as error:
        if isinstance(error, RecursionError):
            raise LimitExceeded(
                f"The batch nests more than {limits.nesting} levels.", hint="Flatten it."
            ) from error
        raise RequestRefused(
            f"The batch cannot be read: {error}.", hint="Send a JSON array of CloudEvents."
        ) from error
    if len(members) > limits.batch_events:
        raise _too_many(limits)
    return members


def _clouds(members: Sequence[bytes | msgspec.Raw], tenant: str, limits: Limits) -> Incoming:
    incoming = Incoming(Group(tenant))
    for number, member in enumerate(members):
        try:
            event, attributes = _cloud_event.decode(member), _attributes.decode(member)
        except _UNREADABLE as error:
            raise _undecodable(error, f"CloudEvent {number}", number, limits) from error
        _take(incoming, event, attributes, number, limits)
    return incoming


def _take(
    incoming: Incoming,
    event: CloudEvent,
    attributes: dict[str, msgspec.Raw],
    number: int,
    limits: Limits,
) -> None:
    data = bytes(event.data)
    _check(data, limits, "The data", number)
    if event.specversion != "1.0":
        raise _unreadable(number, f"The specversion {event.specversion[:20]!r} is not 1.0.")
    content = (event.datacontenttype or "application/json").partition(";")[0].strip().lower()
    if content != "application/json" and not content.endswith("+json"):
        raise _unreadable(
            number,
            f"The datacontenttype {content[:100]!r} is not JSON.",
            "An event's data is a JSON object.",
        )
    event_id = _uuid(event.id)
    metadata: dict[str, Attribute] = {"source": event.source}
    metadata |= {} if event_id is not None else {"id": event.id}
    metadata |= {} if event.dataschema is None else {"dataschema": event.dataschema}
    for name, raw in attributes.items():
        if name not in _KNOWN:
            metadata[name] = _extension(name, raw, number)
    encoded = msgspec.json.encode(metadata)
    _check(encoded, limits, "The metadata", number)
    group = incoming.group
    group.streams.append(event.subject)
    group.types.append(event.type)
    group.data.append(data)
    group.expected_versions.append(event.expectedversion)
    group.metadata.append(encoded)
    group.ids.append(event_id)
    group.keys.append(None)
    group.occurred_at.append(event.time)
    group.schema_versions.append(event.schemaversion)
    incoming.once.append(idempotency_key(event.source, event.id))


def idempotency_key(source: str, event_id: str) -> str:
    """The key under which a CloudEvent is appended once."""
    digest = hashlib.sha256(f"{len(source)}:{source}{event_id}".encode()).hexdigest()
    return f"cloudevent:{digest}"


_KNOWN = {f.name for f in msgspec.structs.fields(CloudEvent)}
_EXTENSION = re.compile(r"[a-z0-9]{1,64}")


def _extension(name: str, raw: msgspec.Raw, number: int) -> Attribute:
    if not _EXTENSION.fullmatch(name) or name == "data_base64":
        raise _unreadable(
            number,
            f"The attribute {name[:64]!r} is not taken.",
            "Extensions are lower-case letters and digits; data is JSON, not base64.",
        )
    try:
        return _scalar.decode(raw)
    except _UNREADABLE as error:
        raise _unreadable(
            number, f"The extension {name!r} is no string, whole number or boolean."
        ) from error


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text) if len(text) == 36 else None
    except ValueError:
        return None
