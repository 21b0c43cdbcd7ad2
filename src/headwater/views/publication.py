"""Publications: events of some types as messages for other services, in order, each once. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from uuid import UUID

import msgspec

from headwater.errors import ViewDefinitionError
from headwater.events import Event, EventType
from headwater.relay import OnFailure
from headwater.views.definition import Definition
from headwater.views.messages import Channel, Mark, Message

_APP = re.compile(r"[A-Za-z0-9_-]{1,60}")
_decode = msgspec.json.Decoder(dict)

Row = tuple[
    int, str, str, int, str, str, int, UUID, datetime, datetime | None, str, Sequence[str] | None
]
"""Position, tenant, type, schema version, data, stream, version, id, when recorded, when occurred, metadata, keys."""


class CloudEvent(msgspec.Struct, omit_defaults=True):
    """An event as a CloudEvent 1.0 in JSON, as a message carries it.

    ``position`` and ``streamversion`` are texts: a CloudEvent's numbers end at 2^31.
    """

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: str
    datacontenttype: str
    schemaversion: int
    tenant: str
    position: str
    streamversion: str
    data: msgspec.Raw
    correlation: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True)
class Publication:
    """A publication's definition: which types of events go out, by which bus.

    Another ``edition`` is another channel, into which everything is published from the beginning of the log.
    """

    app: str
    name: str
    events: tuple[type[Event], ...]
    bus: str
    on_failure: OnFailure = "park"
    edition: int = 1

    def __post_init__(self) -> None:
        if not self.events:
            raise ViewDefinitionError(
                f"The publication {self.name!r} names no event types.",
                hint="Pass types=[Placed, ...].",
            )
        _ = self.definition

    @cached_property
    def type_names(self) -> list[str]:
        """The names of the event types."""
        return sorted(EventType.of(event).name for event in self.events)

    @cached_property
    def channel(self) -> Channel:
        """Where the messages go."""
        return channel_of(self.app, self.name, self.edition)

    @cached_property
    def definition(self) -> Definition:
        """The definition as data."""
        content = {"types": self.type_names, "bus": self.bus, "channel": self.channel.stream}
        return Definition(self.name, "publication", content)

    def message(self, row: Row, mark: Mark, after: int = 0) -> Message:
        """A row of the log as a message after another. Personal fields are sealed in the log, and stay so."""
        (_, tenant, type_, schema_version, data, stream, version, id_, recorded_at, occurred_at) = (
            row[:10]
        )
        metadata = _decode.decode(row[10])
        event = CloudEvent(
            specversion="1.0",
            id=str(id_),
            source=f"urn:headwater:{mark.log}",
            type=type_,
            subject=stream,
            time=(occurred_at or recorded_at).astimezone(UTC).isoformat(),
            datacontenttype="application/json",
            schemaversion=schema_version,
            tenant=tenant,
            position=str(row[0]),
            streamversion=str(version),
            data=msgspec.Raw(data.encode()),
            correlation=_text(metadata.get("correlation")),
            traceparent=_text(metadata.get("trace")),
        )
        return Message(
            f"{self.channel.events}.{type_}",
            Mark(mark.log, mark.epoch, mark.fence, mark.generation, row[0], id_.hex),
            msgspec.json.encode(event),
            after,
            f"{tenant}/{stream}",
        )


def channel_of(app: str, publication: str, edition: int) -> Channel:
    """Where an app's publication is. Raises ViewDefinitionError for names that no bus takes."""
    if not _APP.fullmatch(app):
        raise ViewDefinitionError(
            f"The app's name {app!r} cannot be part of a subject.",
            hint="Use letters, digits, _ and -, at most 60.",
        )
    if edition < 1:
        raise ViewDefinitionError(
            f"The edition of {publication!r} is {edition}.", hint="The first is 1."
        )
    name = publication if edition == 1 else f"{publication}-{edition}"
    return Channel(f"headwater-{app}-{name}", f"headwater.{app}.{name}")


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
