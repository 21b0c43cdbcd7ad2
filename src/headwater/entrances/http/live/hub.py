"""All live channels of a process: who may open one, where it begins, and how it ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headwater.app import App
from headwater.entrances.http.events import position_of
from headwater.entrances.http.limits import Limits
from headwater.entrances.http.live.changes import ViewChannel
from headwater.entrances.http.live.channel import Channel, Follower
from headwater.entrances.http.live.messages import Filter
from headwater.entrances.http.live.presence import Presence
from headwater.entrances.http.live.tail import Tail
from headwater.entrances.http.watermark import Watermark
from headwater.errors import TooBusy

STOPPING = "the server stops"
_CATCHING_UP = 4


class Hub:
    """The channels of one app. Nothing runs while nobody follows."""

    def __init__(self, app: App, limits: Limits, watermark: Watermark) -> None:
        self._app, self._limits, self._watermark = app, limits, watermark
        self._tail = Tail(app, watermark)
        self._views: dict[tuple[str, str], ViewChannel] = {}
        self._following: Counter[tuple[str, str | None]] = Counter()
        self._turns = asyncio.Semaphore(_CATCHING_UP)
        self._stopping = False
        self._pulse: asyncio.Task[None] | None = None
        self._followers: set[Follower] = set()
        self.presence = Presence(app.database(), limits)
        self.dropped = 0
        """How many clients were dropped because they were too slow."""

    @property
    def open(self) -> int:
        """How many channels are open."""
        return len(self._followers)

    @asynccontextmanager
    async def following(
        self, tenant: str, view: str | None, wanted: Filter, resume: str | None
    ) -> AsyncIterator[Follower]:
        """A follower of the tenant's events, or of a view, until the end of the block.

        ``resume`` is a token or a position; None: from now. Raises TooBusy, TokenError or UnknownView.
        """
        if self._stopping or len(self._followers) >= self._limits.channels:
            raise TooBusy(
                f"This process has {len(self._followers)} channels open.", hint="Try again soon."
            )
        after = None if resume is None else await self._position(resume)
        place = tenant, view
        self._following[place] += 1
        follower: Follower | None = None
        try:
            channel = await self._channel(tenant, view)
            follower = Follower(
                channel, wanted, self._limits, channel.position if after is None else after
            )
            self._followers.add(follower)
            if self._pulse is None or self._pulse.done():
                self._pulse = asyncio.create_task(self._beat(), name="live pulse")
            yield follower
        finally:
            if follower is not None:
                self._followers.discard(follower)
                follower.drop("closed")
            self._following[place] -= 1
            await self._tidy(tenant, view)

    async def close(self) -> None:
        """Ends every channel, and what feeds them. Idempotent."""
        self._stopping = True
        for follower in tuple(self._followers):
            follower.drop(STOPPING)
        if self._pulse is not None:
            self._pulse.cancel()
        await self._tail.close()
        for view in tuple(self._views.values()):  # followers take theirs out as they go
            await view.close()
        await self.presence.close()

    async def _beat(self) -> None:
        """Looks after all followers while there are any."""
        loop, limits = asyncio.get_running_loop(), self._limits
        every = min(limits.slow_seconds / 4, limits.heartbeat_seconds, 1.0)
        alive_at = loop.time() + limits.heartbeat_seconds
        while self._followers:
            await asyncio.sleep(every)
            now = loop.time()
            alive = now >= alive_at
            if alive:
                alive_at = now + limits.heartbeat_seconds
            for follower in tuple(self._followers):
                follower.beat(now, alive=alive)

    async def _position(self, resume: str) -> int:
        return int(resume) if resume.isdigit() else await position_of(self._app.database(), resume)

    async def _channel(self, tenant: str, view: str | None) -> Channel:
        if view is None:
            return await self._tail.channel(tenant)
        if (tenant, view) not in self._views:
            self._views[tenant, view] = ViewChannel(
                self._app, tenant, view, self._watermark, self._turns
            )
        channel = self._views[tenant, view]
        await channel.start()
        return channel

    async def _tidy(self, tenant: str, view: str | None) -> None:
        """Ends what feeds a channel that nobody follows."""
        self._following += Counter()  # forgets what is 0
        if view is None and not any(place[1] is None for place in self._following):
            await self._tail.close()
        elif view is not None and not self._following[tenant, view]:
            channel = self._views.pop((tenant, view), None)
            if channel is not None:
                await channel.close()
