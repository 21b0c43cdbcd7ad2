"""What comes in by a topic: its messages in order, each once as long as it lasts, and how far their publication is.

A thread polls a consumer that no group coordinates and that commits no offsets. It hands over what came, and polls on once that
was taken. What it cannot vouch for ends it; then the reader listens anew from where it was.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from headwater.errors import HeadwaterError, StoreUnavailable
from headwater.stores.kafka.marks import kept_from
from headwater.stores.kafka.reading import Reading, partitions_of, refuse_other_shapes
from headwater.views.messages import Channel, Kept, Progress

if TYPE_CHECKING:
    from headwater.stores.kafka.engine import KafkaEngine

_AT_ONCE = 1_000
_POLL_SECONDS = 0.1
_ABSENT_SECONDS = 0.25
_ASK_SECONDS = 2.0
_SILENCE_SECONDS = 7.0
_CLOSING_SECONDS = 10.0
_SETTINGS = {"enable.partition.eof": False, "fetch.wait.max.ms": 100}
_decode = msgspec.json.Decoder(Progress)

Found = list[Kept | Progress]


class Listening:
    """See Incoming."""

    def __init__(self, engine: KafkaEngine, channel: Channel, after: int) -> None:
        self._engine = engine
        self._channel = channel
        self._sequence = after
        self._announced = 0
        self._behind_at: float | None = None
        self._arrived: Found = []
        self._fault: HeadwaterError | None = None
        self._moved = asyncio.Event()
        self._taken = threading.Event()
        self._stopping = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name=f"listening {channel.stream}")

    @staticmethod
    async def begin(engine: KafkaEngine, channel: Channel, after: int) -> Listening:
        """Listens to what comes after a sequence number; waits for topics that are not there yet."""
        listening = Listening(engine, channel, after)
        listening._thread.start()
        return listening

    async def next(self) -> Found:
        """What has come since, once there is something. Raises StoreUnavailable."""
        while not self._arrived:
            if self._fault is not None:
                raise self._fault
            self._moved.clear()
            await self._moved.wait()
        found, self._arrived = self._arrived, []
        self._taken.set()
        return found

    async def close(self) -> None:
        """Stops, once a question that is being asked is answered or over. Idempotent."""
        self._stopping.set()
        self._taken.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, _CLOSING_SECONDS)

    # In the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with self._engine.consumer(**_SETTINGS) as consumer:
                if self._begins(consumer):
                    self._listen(consumer)
        except HeadwaterError as error:
            self._tell([], error)
        except Exception as error:  # noqa: BLE001 - whatever ends the thread is told to who waits for it
            self._tell(
                [], StoreUnavailable(f"Listening to {self._channel.stream!r} failed: {error}.")
            )

    def _tell(self, found: Found, fault: HeadwaterError | None = None) -> None:
        """Hands over to the loop; one that is closed needs nothing any more."""

        def told() -> None:
            self._arrived += found
            self._fault = self._fault or fault
            self._moved.set()

        self._taken.clear()
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(told)

    def _begins(self, consumer: Any) -> bool:
        """Reads from the place on; where it is gone, from the first message that is kept. False where it is to stop."""
        channel, kafka = self._channel, self._engine.kafka
        for topic in (channel.stream, channel.progress):
            while not (partitions := partitions_of(self._engine, consumer, topic)):
                if self._stopping.wait(_ABSENT_SECONDS):
                    return False
            refuse_other_shapes(topic, partitions)
        low, high = Reading(self._engine, channel.stream).ends(consumer)
        begin = max(self._sequence, low)
        if self._sequence > high:
            raise self._ended(f"{channel.stream!r} has lost its end, or was made anew")
        consumer.assign(
            [
                kafka.TopicPartition(channel.stream, 0, begin),
                kafka.TopicPartition(channel.progress, 0, kafka.OFFSET_END),
            ]
        )
        return True

    def _listen(self, consumer: Any) -> None:
        reading = Reading(self._engine, self._channel.stream)
        heard_at = time.monotonic()
        while not self._stopping.is_set():
            record = consumer.poll(_POLL_SECONDS)
            now = time.monotonic()
            if record is not None:
                heard_at = now
                records = [record, *consumer.consume(_AT_ONCE - 1, 0)]
                if found := [one for one in map(self._took, records) if one is not None]:
                    self._tell(found)
                    while not (self._taken.wait(_POLL_SECONDS) or self._stopping.is_set()):
                        pass
            elif now - heard_at > _ASK_SECONDS:  # a connection that is cut is silent too
                heard_at = now
                if reading.ends(consumer)[1] < self._sequence:
                    raise self._ended(
                        f"{self._channel.stream!r} has lost its end, or was made anew"
                    )
            self._look(now)

    def _took(self, record: Any) -> Kept | Progress | None:
        if (error := record.error()) is not None:
            raise self._engine.fault(error)
        if record.topic() == self._channel.progress:
            with suppress(msgspec.DecodeError, msgspec.ValidationError):
                progress = _decode.decode(record.value() or b"")
                self._announced = progress.sequence
                return progress
            return None
        kept = kept_from(record)
        if kept.sequence <= self._sequence:
            raise self._ended(f"messages of {self._channel.stream!r} came out of order")
        self._sequence, self._behind_at = kept.sequence, None
        return kept

    def _look(self, now: float) -> None:
        """Whether messages come as publishers say they do."""
        if self._announced <= self._sequence:
            self._behind_at = None
        elif self._behind_at is None:
            self._behind_at = now
        elif now - self._behind_at >= _SILENCE_SECONDS:
            raise self._ended(f"{self._channel.stream!r} is longer than what is sent of it")

    def _ended(self, what: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"Listening ends: {what}.", hint="It is listened to anew by itself."
        )
