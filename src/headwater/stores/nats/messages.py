"""Publications' messages in JetStream.

A channel is a stream. Messages go in by atomic publishes: all of one or none, and only where the stream ends with the
sequence number that the publisher expects. What was sent by a relay that has lost its lease is refused, now or later.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec

from headwater.errors import LeaseLost, StoreRefused, StoreUnavailable
from headwater.stores.nats.engine import Answer
from headwater.stores.nats.listening import Listening
from headwater.stores.nats.marks import headers_for
from headwater.views.marking import kept_of, mark_of
from headwater.views.messages import Channel, Kept, Message, Progress, Tail

if TYPE_CHECKING:
    from headwater.stores.nats.engine import NatsEngine

_BATCH_HEADERS = 200
"""Bytes that the headers of a batch take at most."""
_READ_AT_ONCE = 200
_FEW = 100
_WINDOW_NANOSECONDS = 120_000_000_000
_decode = msgspec.json.Decoder(Answer)


class NatsMessages:
    """See OutsideMessages."""

    max_at_once = 1_000

    def __init__(self, engine: NatsEngine) -> None:
        self._engine = engine
        self._alone: set[str] = set()

    async def prepare(self, channel: Channel) -> None:
        """Creates the stream where it is missing; one that is there must take atomic publishes."""
        info = await self._engine.api(f"STREAM.INFO.{channel.stream}", {})
        if info is None:
            wanted = {
                "name": channel.stream,
                "subjects": [f"{channel.root}.>"],
                "retention": "limits",
                "storage": "file",
                "discard": "old",
                "duplicate_window": _WINDOW_NANOSECONDS,
                "allow_atomic": True,
                "allow_direct": False,
                **self._engine.limits,
            }
            age = self._engine.limits["max_age"]
            if 0 < age < _WINDOW_NANOSECONDS:  # the window may not be longer than messages are kept
                wanted["duplicate_window"] = age
            info = await self._engine.api(f"STREAM.CREATE.{channel.stream}", wanted)
        if info is None:
            raise StoreUnavailable(f"The stream {channel.stream!r} could not be created.")
        config = info["config"]
        if not config.get("allow_atomic"):
            raise StoreRefused(
                f"The stream {channel.stream!r} takes no atomic publishes.",
                hint="Use NATS 2.12 or newer; for a stream of your own set allow_atomic.",
            )
        if config.get("subjects") != [f"{channel.root}.>"] or config["retention"] != "limits":
            raise StoreRefused(
                f"The stream {channel.stream!r} is there with other subjects or another retention.",
                hint=f"It needs the subject {channel.root}.> and the retention limits.",
            )
        # In a cluster the last id is known only once a majority has the message: in a row, most would be refused.
        if config.get("num_replicas", 1) == 1:
            self._alone.add(channel.stream)
        else:
            self._alone.discard(channel.stream)

    async def tail(self, channel: Channel) -> Tail:
        """The end of the stream; the leader answers, who also accepts messages."""
        info = await self._engine.api(f"STREAM.INFO.{channel.stream}", {})
        if info is None:
            raise StoreUnavailable(f"The stream {channel.stream!r} is gone.")
        last_sequence: int = info["state"]["last_seq"]
        last = await self._engine.api(
            f"STREAM.MSG.GET.{channel.stream}", {"last_by_subj": f"{channel.root}.>"}
        )
        if last is None:
            return Tail(last_sequence, None)
        message = last["message"]
        mark = mark_of(_headers_of(message))
        if mark is None:
            raise StoreRefused(
                f"The last message of {channel.stream!r} is not Headwater's.",
                hint="Only Headwater may publish on its subjects: remove that message.",
            )
        return Tail(max(last_sequence, message["seq"]), mark)

    async def span(self, channel: Channel) -> tuple[int, int]:
        """The first and the last sequence number; (1, 0) where there is no stream yet."""
        info = await self._engine.api(f"STREAM.INFO.{channel.stream}", {})
        if info is None:
            return 1, 0
        return max(info["state"]["first_seq"], 1), info["state"]["last_seq"]

    async def largest(self, channel: Channel) -> int:
        """How many bytes a message may have, by the server and by the stream."""
        info = await self._engine.api(f"STREAM.INFO.{channel.stream}", {})
        own = -1 if info is None else info["config"].get("max_msg_size", -1)
        server = await self._engine.max_payload()
        return server if own <= 0 else min(server, own)

    def size(self, message: Message) -> int:
        """How many bytes a message has, its headers included."""
        return len(message.body) + _BATCH_HEADERS + sum(
            len(name) + len(value) + 4 for name, value in headers_for(message).items()
        )  # fmt: skip

    async def publish(self, channel: Channel, after: int, messages: Sequence[Message]) -> int:
        """Adds messages right after a sequence number; see OutsideMessages."""
        if 1 < len(messages) <= _FEW and channel.stream in self._alone:
            return await self._in_a_row(channel, after, messages)
        return await self._at_once(channel, after, messages)

    async def _in_a_row(self, channel: Channel, after: int, messages: Sequence[Message]) -> int:
        """Adds a few, each only right after the one before it: where one is refused, so are all that follow.

        An atomic publish into a file makes and removes a folder, some ten milliseconds. The number before a message alone would
        not do: once one was refused, a stranger's message may take its number, and the next would follow that. So each
        names the id before it too, which that message does not have.
        """
        sent: list[tuple[str, bytes, dict[str, str]]] = []
        for number, message in enumerate(messages):
            headers = headers_for(message)
            headers["Nats-Expected-Last-Sequence"] = str(after + number)
            if number:
                headers["Nats-Expected-Last-Msg-Id"] = sent[-1][2]["Nats-Msg-Id"]
            sent.append((message.subject, message.body, headers))
        for number, data in enumerate(await self._engine.requests(sent), start=1):
            self._taken(channel, data, after + number)
        return after + len(messages)

    def _taken(self, channel: Channel, data: bytes, sequence: int) -> None:
        answer = _decode.decode(data)
        if answer.error is not None:
            raise self._engine.fault(answer.error)
        if answer.seq != sequence:
            raise LeaseLost(f"Messages of {channel.stream!r} were published by another relay.")

    async def _at_once(self, channel: Channel, after: int, messages: Sequence[Message]) -> int:
        """Adds all messages or none."""
        batch, last = uuid4().hex, len(messages)
        data = b""
        for number, message in zip(count(1), messages, strict=False):
            headers = headers_for(message)
            if number == 1:
                headers["Nats-Expected-Last-Sequence"] = str(after)
            if last > 1:
                headers |= {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
            if number < last:
                await self._engine.send(message.subject, message.body, headers)
                continue
            if last > 1:
                headers["Nats-Batch-Commit"] = "1"
            data = await self._engine.request(message.subject, message.body, headers)
        self._taken(channel, data, after + last)
        return after + last

    async def announce(self, channel: Channel, progress: Progress) -> None:
        """Sends a message that no stream takes; see OutsideMessages."""
        await self._engine.send(channel.progress, msgspec.json.encode(progress), {})

    async def listen(self, channel: Channel, after: int) -> Listening:
        """What comes after a sequence number; see IncomingMessages."""
        return await Listening.begin(self._engine, channel, after)

    async def kept(self, channel: Channel, after: int, upto: int) -> list[Kept]:
        """The next messages; see OutsideMessages."""
        while after < upto:
            end = min(after + _READ_AT_ONCE, upto)
            subject = f"STREAM.MSG.GET.{channel.stream}"
            answers = await asyncio.gather(
                *(self._engine.api(subject, {"seq": n}) for n in range(after + 1, end + 1))
            )
            if found := [_kept(answer["message"]) for answer in answers if answer is not None]:
                return found
            after = end
        return []


def _kept(message: Mapping[str, Any]) -> Kept:
    body = base64.b64decode(message.get("data", ""))
    return kept_of(message["seq"], message["subject"], _headers_of(message), body)


def _headers_of(message: Mapping[str, Any]) -> dict[str, str]:
    """The headers of a message as JetStream's API gives it."""
    text = base64.b64decode(message.get("hdrs", "")).decode()
    lines = (line.partition(":") for line in text.split("\r\n")[1:] if line)
    return {name: value.strip() for name, _, value in lines}
