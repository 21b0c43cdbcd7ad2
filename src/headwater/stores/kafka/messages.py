"""Publications' messages in Kafka.

A channel is a topic of one partition. Messages go in by transactions, under the channel's transactional id: what is sent
by a relay that has lost its lease is refused by the brokers, now or later.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from headwater.stores.kafka import topics
from headwater.stores.kafka.engine import Heard
from headwater.stores.kafka.listening import Listening
from headwater.stores.kafka.marks import headers_for
from headwater.stores.kafka.publishing import Session
from headwater.stores.kafka.reading import Reading
from headwater.views.messages import Channel, Kept, Message, Progress, Tail

if TYPE_CHECKING:
    from headwater.stores.kafka.engine import KafkaEngine

_RECORD_BYTES = 120
"""Bytes that a record and its batch take beside what is in them, at most."""
_ANNOUNCING_MILLISECONDS = 2_000


class KafkaMessages:
    """See OutsideMessages and IncomingMessages."""

    max_at_once = 1_000

    def __init__(self, engine: KafkaEngine) -> None:
        self._engine = engine
        self._largest: dict[str, int] = {}
        self._sessions: dict[str, Session] = {}
        self._announcing: Any = None

    def close(self) -> None:
        """Lets go of the producers; it may block. Idempotent."""
        while self._sessions:
            self._sessions.popitem()[1].end()
        self._announcing = None

    async def prepare(self, channel: Channel) -> None:
        """Creates the topics where they are missing; those that are there must have one partition, uncompacted."""
        preparing = partial(topics.prepare, self._engine, channel)
        self._largest[channel.stream] = await self._engine.ask(preparing)

    async def tail(self, channel: Channel) -> Tail:
        """The last message that is Headwater's, of transactions that have ended."""
        return await self._engine.ask(self._reading(channel).tail)

    async def span(self, channel: Channel) -> tuple[int, int]:
        """The first and the last sequence number; (1, 0) where there is no topic yet."""
        return await self._engine.ask(self._reading(channel).span)

    async def kept(self, channel: Channel, after: int, upto: int) -> list[Kept]:
        """The next messages; see OutsideMessages."""
        if after >= upto:
            return []
        return await self._engine.ask(partial(self._reading(channel).kept, after, upto))

    async def largest(self, channel: Channel) -> int:
        """How many bytes a message may have, by the topic as it was when it was prepared."""
        return self._largest.get(channel.stream, self._engine.topics.max_message_bytes)

    def size(self, message: Message) -> int:
        """How many bytes a message has, its key and headers included."""
        return len(message.body) + len(message.key.encode()) + _RECORD_BYTES + sum(
            len(name) + len(value) + 4 for name, value in headers_for(message).items()
        )  # fmt: skip

    async def publish(self, channel: Channel, after: int, messages: Sequence[Message]) -> int:
        """Adds messages right after a sequence number, all or none; see OutsideMessages.

        A session that fails, or whose publish is not awaited to its end, is not used again: the next one begins by fencing
        it, and by reading how far it came.
        """
        session = self._sessions.pop(channel.stream, None)
        if session is not None and session.sequence != after:
            await self._engine.ask(session.end)
            session = None
        if session is None:
            largest = await self.largest(channel)
            begin = partial(Session.begin, self._engine, channel.stream, largest, after)
            session = await self._engine.ask(begin)
        sequence = await self._engine.ask(partial(session.publish, messages))
        self._sessions[channel.stream] = session
        return sequence

    async def announce(self, channel: Channel, progress: Progress) -> None:
        """Sends a message to the topic of progress, and waits for nothing; see OutsideMessages."""
        kafka = self._engine.kafka
        if self._announcing is None:
            settings = {"acks": "1", "message.timeout.ms": _ANNOUNCING_MILLISECONDS}
            self._announcing = self._engine.producer(Heard(), **settings)
        try:
            body = msgspec.json.encode(progress)
            self._announcing.produce(channel.progress, value=body, partition=0)
            self._announcing.poll(0)
        except BufferError as error:
            raise self._engine.unreachable(str(error)) from error
        except kafka.KafkaException as error:
            raise self._engine.fault(error.args[0]) from error

    async def listen(self, channel: Channel, after: int) -> Listening:
        """What comes after a sequence number; see IncomingMessages."""
        return await Listening.begin(self._engine, channel, after)

    def _reading(self, channel: Channel) -> Reading:
        return Reading(self._engine, channel.stream)
