"""Inboxes: which events of another service come into this log, and what they become. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import msgspec

from headwater.errors import InvalidEvent, ViewDefinitionError
from headwater.events import Event, EventType
from headwater.log.writing import Group
from headwater.views.messages import Channel, Message
from headwater.views.publication import channel_of


class Told(msgspec.Struct):
    """A CloudEvent, as far as it matters here."""

    id: str
    source: str
    type: str
    subject: str
    time: datetime
    tenant: str
    data: msgspec.Raw
    schemaversion: int = 1
    correlation: str | None = None
    traceparent: str | None = None


_decode = msgspec.json.Decoder(Told)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Place:
    """Whose a message is and of which stream of the source: what waits behind one that is parked."""

    tenant: str
    stream: str


UNKNOWN = Place("", "")
"""Of a message that cannot be read at all."""


@dataclass(frozen=True)
class Inbox:
    """What one publication of another app brings: the events of these types, as this app declares them."""

    source: str
    publication: str
    events: tuple[type[Event], ...]
    bus: str
    edition: int = 1

    def __post_init__(self) -> None:
        if not self.events:
            raise ViewDefinitionError(
                f"The inbox {self.name!r} names no event types.", hint="Pass types=[Placed, ...]."
            )
        for declared in self.types.values():
            if declared.personal:
                field = f"{declared.event_class.__name__}.{min(declared.personal)}"
                raise ViewDefinitionError(
                    f"{field} is personal, and {self.source!r} seals it with a key that is not here.",
                    hint="Declare it as str to carry it sealed, or leave it out.",
                )
        _ = self.channel

    @property
    def name(self) -> str:
        """Its name, and its lease's."""
        return f"inbox/{self.source}/{self.publication}"

    @cached_property
    def types(self) -> Mapping[str, EventType]:
        """The types by name, as this app declares them."""
        return {declared.name: declared for declared in map(EventType.of, self.events)}

    @cached_property
    def channel(self) -> Channel:
        """Where the messages come from."""
        return channel_of(self.source, self.publication, self.edition)

    def read(self, message: Message) -> Told:
        """What a message says. Raises msgspec.DecodeError."""
        return _decode.decode(message.body)

    def add(self, told: Told, message: Message, group: Group) -> None:
        """Adds the event that a message becomes here. Raises InvalidEvent, or what its upcasting raises."""
        declared = self.types[told.type]
        data = bytes(told.data)
        try:
            if (
                told.schemaversion == declared.schema_version
            ):  # of others, decoding takes what it knows
                known = declared.schema["properties"]
                fields = _fields.decode(data)
                data = msgspec.json.encode({k: v for k, v in fields.items() if k in known})
            event = declared.decode(data, told.schemaversion)
        except msgspec.ValidationError as error:
            raise InvalidEvent(
                f"It does not fit {declared.name!r} as declared here: {error}."
            ) from error
        cause = {"source": told.source, "id": told.id, "position": message.mark.position}
        metadata: dict[str, Any] = {"cause": cause, "correlation": told.correlation or told.id}
        if told.traceparent is not None:
            metadata["trace"] = told.traceparent
        group.add(event, metadata=msgspec.json.encode(metadata), occurred_at=told.time)
