"""What is done to an installation and when: drawn from a seed, written down before it is done. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType

import msgspec

RELAYS = ("relay-0", "relay-1")
WORKERS = ("worker-0", "worker-1")
LOADS = ("load-python", "load-sql", "load-http")
PROCESSES = (*RELAYS, *WORKERS, *LOADS)
REBUILT = ("fast", "folded", "summed")
PAST_LEASE_SECONDS = 6.5
"""Relays' leases run out after 5 seconds, workers' here after 2."""


class Step(msgspec.Struct, frozen=True, order=True):
    """One thing done at a time after the round's beginning, to whom; ``fault`` is what it is part of."""

    at_seconds: float
    do: str
    whom: str
    fault: str


class Schedule(msgspec.Struct, frozen=True):
    """One round. ``seed`` also draws what the load does; how processes interleave is the machine's."""

    seed: str
    seconds: float
    steps: tuple[Step, ...]

    @property
    def text(self) -> str:
        """As it is printed, and read again from a file."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1).decode()

    @staticmethod
    def parse(text: str | bytes) -> Schedule:
        """The schedule in a text. Raises msgspec.DecodeError."""
        return msgspec.json.decode(text, type=Schedule)


@dataclass(frozen=True)
class Fault:
    """A kind of fault: how likely it is, and its steps from the moment that it begins.

    A step is (seconds after the beginning, what is done, to whom).
    """

    weight: int
    draw: Callable[[Random, float], list[tuple[float, str, str]]]


def _kill(random: Random, _: float) -> list[tuple[float, str, str]]:
    whom = random.choice(PROCESSES)
    return [(0, "kill", whom), (random.uniform(0.1, 2), "start", whom)]


def _kill_holder(random: Random, _: float) -> list[tuple[float, str, str]]:
    """The relay that drives a view, at a moment when it does."""
    return [(0, "kill", f"holder of {random.choice(('fast', 'folded', 'summed', 'log/ticker'))}")]


def _pause(random: Random, _: float) -> list[tuple[float, str, str]]:
    held = ("holder of fast", "holder of fast", "holder of summed", "holder of log/ticker")
    whom = random.choice((*WORKERS, *held))
    return [(0, "pause", whom), (PAST_LEASE_SECONDS, "resume", "all that are paused")]


def _postgres_down(random: Random, _: float) -> list[tuple[float, str, str]]:
    return [(0, "kill", "postgres"), (random.uniform(0.2, 3), "start", "postgres")]


def _postgres_restarts(_: Random, __: float) -> list[tuple[float, str, str]]:
    return [(0, "restart", "postgres")]


def _redis_down(random: Random, _: float) -> list[tuple[float, str, str]]:
    return [(0, "kill", "redis"), (random.uniform(0.2, 3), "start", "redis")]


def _rebuild(random: Random, _: float) -> list[tuple[float, str, str]]:
    return [(0, "rebuild", random.choice(REBUILT))]


def _terminate(random: Random, _: float) -> list[tuple[float, str, str]]:
    return [(0, "terminate", f"{random.randint(1, 12)} connections")]


FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "kill a process": Fault(8, _kill),
        "kill a lease holder": Fault(4, _kill_holder),
        "pause past the lease": Fault(5, _pause),
        "Postgres is down": Fault(2, _postgres_down),
        "Postgres restarts at once": Fault(1, _postgres_restarts),
        "Redis is down": Fault(2, _redis_down),
        "rebuild": Fault(2, _rebuild),
        "end connections": Fault(3, _terminate),
    }
)
"""Every kind of fault, by name. To add one: how it is drawn here, how it is done in ``Installation``."""


def draw(seed: str, seconds: float, *, faults: int | None = None) -> Schedule:
    """The schedule of a seed: three to seven faults, or so many, in the given seconds of load."""
    random = Random(seed)
    names = random.choices(
        list(FAULTS),
        [fault.weight for fault in FAULTS.values()],
        k=random.randint(3, 7) if faults is None else faults,
    )
    steps: list[Step] = []
    for name in names:
        begins = random.uniform(0.5, seconds)
        steps += [
            Step(round(begins + after, 3), do, whom, name)
            for after, do, whom in FAULTS[name].draw(random, seconds)
        ]
    return Schedule(seed, seconds, tuple(sorted(steps)))
