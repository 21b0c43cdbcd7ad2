"""Driving a generation that nobody reads yet, or a slice of one, under a lease of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from headwater.errors import LeaseLost, ViewStale
from headwater.log.database import Connection, Database
from headwater.relay import Frontier, Leases, Pace, Runner, Standing
from headwater.views.driving.view import DrivenView

Report = Callable[[int, int], None]
"""Hears of progress: the position that was applied, and the one to reach."""

_POLL_SECONDS = 0.02
_TARGET_SECONDS = 5.0


@dataclass(slots=True)
class Building:
    """One generation, or slice, as it is built. ``view`` has the row that says which."""

    database: Database
    view: DrivenView
    pace: Pace
    leases: Leases = field(default_factory=Leases)
    _renewing: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        """Nobody waits for what a batch writes, so it may be larger, and each row is written fewer times."""
        self.pace = replace(self.pace, longest_pause_seconds=0.0)
        if (longest := self.view.max_built) > self.view.max_batch:
            self.view.max_batch = longest
            self.pace = replace(self.pace, first_batch=longest, target_seconds=_TARGET_SECONDS)

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[int]:
        """Its lease, renewed until the end of the block; the fence. Raises LeaseLost where another has it."""
        row = self.view.record.row
        async with self.database.connection() as connection:
            fence = await self.leases.acquire(connection, row)
            if fence is None:
                raise self.taken()
            self._renewing = asyncio.create_task(self._renew(connection), name=f"lease {row}")
            try:
                yield fence
            finally:
                self._renewing.cancel()
                await asyncio.gather(self._renewing, return_exceptions=True)
                await self.leases.release(connection, row)

    async def drive(
        self, fence: int, upto: int, report: Report | None = None, pace: Pace | None = None
    ) -> None:
        """Drives it up to a position. Raises LeaseLost where another process took it over."""
        frontier = Frontier()
        frontier.advance(upto)
        runner = Runner(self.view, fence, frontier, pace or self.pace)
        running = asyncio.create_task(runner.run(), name=f"rebuild {self.view.name}")
        try:
            while runner.progress.checkpoint < upto and not running.done():
                await asyncio.sleep(_POLL_SECONDS)
                self.check_lease()
                if report is not None:
                    report(runner.progress.checkpoint, upto)
        finally:
            running.cancel()
            result = (await asyncio.gather(running, return_exceptions=True))[0]
        if isinstance(result, ViewStale):
            raise self.taken() from result  # another process has swapped, or thrown it away
        if isinstance(result, Exception):
            raise result

    async def _renew(self, connection: Connection) -> None:
        """Renews the lease until it is lost, by the session that took it."""
        ours = True
        while ours:
            await asyncio.sleep(self.leases.seconds / 5)
            held = {self.view.record.row: Standing(detail="rebuild")}
            ours = bool(await self.leases.renew(connection, held))

    def check_lease(self) -> None:
        """Raises LeaseLost where the lease is no longer renewed."""
        if self._renewing is not None and self._renewing.done():
            self._renewing.result()  # a database that could not be reached
            raise self.taken()

    def taken(self) -> LeaseLost:
        """What is raised where another process builds it."""
        return LeaseLost(
            f"Another process rebuilds {self.view.name!r}, or ended a moment ago.",
            hint=f"Wait for it, or try again in {self.leases.seconds:g} s.",
        )
