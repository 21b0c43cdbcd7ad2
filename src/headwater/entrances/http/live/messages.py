"""What channels carry: one message, encoded once for all who get it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from headwater.entrances.http.events import encode, stored


def channel_of(view: str | None) -> str:
    """A channel's name: of the events, or of a view."""
    return "events" if view is None else f"views/{view}"


@dataclass(eq=False)
class Message:
    """A message of a channel. ``token`` is where to resume after it, None where more of one place follow."""

    position: int
    token: str | None
    body: bytes
    type: str = ""
    stream: str = ""
    keys: Sequence[str] = ()
    event: str | None = None

    @cached_property
    def sse(self) -> bytes:
        """As a server-sent event."""
        token = b"" if self.token is None else b"id: %b\n" % self.token.encode()
        event = b"" if self.event is None else b"event: %b\n" % self.event.encode()
        return b"%b%bdata: %b\n\n" % (token, event, self.body)

    @cached_property
    def text(self) -> str:
        """As a message of a WebSocket."""
        frame = {"id": self.token, "event": self.event or "message", "data": msgspec.Raw(self.body)}
        return encode(frame).decode()


def of_event(row: Sequence[Any], log_epoch: str) -> Message:
    """The message of a row of the log."""
    event = stored(row)
    token = f"{log_epoch}.{event.position}"
    return Message(event.position, token, encode(event), event.type, event.stream, event.keys)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which messages a client wants: all that match every condition that it named."""

    types: frozenset[str] = frozenset()
    stream: str | None = None
    category: str | None = None
    keys: frozenset[str] = frozenset()

    def wants(self, message: Message) -> bool:
        """Whether a message matches. Those about the channel itself always do."""
        if message.event is not None:
            return True
        return (
            (not self.types or message.type in self.types)
            and (self.stream is None or message.stream == self.stream)
            and (self.category is None or message.stream.startswith(f"{self.category}/"))
            and (not self.keys or not self.keys.isdisjoint(message.keys))
        )
