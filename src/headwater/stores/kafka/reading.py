"""Questions about a topic: where it begins and ends, and what is in it. They block.

A sequence number is an offset and one, so that the first is 1. Some offsets have no message: those of the marks that end
transactions, and of what was taken back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwater.errors import StoreRefused, StoreUnavailable
from headwater.stores.kafka.engine import ASKING_SECONDS
from headwater.stores.kafka.marks import kept_from
from headwater.views.messages import Kept, Tail

if TYPE_CHECKING:
    from headwater.stores.kafka.engine import KafkaEngine

_READ_AT_ONCE = 1_000
_PATIENCE_SECONDS = 10.0
_LAST_OFFSETS = 8


@dataclass(frozen=True, slots=True)
class Reading:
    """The one partition of a topic, as a consumer sees it."""

    engine: KafkaEngine
    topic: str

    def partitions(self, consumer: Any) -> int:
        """How many partitions the topic has; 0 where it is not there."""
        return partitions_of(self.engine, consumer, self.topic)

    def ends(self, consumer: Any) -> tuple[int, int]:
        """The first offset that is kept and the one after the last, as far as transactions have ended if it reads so."""
        place = self.engine.kafka.TopicPartition(self.topic, 0)
        low, high = consumer.get_watermark_offsets(place, timeout=ASKING_SECONDS, cached=False)
        return int(low), int(high)

    def span(self) -> tuple[int, int]:
        """The first and the last sequence number; (1, 0) where there is no topic yet."""
        with self.engine.consumer(**{"isolation.level": "read_uncommitted"}) as consumer:
            if not self.partitions(consumer):
                return 1, 0
            low, high = self.ends(consumer)
            return low + 1, high

    def tail(self) -> Tail:
        """The last message that is Headwater's; where none is, the end. Others' are passed by: nobody can remove them."""
        with self.engine.consumer() as consumer:
            if not self.partitions(consumer):
                raise StoreUnavailable(f"The topic {self.topic!r} is gone.")
            low, high = self.ends(consumer)
            back = _LAST_OFFSETS
            while True:
                begin = max(low, high - back)
                last = None
                for kept in self._read(consumer, begin, high, waits=False):
                    last = kept if kept.message.mark.log else last
                if last is not None:
                    return Tail(last.sequence, last.message.mark)
                if begin == low:
                    return Tail(high, None)
                back *= 16

    def kept(self, after: int, upto: int) -> list[Kept]:
        """Some messages after a sequence number and up to another; waits for a transaction that is just ending."""
        with self.engine.consumer() as consumer:
            low, _ = self.ends(consumer)
            found: list[Kept] = []
            for kept in self._read(consumer, max(after, low), upto, waits=True):
                found.append(kept)
                if len(found) == _READ_AT_ONCE:
                    break
            return found

    def _read(self, consumer: Any, begin: int, end: int, *, waits: bool) -> Iterator[Kept]:
        """The messages from one offset to before another; where it does not wait, to where the topic ends now."""
        if begin >= end:
            return
        kafka = self.engine.kafka
        consumer.assign([kafka.TopicPartition(self.topic, 0, begin)])
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            record = consumer.poll(left)
            if record is None:
                break
            error = record.error()
            if error is None:
                if record.offset() >= end:
                    return
                yield kept_from(record)
                if record.offset() + 1 >= end:
                    return
                deadline = time.monotonic() + _PATIENCE_SECONDS
            elif error.code() != kafka.KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                raise kafka.KafkaException(error)
            elif not waits or record.offset() >= end:
                return
        raise self.engine.unreachable(f"it does not give all messages of {self.topic!r}")


def partitions_of(engine: KafkaEngine, consumer: Any, topic: str) -> int:
    """How many partitions a topic has; 0 where it is not there. Raises StoreRefused where the login may not know."""
    found = consumer.list_topics(topic, timeout=ASKING_SECONDS).topics[topic]
    if found.error is None:
        return len(found.partitions)
    if found.error.name() in {"UNKNOWN_TOPIC_OR_PART", "LEADER_NOT_AVAILABLE"}:
        return 0
    raise engine.fault(found.error)


def refuse_other_shapes(topic: str, partitions: int) -> None:
    """Raises StoreRefused where a topic has no total order."""
    if partitions != 1:
        raise StoreRefused(
            f"The topic {topic!r} has {partitions} partitions, and so no order of its own.",
            hint="It needs exactly one: remove it and make it anew, or raise the edition.",
        )
