"""A producer that publishes to a channel alone, until another takes over. It blocks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from headwater.errors import HeadwaterError, LeaseLost
from headwater.stores.kafka.engine import ASKING_SECONDS, Heard
from headwater.stores.kafka.marks import headers_for
from headwater.stores.kafka.reading import Reading
from headwater.views.messages import Message

if TYPE_CHECKING:
    from headwater.stores.kafka.engine import KafkaEngine

_TIMEOUT_SECONDS = 5.0
_OPEN_MILLISECONDS = 20_000
"""For how long a transaction of a process that has died hides what others write after it, if nobody takes over."""


class Session:
    """Publishes by transactions: all messages of one or none.

    Its transactional id is the channel's. Kafka gives each producer that begins under it a later epoch, ends what an
    earlier one has left open, and refuses all that an earlier one still sends. So what is read of the topic after the
    beginning is its end for as long as nothing else is refused: nobody but this producer adds to it.
    """

    def __init__(self, engine: KafkaEngine, topic: str, largest: int) -> None:
        self.sequence = 0
        self._engine = engine
        self._topic = topic
        self._heard = Heard()
        self._producer: Any = engine.producer(
            self._heard,
            **{
                "transactional.id": topic,
                "transaction.timeout.ms": _OPEN_MILLISECONDS,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 0,
                "message.max.bytes": max(largest, 1_000),
                "batch.size": min(max(largest, 1_000), 1_000_000),
            },
        )

    @staticmethod
    def begin(engine: KafkaEngine, topic: str, largest: int, after: int) -> Session:
        """Fences whoever published before. Raises LeaseLost where the topic does not end at a sequence number."""
        session = Session(engine, topic, largest)
        try:
            session._producer.cluster_id(
                ASKING_SECONDS
            )  # connected, it begins half a second sooner
            session._producer.init_transactions(_TIMEOUT_SECONDS)
        except engine.kafka.KafkaException as error:
            raise session._fault(error) from error
        session.sequence = Reading(engine, topic).tail().sequence
        if session.sequence != after:
            session.end()
            raise LeaseLost(f"Messages of {topic!r} were published by another relay.")
        return session

    def publish(self, messages: Sequence[Message]) -> int:
        """Adds messages in one transaction; the last one's sequence number. Where it fails, the session is over."""
        kafka, before = self._engine.kafka, self.sequence
        try:
            self._producer.begin_transaction()
            offset = self._deliver(messages)
            self._producer.commit_transaction(_TIMEOUT_SECONDS)
        except kafka.KafkaException as error:
            raise self._fault(error) from error
        except BufferError as error:
            raise self._engine.unreachable(str(error)) from error
        else:
            self.sequence = offset + 1
            return self.sequence
        finally:
            if self.sequence == before:
                self.end()

    def end(self) -> None:
        """Lets go of the producer, in this thread; what it has not sent is dropped. Idempotent."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()

    def _deliver(self, messages: Sequence[Message]) -> int:
        """Sends messages, and waits until all are there; the last one's offset."""
        offsets: list[int] = []
        faults: list[Any] = []

        def told(error: Any, record: Any) -> None:
            if error is None:
                offsets.append(record.offset())
            else:
                faults.append(error)

        for message in messages:
            self._producer.produce(
                self._topic,
                value=message.body or None,
                key=message.key or None,
                partition=0,
                headers=headers_for(message),
                on_delivery=told,
            )
        left = self._producer.flush(_TIMEOUT_SECONDS)
        if faults:
            raise self._engine.kafka.KafkaException(faults[0])
        if left:
            raise self._engine.unreachable(self._heard.reason or "it does not answer")
        return offsets[-1]

    def _fault(self, error: Any) -> HeadwaterError:
        with suppress(self._engine.kafka.KafkaException):  # one that is fenced says so again
            self._producer.poll(0)  # has what was heard told
        return self._engine.fault(error.args[0], self._heard.reason)
