"""``make race``: installs the peers, runs all contestants in turn, prints a table and writes build/race.json."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import msgspec
import psycopg

from bench.ground import Ground, ground
from race import runs
from race.contestants import CONTESTANTS, DISCIPLINES
from race.environments import CannotRun, Environment, prepare
from race.results import LIMIT, OURS, Case, ordered, table, unknown

FOLDER = Path("build/race")
PEERS = [name for name in CONTESTANTS if name not in {OURS, LIMIT}]


@dataclass
class Race:
    """What has been asked for, and what has been found so far."""

    disciplines: Sequence[str]
    rounds: int
    peers: Sequence[str]
    cases: list[Case] = field(default_factory=list)
    environments: dict[str, Environment] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def contestants(self, discipline: str) -> list[str]:
        """Who takes part: the raw limit, Headwater, and the peers that were asked for."""
        return [
            name
            for name in DISCIPLINES[discipline].settings
            if name in {OURS, LIMIT} or name in self.peers
        ]

    def install(self) -> None:
        """Makes the environments; says who cannot take part, and why."""
        wanted = dict.fromkeys(name for one in self.disciplines for name in self.contestants(one))
        for name in wanted:
            print(f"installing {CONTESTANTS[name].title}", file=sys.stderr, flush=True)
            try:
                self.environments[name] = prepare(name, CONTESTANTS[name], FOLDER.resolve())
            except CannotRun as reason:
                self.absent[name] = str(reason)

    def run(self, place: Ground) -> None:
        """All rounds of all disciplines."""
        with psycopg.connect(place.server.url()) as admin:
            self.versions["postgres"] = str(admin.info.parameter_status("server_version"))
        for discipline in self.disciplines:
            cases = [Case(discipline, measure) for measure in DISCIPLINES[discipline].measures]
            self.cases += cases
            for turn in range(self.rounds):
                for name in self.contestants(discipline):
                    if name in self.environments:
                        self._run_one(place, discipline, name, turn, cases)

    def _run_one(
        self, place: Ground, discipline: str, name: str, turn: int, cases: list[Case]
    ) -> None:
        database = f"race_{discipline}_{name}"
        label = f"{discipline}, round {turn + 1}, {CONTESTANTS[name].title}"
        began = time.monotonic()
        with place.database(database) as admin_url:
            ours = name == OURS
            url = asyncio.run(place.migrated(admin_url, database)) if ours else admin_url
            try:
                figures = runs.run(
                    name, CONTESTANTS[name], self.environments[name], discipline, url,
                    DISCIPLINES[discipline].work,
                )  # fmt: skip
            except runs.RunFailed as failure:
                self.failures.append(f"{label}: {failure}")
                print(self.failures[-1], file=sys.stderr, flush=True)
                return
        seconds = time.monotonic() - began
        print(f"{label}: {figures} ({seconds:.0f} s)", file=sys.stderr, flush=True)
        for case in cases:
            if case.measure.key in figures:
                case.rounds.setdefault(name, []).append(figures[case.measure.key])

    def report(self) -> str:
        """The table, then who did not take part and what failed."""
        titles = {name: contestant.title for name, contestant in CONTESTANTS.items()}
        lines = [table(self.cases, titles)]
        lines += [f"not run: {titles[name]}: {why}" for name, why in self.absent.items()]
        lines += [f"failed: {failure}" for failure in self.failures]
        return "\n".join(lines)

    def record(self) -> dict[str, object]:
        """What build/race.json holds."""
        return {
            "machine": {
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                "system": platform.platform(),
                "load": os.getloadavg(),
                **self.versions,
            },
            "versions": {name: found.versions for name, found in self.environments.items()},
            "settings": {
                one: {"work": DISCIPLINES[one].work, **DISCIPLINES[one].settings}
                for one in self.disciplines
            },
            "cases": [
                {
                    "discipline": case.discipline,
                    "measure": case.measure,
                    "rounds": case.rounds,
                    "medians": case.medians,
                    "ahead_of_best_peer": case.ratio,
                }
                for case in ordered(self.cases)
            ],
            "not_run": self.absent,
            "failures": self.failures,
        }


def _interrupt(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)  # by way of every `finally`


def parsed(arguments: Sequence[str]) -> Race:
    """The race that the command line asks for. Ends the program at names that there are not."""
    parser = argparse.ArgumentParser(prog="python -m race")
    parser.add_argument("discipline", nargs="*", help=f"only these: {', '.join(DISCIPLINES)}")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contestant, in turn")
    parser.add_argument("--peers", nargs="*", default=PEERS, help=f"only: {', '.join(PEERS)}")
    options = parser.parse_args(arguments)
    for problem in (
        unknown(options.discipline, DISCIPLINES, "discipline"),
        unknown(options.peers, PEERS, "peer"),
        None if options.rounds >= 1 else "--rounds must be at least 1",
    ):
        if problem:
            parser.error(problem)
    return Race(options.discipline or list(DISCIPLINES), options.rounds, options.peers)


def main() -> None:
    """Ends with 1 where a contestant failed."""
    race = parsed(sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    race.install()
    place = ground(FOLDER / "postgres", wal_level="logical")  # for Debezium, and so for all
    place.server.start()
    try:
        race.run(place)
    finally:
        place.server.stop()
    print(race.report())
    record = msgspec.json.format(msgspec.json.encode(race.record()))
    Path("build/race.json").write_bytes(record)
    sys.exit(1 if race.failures else 0)


if __name__ == "__main__":
    main()
