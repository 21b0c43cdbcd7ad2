"""The relay: one service that drives all views of an app.

Several relays may run side by side. Each view has a lease, and each relay takes no more than its
share; the watermark's ticker has a lease too. A relay that is killed, paused or cut off loses its
leases in seconds and the others take over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg

from headwater.errors import HeadwaterError, LeaseLost, ViewStale
from headwater.log.database import Connection, Database, connect
from headwater.log.reading import safe_position
from headwater.log.tasks import ended
from headwater.log.ticker import Ticker
from headwater.log.tracing import MAX_LINKS
from headwater.relay.frontier import Frontier
from headwater.relay.leases import SQL, Leases, Standing
from headwater.relay.port import Batch, Target
from headwater.relay.runner import Pace, Progress, Runner, no_traces

_log = logging.getLogger("headwater.relay")

_TICKER = "log/ticker"  # no view has a name with a slash
_TICK_SECONDS = (0.001, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
_POLL_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05)
_MAINTENANCE_SECONDS = 600.0
_WATCH_SECONDS = 5.0


@dataclass(slots=True)
class _Driven:
    runner: Runner
    task: asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class _Stale:
    """A view that this process's definition does not fit; it is left to others until then."""

    until: float
    detail: str | None


@dataclass(slots=True)
class Relay:
    """Drives targets until stopped. ``start`` and ``stop`` are idempotent."""

    database: Database
    targets: Sequence[Target]
    leases: Leases = field(default_factory=Leases)
    pace: Pace = field(default_factory=Pace)
    frontier: Frontier = field(default_factory=Frontier)
    progress: dict[str, Progress] = field(default_factory=dict)
    _driven: dict[str, _Driven] = field(default_factory=dict)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _checkpoints: dict[str, Frontier] = field(default_factory=dict)
    _stale: dict[str, _Stale] = field(default_factory=dict)
    _ticking: bool = False
    _epoch: int | None = None

    async def start(self) -> None:
        """Starts driving; returns at once."""
        if not self._tasks:
            services = (self._hold_leases, self._tick, self._poll, self._watch, self._maintain)
            self._tasks = [asyncio.create_task(self._forever(service)) for service in services]

    async def stop(self) -> None:
        """Lets go: batches under way roll back or commit, leases are given back."""
        tasks, self._tasks = self._tasks, []
        await ended(tasks)
        # A lease that is not ours is not released, so the ticker's needs no asking whether it is.
        names = [*self._driven, f"relay/{self.leases.holder}", _TICKER]
        await asyncio.gather(*(self._drop(name) for name in list(self._driven)))
        if tasks:
            with suppress(HeadwaterError, psycopg.Error):
                async with await self._connect("release") as connection:
                    for name in names:
                        await self.leases.release(connection, name)

    @property
    def driving(self) -> list[str]:
        """The views that this relay drives now."""
        return sorted(self._driven)

    @property
    def standings(self) -> dict[str, Standing]:
        """How each view that this relay drives is, and why."""
        return {name: driven.runner.standing for name, driven in self._driven.items()}

    async def _forever(self, service: Any) -> None:
        """Runs a service on a connection of its own; a lost connection starts it anew."""
        failures = 0
        while True:
            started = time.monotonic()
            try:
                async with await self._connect(service.__name__.strip("_")) as connection:
                    await self._heed_epoch(connection)
                    await service(connection)
            except (psycopg.Error, HeadwaterError, OSError) as error:
                failures = failures + 1 if time.monotonic() - started < 10 else 1
                first_line = str(error).partition("\n")[0]
                _log.warning(
                    "%s: %s: %s", service.__name__.strip("_"), type(error).__name__, first_line
                )
                await asyncio.sleep(min(0.05 * 2**failures, 5.0))

    async def _heed_epoch(self, connection: Connection) -> None:
        """After a restore or a failover, forgets how far the log was: its end may be gone."""
        cursor = await connection.execute(SQL["relay.check_epoch"])
        row = await cursor.fetchone()
        assert row is not None
        known, self._epoch = self._epoch, row[0]
        if known is not None and known != self._epoch:
            _log.warning("the log is of epoch %s now: it was restored or failed over", row[0])
            self.frontier.reset(await safe_position(connection))

    def _connect(self, purpose: str) -> Coroutine[Any, Any, Connection]:
        return connect(self.database.url, "headwater_relay", name=f"headwater relay {purpose}")

    # Leases ------------------------------------------------------------------------------------

    async def _hold_leases(self, connection: Connection) -> None:
        # Who was cut off holds nothing any more, and a crash may have taken back what its views did last, which
        # need not move the watermark: each is taken anew, from where the database says it is.
        for name in list(self._driven):
            await self._drop(name)
            await self.leases.release(connection, name)
        me = f"relay/{self.leases.holder}"
        while True:
            for name in [n for n, driven in self._driven.items() if driven.task.done()]:
                await self._let_go(connection, name)
            held = {name: driven.runner.standing for name, driven in self._driven.items()}
            fitting = await self._fitting(connection)
            drives = Standing(detail=" ".join(fitting))
            ours = await self.leases.renew(connection, held | {me: drives})
            for name in held.keys() - ours:
                await self._drop(name)
            if me not in ours:
                await self.leases.acquire(connection, me)
                continue  # and say what it drives, before shares are counted
            await self._take_share(connection, fitting)
            await asyncio.sleep(self.leases.seconds / 5)

    async def _take_share(self, connection: Connection, fitting: Sequence[str]) -> None:
        """Takes free views up to this relay's share, and gives back what is above it.

        Others it tries now and then beside the share, to say that they do not fit, if nobody drives them.
        """
        share = await self.leases.share(connection, fitting)
        for name in sorted(self._driven.keys() & set(fitting))[share:]:
            await self._drop(name)
            await self.leases.release(connection, name)
        for target in self._drivable():
            is_full = len(self._driven.keys() & set(fitting)) >= share
            if target.name in self._driven or (is_full and target.name in fitting):
                continue
            fence = await self.leases.acquire(connection, target.name)
            if fence is not None:
                self._drive(target, fence)

    async def _fitting(self, connection: Connection) -> list[str]:
        """The views that this relay says it drives: those whose data follows from the definition it knows.

        Were others counted for it, they would be missing in the share of the relay that they fit.
        """
        return [target.name for target in self.targets if await target.fits(connection)]

    def _drivable(self) -> list[Target]:
        """The targets that this relay may drive now: all but those found stale a moment ago.

        Another version of the app, side by side with this one, may know the definition that fits.
        """
        now = time.monotonic()
        return [t for t in self.targets if (s := self._stale.get(t.name)) is None or s.until <= now]

    async def _let_go(self, connection: Connection, name: str) -> None:
        """Gives back a view whose runner has ended."""
        standing = self._driven[name].runner.standing
        await self._drop(name)
        known = self._stale.pop(name, None)
        if standing.state != "stale":
            await self.leases.release(connection, name)
            return
        if known is None or known.detail != standing.detail:
            _log.warning("%s: %s", name, standing.detail)
        # Any other relay looks for free views at least once in this time.
        self._stale[name] = _Stale(time.monotonic() + 2 * self.leases.seconds / 5, standing.detail)
        await self.leases.release(connection, name, standing)

    def _drive(self, target: Target, fence: int) -> None:
        progress = self.progress.setdefault(target.name, Progress())
        runner = Runner(
            target,
            fence,
            self._frontier_of(target),
            self.pace,
            progress=progress,
            traces=self._traces if target.frontier is None else no_traces,
        )
        task = asyncio.create_task(self._run(runner), name=f"view {target.name}")
        self._driven[target.name] = _Driven(runner, task)

    async def _traces(self, batch: Batch) -> list[str]:
        async with self.database.connection() as connection:
            cursor = await connection.execute(
                SQL["relay.traces"],
                {"after": batch.after, "upto": batch.upto, "max_rows": MAX_LINKS},
            )
            return [row[0] for row in await cursor.fetchall()]

    def _frontier_of(self, target: Target) -> Frontier:
        """How far a target may read: the log's watermark, the checkpoint of the view it follows, or its own source."""
        if target.frontier is not None:
            return target.frontier
        if target.follows is None:
            return self.frontier
        return self._checkpoints.setdefault(target.follows, Frontier())

    async def _run(self, runner: Runner) -> None:
        with suppress(LeaseLost, ViewStale):
            await runner.run()

    async def _drop(self, name: str) -> None:
        driven = self._driven.pop(name, None)
        if driven is not None:
            await ended([driven.task])
            if not driven.task.cancelled() and (error := driven.task.exception()) is not None:
                _log.error("%s ended: %r", name, error)

    # The watermark -----------------------------------------------------------------------------

    async def _tick(self, connection: Connection) -> None:
        """Publishes the watermark while this relay holds the ticker's lease."""
        self._ticking = False
        ticker = Ticker(connection)
        renewed = time.monotonic()
        idle = 0
        try:
            while True:
                if not self._ticking:
                    fence = await self.leases.acquire(connection, _TICKER)
                    if fence is None:
                        await asyncio.sleep(self.leases.seconds / 5)
                        continue
                    self._ticking, renewed = True, time.monotonic()
                if time.monotonic() - renewed > self.leases.seconds / 5:
                    if not await self.leases.renew(connection, {_TICKER: Standing()}):
                        self._ticking = False
                        continue
                    renewed = time.monotonic()
                active = await ticker.tick()
                self.frontier.advance(ticker.published)
                idle = 0 if active else min(idle + 1, len(_TICK_SECONDS) - 1)
                await asyncio.sleep(_TICK_SECONDS[idle])
        finally:
            self._ticking = False

    async def _poll(self, connection: Connection) -> None:
        """Learns the watermark that another relay publishes."""
        idle = 0
        while True:
            before = self.frontier.position
            if not self._ticking or before < 0:
                self.frontier.advance(await safe_position(connection))
            if self._checkpoints:
                cursor = await connection.execute(
                    SQL["relay.checkpoints"], {"views": list(self._checkpoints)}, prepare=True
                )
                for view, position in await cursor.fetchall():
                    self._checkpoints[view].reset(position)
            idle = 0 if self.frontier.position > before else min(idle + 1, len(_POLL_SECONDS) - 1)
            await asyncio.sleep(_POLL_SECONDS[idle])

    # Care --------------------------------------------------------------------------------------

    async def _watch(self, connection: Connection) -> None:
        """Ends transactions that appended and then sat idle past the limit: they hold readers back."""
        while True:
            cursor = await connection.execute(SQL["relay.end_idle"])
            for pid, idle_seconds in await cursor.fetchall():
                _log.warning(
                    "ended the transaction of process %s: it appended, then idled for %.0f s",
                    pid,
                    idle_seconds,
                )
            await asyncio.sleep(_WATCH_SECONDS)

    async def _maintain(self, connection: Connection) -> None:
        """Attaches blocks ahead, enters the month's block, purges expired idempotency keys."""
        while True:
            await connection.execute(SQL["relay.maintain"])
            await asyncio.sleep(_MAINTENANCE_SECONDS)
