"""How far the log is published: one poll per process, however many wait, and none while nobody does."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import psycopg

from headwater.errors import HeadwaterError, NotCaughtUp
from headwater.log.database import Database
from headwater.log.reading import safe_position
from headwater.log.tasks import ended

_POLL_SECONDS = (0.001, 0.001, 0.002, 0.002, 0.003, 0.005)


class Watermark:
    """Follows the published watermark while someone waits for it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: set[asyncio.Future[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self.position = -1
        """The watermark when it was last looked at; it may be higher by now."""

    async def beyond(self, position: int, *, timeout_seconds: float) -> int:
        """The watermark, once it is beyond a position; or what it is when the time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        while self.position <= position and (left := deadline - loop.time()) > 0:
            moved: asyncio.Future[None] = loop.create_future()
            self._waiting.add(moved)
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._poll())
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await moved
            finally:
                self._waiting.discard(moved)
        return self.position

    async def reached(self, position: int, *, timeout_seconds: float) -> None:
        """Returns once the log is published up to a position. Raises NotCaughtUp."""
        if await self.beyond(position - 1, timeout_seconds=timeout_seconds) < position:
            raise NotCaughtUp(
                f"The log was not published up to position {position} within {timeout_seconds:g} s.",
                hint="Try again; headwater doctor says whether a relay is alive and what holds it up.",
            )

    async def close(self) -> None:
        """Ends the poll. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            await ended([task])

    async def _poll(self) -> None:
        while self._waiting:
            try:
                async with self._database.connection() as connection:
                    idle = 0
                    while self._waiting:
                        position = await safe_position(connection)
                        if position != self.position:
                            self.position, idle = position, 0
                            self._wake()
                        await asyncio.sleep(_POLL_SECONDS[idle])
                        idle = min(idle + 1, len(_POLL_SECONDS) - 1)
            except (psycopg.Error, HeadwaterError):
                await asyncio.sleep(0.1)  # whoever waits has a time limit of their own

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for moved in waiting:
            if not moved.done():
                moved.set_result(None)
