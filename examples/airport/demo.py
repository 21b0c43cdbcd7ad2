"""The demo: replays the year, kills the relay in the middle, and checks what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from examples.airport import data, replay, screen
from examples.airport.app import aircraft, airport_hours, app, carrier_delays, routes
from examples.airport.checks import Check, checks, expectations
from examples.airport.data import Change, Flight
from examples.airport.files import queries
from examples.airport.relay_process import RelayProcess
from examples.airport.replay import Lag, Progress

LOOK_EVERY_SECONDS = 0.25
COMMITS_WITHOUT_RELAY = 25
RELAY_MOVES_SECONDS = 20.0
CATCH_UP_SECONDS = 120.0


class Refused(Exception):  # noqa: N818 - read by people
    """The demo cannot run here, and the message says why and what to do."""


@dataclass(frozen=True)
class Source:
    """What is replayed, and what the checks expect of it."""

    days: int
    flights: Sequence[Flight]
    changes: Sequence[Change]

    @staticmethod
    def read(days: int) -> Source:
        """Reads the source; takes a few seconds for the year."""
        flights = data.flights(days)
        return Source(days, flights, data.changes(flights))


class Demo:
    """One run. ``run`` returns whether all checks passed."""

    def __init__(self, folder: Path, days: int, console: Console) -> None:
        self._folder = folder
        self._days = days
        self._console = console
        self._began = time.monotonic()
        self._relay = RelayProcess(folder / "relay.log")

    async def run(self) -> bool:
        """Everything, in order."""
        self._console.print("[bold]A year at New York's airports[/bold], as it happened")
        self._console.print("Reading the source, and starting an embedded Postgres", style="dim")
        reading = asyncio.create_task(asyncio.to_thread(Source.read, self._days))
        async with app:
            await app.deploy()
            source = await reading
            progress = await replay.prepare(app, self._days)
            self._greet(source, progress)
            with self._relay:
                await self._replay(source, progress)
                await self._show_results()
                verified = await self._verify()
                made = await self._check(source, verified)
            await self._report(made, verified)
        return all(check.passed for check in made)

    def _greet(self, source: Source, progress: Progress) -> None:
        total = len(source.changes)
        if progress.days != self._days:
            raise Refused(
                f"{self._folder} holds a replay of {progress.days} days. "
                f"Pass --days {progress.days} to go on with it, or --fresh to start anew."
            )
        if progress.changes_done == total:
            self._console.print(f"The replay of {total:,} events is done; checking it again.")
        elif progress.changes_done:
            self._console.print(f"Going on after {progress.changes_done:,} of {total:,} events.")
        else:
            self._console.print(
                f"{len(source.flights):,} flights, {total:,} events, four views that follow live."
            )

    # The replay ----------------------------------------------------------------------------------

    async def _replay(self, source: Source, progress: Progress) -> None:
        changes, done = source.changes, progress.changes_done
        half, restart_at = len(changes) // 2, None
        killed = progress.relay_kills > 0
        start = await replay.lag(app)
        with screen.Screen(self._console, len(changes)) as shown:
            watching = asyncio.create_task(self._watch(shown, source))
            try:
                last = time.perf_counter()
                for number, (done, part) in enumerate(replay.commits(changes, done)):
                    if not killed and done >= half:
                        await self._kill(shown, start)
                        killed, restart_at = True, number + COMMITS_WITHOUT_RELAY
                        last = time.perf_counter()
                    if number == restart_at:
                        self._restart(shown)
                    now = time.perf_counter()
                    await replay.commit(app, done, part, now - last)
                    last = now
                    self._relay.check()
                await self._catch_up(shown, killed=killed, start=start)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
