"""The replay with its relay beside it, which is killed in the middle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from examples.airport import data, replay
from examples.airport.app import app
from examples.airport.data import Change, Flight
from examples.airport.relay_process import RelayEnded, RelayProcess
from examples.airport.replay import Lag, Progress
from examples.airport.screen import Screen

LOOK_EVERY_SECONDS = 0.2
EVENTS_WITHOUT_RELAY = 50_000
STANDSTILL_SECONDS = 60.0


class Source(NamedTuple):
    """What is replayed: the flights of the year's first days, and all that happens to them."""

    days: int
    flights: Sequence[Flight]
    changes: Sequence[Change]

    @staticmethod
    def read(days: int) -> Source:
        """Reads the source; takes a few seconds for the year."""
        flights = data.flights(days)
        return Source(days, flights, data.changes(flights))


class LiveReplay:
    """Commits what is left of the source while the views follow. ``run`` ends when they have it all."""

    def __init__(
        self, source: Source, progress: Progress, relay: RelayProcess, screen: Screen
    ) -> None:
        self._source = source
        self._relay = relay
        self._screen = screen
        self._total = len(source.changes)
        self._done = progress.changes_done
        self._kills = progress.relay_kills
        self._restart_at: int | None = None
        self._stood_since = time.monotonic()
        self._positions: list[int] = []

    async def run(self) -> None:
        """Raises RelayEnded, Overtaken and HeadwaterError."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._commit())
                tasks.create_task(self._watch())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _commit(self) -> None:
        last = time.perf_counter()
        for start, changes in replay.commits(self._source.changes, self._done):
            now = time.perf_counter()
            await replay.commit(app, start, changes, now - last)
            last = now
            self._done = start + len(changes)

    async def _watch(self) -> None:
        while True:
            lags = await replay.lag(app)
            last = self._source.changes[max(self._done - 1, 0)]
            self._screen.show(self._done, data.instant(last.minute), lags)
            self._relay.check()
            await self._kill_and_restart(lags)
            caught_up = all(view.behind == 0 for view in lags)
            if self._done == self._total and self._kills and self._relay.running and caught_up:
                return
            self._check_standstill(lags)
            await asyncio.sleep(LOOK_EVERY_SECONDS)

    async def _kill_and_restart(self, lags: Sequence[Lag]) -> None:
        """Kills the relay at half of the events, once in the life of a replay."""
        if not self._kills and 2 * self._done >= self._total:
            self._relay.kill()
            self._kills = await replay.relay_killed(app)
            self._restart_at = min(self._done + EVENTS_WITHOUT_RELAY, self._total)
            self._screen.say(
                f"[bold red]kill -9[/] for the relay, after {self._done:,} events. "
                "Its views stand still, and the application goes on."
            )
            self._screen.say_behind(await replay.lag(app))
        elif self._restart_at is not None and self._done >= self._restart_at:
            self._restart_at = None
            self._relay.start()
            self._screen.say("[bold green]A new relay[/] starts, and takes over.")
            self._screen.say_behind(lags)

    def _check_standstill(self, lags: Sequence[Lag]) -> None:
        positions = [view.position for view in lags]
        if self._done < self._total or positions != self._positions:
            self._positions, self._stood_since = positions, time.monotonic()
        elif time.monotonic() - self._stood_since > STANDSTILL_SECONDS:
            raise RelayEnded(
                f"The views have not moved for {STANDSTILL_SECONDS:.0f} s. See {self._relay.log}."
            )
