"""The port of buses: channels to which messages are added in order, each once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Channel:
    """Where a publication's messages are: a stream of the bus, and the subjects in it."""

    stream: str
    root: str

    @property
    def events(self) -> str:
        """The beginning of the subjects of events."""
        return f"{self.root}.events"

    @property
    def holds(self) -> str:
        """The subject on which relays say that they have taken over."""
        return f"{self.root}.hold"

    @property
    def progress(self) -> str:
        """The subject, outside the stream, on which a publication says how far it is."""
        first, _, rest = self.root.partition(".")
        return f"{first}-progress.{rest}"


@dataclass(frozen=True, slots=True)
class Mark:
    """What each message says of where it is from: the checkpoint that lies in the channel itself.

    ``event`` is the id of the event at ``position`` in hexadecimal digits; '' before the first.
    """

    log: str
    epoch: int
    fence: int
    generation: int
    position: int
    event: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message to publish. Without a body it says that a relay has taken over.

    ``after`` is the position of the event before it in the publication, 0 for the first: what a receiver misses, it sees.
    ``key`` names whose order matters, for buses that part messages by it: the tenant and the stream.
    """

    subject: str
    mark: Mark
    body: bytes = b""
    after: int = 0
    key: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a publication is: all that it takes of the log up to ``upto`` is in the channel up to ``sequence``."""

    log: str
    epoch: int
    sequence: int
    upto: int


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a channel: the last sequence number, and the mark of the last message that is still there."""

    sequence: int
    mark: Mark | None


@dataclass(frozen=True, slots=True)
class Kept:
    """A message that the channel still holds."""

    sequence: int
    message: Message


class OutsideMessages(Protocol):
    """Channels outside the log's database. Keeps no state itself."""

    max_at_once: int
    """How many messages one publish takes."""

    async def prepare(self, channel: Channel) -> None:
        """Creates the channel where it is missing. Raises StoreRefused where it cannot be used as it is."""
        ...

    async def tail(self, channel: Channel) -> Tail:
        """The end of the channel, as whoever accepts messages sees it."""
        ...

    async def largest(self, channel: Channel) -> int:
        """How many bytes a message may have."""
        ...

    def size(self, message: Message) -> int:
        """How many bytes a message has."""
        ...

    async def publish(self, channel: Channel, after: int, messages: Sequence[Message]) -> int:
        """Adds messages right after a sequence number; the last one's. Where it fails, none or the first few are there.

        Raises LeaseLost where the channel does not end there, and StoreUnavailable.
        """
        ...

    async def announce(self, channel: Channel, progress: Progress) -> None:
        """Says to whoever listens how far the publication is. Nothing is kept; it may be lost."""
        ...

    async def kept(self, channel: Channel, after: int, upto: int) -> list[Kept]:
        """Some messages after one sequence number and up to another, in order; none where there are no more."""
        ...

    async def span(self, channel: Channel) -> tuple[int, int]:
        """The first and the last sequence number; (1, 0) where there is no channel yet."""
        ...
