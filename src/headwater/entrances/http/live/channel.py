"""A channel and those who follow it.

A channel has a position: everything at or below it has been handed to whoever follows. A follower
reads from the log, in pages, what lies between its own position and the channel's; once it is level it
joins, in the same step of the event loop in which it saw that it is. So nothing falls between, and
nothing comes twice. A follower that takes too little is taken out, its queue is freed, and it reads on
from the log where it stopped: a burst drops nobody, and memory stays bounded.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

from headwater.entrances.http.limits import Limits
from headwater.entrances.http.live.messages import Filter, Message

Page = tuple[Sequence[Message], int]
"""Messages in order, and the position up to which they are complete."""


class Channel(ABC):
    """Something that happens at positions of the log, for one tenant."""

    def __init__(self) -> None:
        self.position = -1
        self.followers: set[Follower] = set()

    @abstractmethod
    async def between(self, after: int, upto: int) -> Page:
        """A page of what happened in (after, upto], from its beginning."""

    def publish(self, messages: Sequence[Message], position: int) -> None:
        """Hands messages to all who follow, and moves on. Never waits."""
        if messages:
            for follower in tuple(self.followers):
                follower.push(messages)
        self.position = position

    def drop_all(self, reason: str) -> None:
        """Ends all who follow, with a reason."""
        for follower in tuple(self.followers):
            follower.drop(reason)


class Follower:
    """One client of a channel: what it wants, where it is, what waits for it."""

    def __init__(self, channel: Channel, wanted: Filter, limits: Limits, after: int) -> None:
        self._channel = channel
        self._wanted = wanted
        self._limits = limits
        self._queue: list[Message] = []
        self._bytes = 0
        self._overflowed = False
        self._wake = asyncio.Event()
        self._sender: asyncio.Task[object] | None = None
        self._since = 0.0
        self._expired = False
        self.position = after
        self.dropped: str | None = None

    def push(self, messages: Sequence[Message]) -> None:
        """Queues messages; gives the queue up where it grows too large."""
        if self._overflowed:
            return
        for message in messages:
            new = message.position > self.position or message.event is not None
            if new and self._wanted.wants(message):
                self._queue.append(message)
                self._bytes += len(message.body)
        limits = self._limits
        if len(self._queue) > limits.channel_messages or self._bytes > limits.channel_bytes:
            self._overflowed = True
            self._forget()
        if self._queue or self._overflowed:
            self._wake.set()

    def drop(self, reason: str) -> None:
        """Ends the channel for this client."""
        self.dropped = self.dropped or reason
        self._channel.followers.discard(self)
        self._forget()
        self._wake.set()

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Around a write to the client. Raises TimeoutError where the client takes too long.

        One pulse looks after all followers: a timer for each write would cost a third of the CPU.
        """
        loop = asyncio.get_running_loop()
        self._sender, self._since = asyncio.current_task(), loop.time()
        try:
            yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._expired and task is not None and task.uncancel() <= 0:
                self._expired = False
                raise TimeoutError from None
            raise
        finally:
            self._sender = None

    def beat(self, now: float, *, alive: bool) -> None:
        """Looks whether the client is too slow; ``alive`` asks for a sign of life if it is quiet."""
        if self._sender is not None:
            if now - self._since > self._limits.slow_seconds:
                self._expired = True
                self._sender.cancel()
                self._sender = None
        elif alive:
            self._wake.set()

    async def follow(self) -> AsyncIterator[list[Message]]:
        """Messages in order, without a gap or a double; an empty list is a sign of life.

        Ends when the client is dropped.
        """
        while self.dropped is None:
            async for messages in self._catch_up():
                yield messages
            self._channel.followers.add(self)  # no await since _catch_up saw that we are level
            self._overflowed = False
            try:
                while self._following:
                    yield await self._next()
            finally:
                self._channel.followers.discard(self)

    @property
    def _following(self) -> bool:
        return self.dropped is None and not self._overflowed

    async def _catch_up(self) -> AsyncIterator[list[Message]]:
        while self.dropped is None and self.position < self._channel.position:
            messages, reached = await self._channel.between(self.position, self._channel.position)
            wanted = [m for m in messages if self._wanted.wants(m)]
            if wanted:
                yield wanted
            self.position = reached

    async def _next(self) -> list[Message]:
        if not self._queue:
            await self._wake.wait()
        self._wake.clear()
        if not self._following:
            return []
        taken, self._queue, self._bytes = self._queue, [], 0
        # All that was published has been looked at, so the channel's position is this client's too.
        self.position = max(self.position, self._channel.position)
        return taken

    def _forget(self) -> None:
        self._queue, self._bytes = [], 0
