"""What comes in by a stream: its messages in order, each once as long as it lasts, and how far their publication is.

The stream is read by a consumer of this process alone, in memory, that keeps no acknowledgements. It counts what it
sends, so a message that is lost on the way is noticed; then, as after any fault, the reader listens anew from where it was.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec

from headwater.errors import HeadwaterError, StoreUnavailable
from headwater.views.marking import kept_of
from headwater.views.messages import Channel, Kept, Progress

if TYPE_CHECKING:
    from headwater.stores.nats.engine import NatsEngine

_AT_ONCE = 1_000
"""Messages that are asked for together, once those before them were taken."""
_HEARTBEAT_SECONDS = 2.0
_SILENCE_SECONDS = 7.0
_EXPIRES_SECONDS = 30.0
_ABSENT_SECONDS = 0.25
_LONG_REPLY = 11
_HEARTBEAT, _OVER = "100", frozenset({"404", "408"})
_decode = msgspec.json.Decoder(Progress)


class Listening:
    """See Incoming."""

    def __init__(self, engine: NatsEngine, channel: Channel) -> None:
        self._engine = engine
        self._channel = channel
        self._name = f"headwater-{uuid4().hex}"
        self._arrived: list[Kept | Progress] = []
        self._moved = asyncio.Event()
        self._cut = asyncio.Event()
        self._subscriptions: list[Any] = []
        self._inbox = ""
        self._taken = 0
        self._asked = 0
        self._fault: HeadwaterError | None = None
        self._sequence = 0
        self._announced = 0
        self._alive_at = time.monotonic()
        self._behind_at: float | None = None

    @staticmethod
    async def begin(engine: NatsEngine, channel: Channel, after: int) -> Listening:
        """Listens to what comes after a sequence number; waits for a stream that is not there yet."""
        listening = Listening(engine, channel)
        try:
            await listening._begin(after)
        except BaseException:
            await listening.close()
            raise
        return listening

    async def _begin(self, after: int) -> None:
        self._sequence = after
        self._inbox, self._cut = await self._engine.new_inbox()
        # Before the consumer: what is told from here on is heard.
        for subject, heard in (
            (self._channel.progress, self._heard_progress),
            (self._inbox, self._heard),
        ):
            self._subscriptions.append(await self._engine.subscribe(subject, heard))
        config = {
            "name": self._name,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": after + 1,
            "ack_policy": "none",
            "replay_policy": "instant",
            "inactive_threshold": 60_000_000_000,
            "mem_storage": True,
            "num_replicas": 1,
        }
        stream = self._channel.stream
        request = {"stream_name": stream, "config": config}
        while await self._engine.api(f"CONSUMER.CREATE.{stream}.{self._name}", request) is None:
            await asyncio.sleep(_ABSENT_SECONDS)
        await self._ask()

    async def next(self) -> list[Kept | Progress]:
        """What has come since, once there is something. Raises StoreUnavailable."""
        while not self._arrived:
            if self._fault is not None:
                raise self._fault
            if self._asked <= 0:
                await self._ask()
            self._moved.clear()
            await self._sign()
            self._look()
        found, self._arrived = self._arrived, []
        return found

    async def _sign(self) -> None:
        """Waits until something comes, a sign of life too, or the time for that is over."""
        left = self._alive_at + _SILENCE_SECONDS - time.monotonic()
        signs = [asyncio.create_task(event.wait()) for event in (self._moved, self._cut)]
        try:
            await asyncio.wait(signs, timeout=max(left, 0), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for sign in signs:
                sign.cancel()
            await asyncio.gather(*signs, return_exceptions=True)

    def _look(self) -> None:
        """Whether the consumer still lives: it may be gone with its node, or not come on, while publishers are heard."""
        now = time.monotonic()
        if self._cut.is_set():
            self._fail(f"The store {self._engine.name!r} has closed the connection.")
        elif now - self._alive_at >= _SILENCE_SECONDS:
            self._fail(f"The store {self._engine.name!r} sends nothing any more.")
        if self._announced <= self._sequence:
            self._behind_at = None
        elif self._behind_at is None:
            self._behind_at = now
        elif now - self._behind_at >= _SILENCE_SECONDS:
            self._fail(f"{self._channel.stream!r} is longer than what is sent of it.")

    async def _ask(self) -> None:
        self._asked, self._alive_at = _AT_ONCE, time.monotonic()
        request = {
            "batch": _AT_ONCE,
            "expires": int(_EXPIRES_SECONDS * 1_000_000_000),
            "idle_heartbeat": int(_HEARTBEAT_SECONDS * 1_000_000_000),
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._channel.stream}.{self._name}"
        await self._engine.send(subject, msgspec.json.encode(request), {}, reply=self._inbox)

    async def _heard(self, message: Any) -> None:
        self._moved.set()
        self._alive_at = time.monotonic()
        headers = message.headers or {}
        if (status := headers.get("Status")) is not None:
            if status in _OVER:
                self._asked = 0
            elif status != _HEARTBEAT:
                why = headers.get("Description", status)
                self._fail(f"The stream {self._channel.stream!r} cannot be read on: {why}.")
            return
        sequence, number = _places(message.reply)
        if number != self._taken + 1:
            self._fail(f"A message of {self._channel.stream!r} was lost on its way.")
        if self._fault is None:
            self._taken, self._asked = number, self._asked - 1
            self._sequence, self._behind_at = sequence, None
            body = bytes(message.data)
            self._arrived.append(kept_of(sequence, message.subject, headers, body))

    async def _heard_progress(self, message: Any) -> None:
        with suppress(msgspec.DecodeError, msgspec.ValidationError):
            progress = _decode.decode(message.data)
            self._announced = progress.sequence
            self._arrived.append(progress)
            self._moved.set()

    def _fail(self, what: str) -> None:
        if self._fault is None:
            self._fault = StoreUnavailable(what, hint="It is listened to anew by itself.")

    async def close(self) -> None:
        """Stops. Idempotent."""
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            with suppress(
                Exception
            ):  # the connection may be gone, and the server forgets it by itself
                await subscription.unsubscribe()
        if subscriptions:
            with suppress(HeadwaterError, OSError):
                subject = f"$JS.API.CONSUMER.DELETE.{self._channel.stream}.{self._name}"
                await self._engine.send(subject, b"", {})


def _places(reply: str) -> tuple[int, int]:
    """The sequence number in the stream, and the number among what this consumer was sent.

    ``$JS.ACK.STREAM.CONSUMER.DELIVERED.SEQUENCE.NUMBER.TIME.PENDING``; a domain and an account may stand before STREAM, and a
    token at the end.
    """
    places = reply.split(".")
    first = 5 if len(places) < _LONG_REPLY else 7
    return int(places[first]), int(places[first + 1])
