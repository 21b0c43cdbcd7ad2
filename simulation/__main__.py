"""``python -m simulation``: rounds of load under faults until the time is over, then a summary.

Exit code 1 where a promise did not hold; with ``--broken``, where all held.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import SystemRandom

import msgspec

from simulation.doubles import BROKEN, faults_for
from simulation.ground import ground
from simulation.rounds import Round, play
from simulation.schedule import Schedule, draw

ROUND_SECONDS = 9.0
MOST_BROKEN_ROUNDS = 20


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("--seed", help="what all is drawn from; default a random one")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long rounds begin")
    parser.add_argument("--seconds", type=float, default=ROUND_SECONDS, help="the load of a round")
    parser.add_argument("--schedule", type=Path, help="play this one instead")
    parser.add_argument(
        "--again", type=int, default=20, help="how often a failed schedule is played again"
    )
    parser.add_argument(
        "--broken", choices=sorted(BROKEN), help="with this double, which must be caught"
    )
    return parser.parse_args()


def _schedules(options: argparse.Namespace, seed: str) -> Iterator[Schedule]:
    """One for each round, until the time is over."""
    if options.schedule is not None:
        yield Schedule.parse(options.schedule.read_bytes())
        return
    until = time.monotonic() + options.minutes * 60
    number = 0
    while time.monotonic() < until or (options.broken and number < MOST_BROKEN_ROUNDS):
        yield draw(f"{seed}/{number}", options.seconds, only=faults_for(options.broken or ""))
        number += 1


async def _run(options: argparse.Namespace) -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # and clean up
    seed = options.seed or str(SystemRandom().randrange(10**6))
    _say(f"seed {seed}")
    broken = options.broken or ""
    rounds: list[Round] = []
    async with ground() as made:
        for schedule in _schedules(options, seed):
            played = await play(made, schedule, broken)
            rounds.append(played)
            _say(_line(played))
            if played.failures:
                break
        if rounds[-1].failures and not broken:
            _say(rounds[-1].report)
            again = [await play(made, rounds[-1].schedule) for _ in range(options.again)]
            failed = sum(bool(one.failures) for one in again)
            _say(f"Played {options.again} times again, that schedule failed {failed} times.")
            rounds += again
    _summarise(rounds, seed, broken)
    caught = any(one.failures for one in rounds)
    if broken:
        _say(
            f"The broken {broken} was {'caught' if caught else 'NOT caught'} in round {len(rounds)}."
        )
    return int(caught != bool(broken))


def _line(played: Round) -> str:
    faults = ", ".join(f"{name} {count}" for name, count in played.faults.items())
    outcome = "held" if not played.failures else "; ".join(map(str, played.failures))
    counts = ", ".join(f"{count:,} {name}" for name, count in played.counts.items())
    return f"round {played.schedule.seed}: {played.seconds:.0f} s, {counts}; {faults or 'no faults'}: {outcome}"


def _summarise(rounds: Sequence[Round], seed: str, broken: str) -> None:
    faults: Counter[str] = Counter()
    for one in rounds:
        faults += one.faults
    failed = [one for one in rounds if one.failures]
    table = {
        "rounds": len(rounds),
        "rounds that failed": len(failed),
        **sum((Counter(one.counts) for one in rounds), Counter()),
        "checks": sum(one.checks for one in rounds),
        "rebuilds that ended well": sum(one.rebuilt.count(0) for one in rounds),
        "rebuilds that a fault ended": sum(
            len(one.rebuilt) - one.rebuilt.count(0) for one in rounds
        ),
        "steps that met nobody": sum(one.missed for one in rounds),
        **{f"fault: {name}": count for name, count in sorted(faults.items())},
    }
    for name, count in table.items():
        _say(f"{name:<36}{count:>10,}")
    result = {"seed": seed, "broken": broken, "summary": table, "failed": failed}
    Path("build").mkdir(exist_ok=True)
    Path("build/simulate.json").write_bytes(msgspec.json.format(msgspec.json.encode(result)))


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # that Postgres is down is known
    try:
        sys.exit(asyncio.run(_run(_arguments())))
    except asyncio.CancelledError:
        sys.exit("Ended by SIGTERM; nothing is left behind.")
