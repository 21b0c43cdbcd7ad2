"""What is done to an installation and when: drawn from a seed, written down before it is done. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from types import MappingProxyType

import msgspec

from headwater.testing.faults import FOLD_POINTS, JOB_POINTS, SAGA_POINTS
from simulation.shop import CAPTURED, PERSONS, TENANTS

RELAYS = ("relay-0", "relay-1")
WORKERS = ("worker-0", "worker-1")
LOADS = ("load-python", "load-sql", "load-http")
PROCESSES = (*RELAYS, *WORKERS, *LOADS)
REBUILT = ("fast", "folded", "summed", "known", "analytic", "archive", "typed")
HELD = (
    "fast",
    "folded",
    "summed",
    "archive",
    "analytic",
    "typed",
    "known_fast",
    "sagas",
    "log/ticker",
)
DRIVEN = ("folded", "fast", "known", "known_fast", "stock")
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
    return [(0, "kill", f"holder of {random.choice(HELD)}")]


def _die(random: Random, _: float) -> list[tuple[float, str, str]]:
    """At a named point of what it does, some calls from now."""
    kind = random.choice(("view", "view", "view", "job", "saga"))
    points = {"view": FOLD_POINTS, "job": JOB_POINTS, "saga": SAGA_POINTS}[kind]
    whom = random.choice(RELAYS if kind == "view" else WORKERS)
    what = f"view {random.choice(DRIVEN)}" if kind == "view" else kind
    return [(0, "doom", f"{whom}: {what}: {random.choice(points)}: call {random.randint(1, 12)}")]


def _pause(random: Random, _: float) -> list[tuple[float, str, str]]:
    whom = random.choice((*WORKERS, *(f"holder of {name}" for name in HELD)))
    return [(0, "pause", whom), (PAST_LEASE_SECONDS, "resume", "all that are paused")]


def _pause_redis_relay(random: Random, _: float) -> list[tuple[float, str, str]]:
    whom = f"holder of {random.choice(('fast', 'known_fast'))}"
    return [(0, "pause", whom), (PAST_LEASE_SECONDS, "resume", "all that are paused")]


def _postgres_down(random: Random, _: float) -> list[tuple[float, str, str]]:
    return [(0, "kill", "postgres"), (random.uniform(0.2, 3), "start", "postgres")]


def _postgres_restarts(_: Random, __: float) -> list[tuple[float, str, str]]:
    return [(0, "restart", "postgres")]


def _redis_down(random: Random, _: float) -> list[tuple[float, str, str]]:
    return [(0, "kill", "redis"), (random.uniform(0.2, 3), "start", "redis")]


def _redis_slow(random: Random, _: float) -> list[tuple[float, str, str]]:
    return [(0, "pause", "redis"), (random.uniform(0.3, 4), "resume", "redis")]


def _postgres_slow(random: Random, _: float) -> list[tuple[float, str, str]]:
    return [
        (0, "pause", f"{random.randint(1, 8)} backends"),
        (random.uniform(0.3, 4), "resume", "backends"),
    ]


def _crowd(random: Random, _: float) -> list[tuple[float, str, str]]:
    return [(0, "fill", "connections"), (random.uniform(0.5, 3), "free", "connections")]


def _owner(_: Random, __: float) -> list[tuple[float, str, str]]:
    return [(0, "kill", "owner of clickhouse")]


def _clock(random: Random, _: float) -> list[tuple[float, str, str]]:
    seconds = random.choice((-86_400, -600, -5, 5, 600, 86_400))
    return [(0, "jump", f"{random.choice(PROCESSES)}: {seconds:+} seconds")]


def _forget(random: Random, _: float) -> list[tuple[float, str, str]]:
    return [(0, "forget", f"{random.choice(TENANTS)}/{random.choice(PERSONS)}")]


def _deploy(_: Random, __: float) -> list[tuple[float, str, str]]:
    return [(0, "deploy", "the newer app")]


def _alter(_: Random, __: float) -> list[tuple[float, str, str]]:
    return [(0, "alter", CAPTURED)]


def _rebuild(random: Random, _: float) -> list[tuple[float, str, str]]:
    return [(0, "rebuild", random.choice(REBUILT))]


def _terminate(random: Random, _: float) -> list[tuple[float, str, str]]:
    return [(0, "terminate", f"{random.randint(1, 12)} connections")]


FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "kill a process": Fault(8, _kill),
        "kill a lease holder": Fault(4, _kill_holder),
        "pause past the lease": Fault(4, _pause),
        "pause the relay of a Redis view": Fault(1, _pause_redis_relay),
        "Postgres is down": Fault(2, _postgres_down),
        "Postgres restarts at once": Fault(1, _postgres_restarts),
        "Redis is down": Fault(2, _redis_down),
        "Redis is slow": Fault(2, _redis_slow),
        "Postgres is slow": Fault(2, _postgres_slow),
        "no connection is left": Fault(2, _crowd),
        "ClickHouse is killed": Fault(2, _owner),
        "die at a point": Fault(6, _die),
        "a clock jumps": Fault(2, _clock),
        "rebuild": Fault(3, _rebuild),
        "forget a person": Fault(3, _forget),
        "deploy": Fault(2, _deploy),
        "change the captured table": Fault(1, _alter),
        "end connections": Fault(3, _terminate),
    }
)
"""Every kind of fault, by name. To add one: how it is drawn here, how it is done in ``Installation``."""


def draw(
    seed: str, seconds: float, *, faults: int | None = None, only: Sequence[str] = ()
) -> Schedule:
    """The schedule of a seed: four to nine faults, or so many, in the given seconds of load, and when the table is captured.

    ``only`` names the kinds to draw from; by default all.
    """
    random = Random(seed)
    names = random.choices(
        only or list(FAULTS),
        [FAULTS[name].weight for name in only or FAULTS],
        k=random.randint(4, 9) if faults is None else faults,
    )
    begins = random.uniform(0, seconds / 2)
    steps = [Step(round(begins, 3), "capture", CAPTURED, "")]
    for name in names:
        begins = random.uniform(0.5, seconds)
        steps += [
            Step(round(begins + after, 3), do, whom, name)
            for after, do, whom in FAULTS[name].draw(random, seconds)
        ]
    return Schedule(seed, seconds, tuple(sorted(steps)))
