"""Rounds: a schedule played to a fresh installation, and what the checks found."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import msgspec

from simulation.checks import Check, check
from simulation.ground import Ground
from simulation.installation import installation
from simulation.schedule import Schedule

LOG_LINES = 15
COUNTED = ("events", "jobs", "sagas", "changes of the captured table", "persons forgotten")
MOST_SECONDS = 180.0
"""How long a round may take beyond its load."""


class Round(msgspec.Struct):
    """What came of one schedule. ``failures`` are the promises that did not hold, ``rebuilt`` rebuilds' exit codes.

    ``counts`` are of what there was to check, by ``COUNTED``.
    """

    schedule: Schedule
    trace: list[str]
    checks: int
    failures: list[Check]
    counts: dict[str, int]
    rebuilt: list[int]
    seconds: float
    logs: dict[str, list[str]]

    @property
    def faults(self) -> Counter[str]:
        """How many of each kind."""
        after = {"start", "resume", "free"}
        return Counter(s.fault for s in self.schedule.steps if s.fault and s.do not in after)

    @property
    def missed(self) -> int:
        """How many steps met nobody: the process was not there, or no server could say which it is."""
        return sum(line.endswith("nobody") or ": not done" in line for line in self.trace)

    @property
    def report(self) -> str:
        """Everything that is known about a failure."""
        parts = [
            "FAILED", *(f"  {found}" for found in self.failures),
            "The schedule, for --schedule FILE:", self.schedule.text,
            "What was done when:", *(f"  {line}" for line in self.trace),
        ]  # fmt: skip
        for name, lines in self.logs.items():
            parts += [f"The last of {name}:", *(f"  {line}" for line in lines)]
        return "\n".join(parts)


async def play(ground: Ground, schedule: Schedule, broken: str = "") -> Round:
    """Plays one schedule and checks the promises."""
    began = time.monotonic()
    async with installation(ground, schedule, broken) as made:
        try:
            async with asyncio.timeout(schedule.seconds + MOST_SECONDS):
                await made.play(schedule)
                checks = await check(made)
        except TimeoutError:
            stuck = f"{MOST_SECONDS:.0f} s after its load the round was at: {made.trace[-1:]}"
            checks = [Check("nothing waits for ever: a round comes to its end", [stuck])]
        failures = [found for found in checks if found.problems]
        told = made.processes.told
        (counts,) = await made.server.admin("simulation.counts")
        return Round(
            schedule=schedule,
            trace=made.trace,
            checks=len(checks),
            failures=failures,
            counts={**dict(zip(COUNTED, counts, strict=True)), "reads by token": told.reads},
            rebuilt=made.faults.rebuilt,
            seconds=time.monotonic() - began,
            logs=_logs(made.folder) if failures else {},
        )


def _logs(folder: Path) -> dict[str, list[str]]:
    return {
        file.name: file.read_text(errors="replace").splitlines()[-LOG_LINES:]
        for file in sorted(folder.glob("*.log"))
    }
