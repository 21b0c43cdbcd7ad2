"""Queues of random limits, worked on by two workers at once: no limit is ever exceeded, and no job is lost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from random import Random, SystemRandom

import pytest

from headwater import App, JobRate, Retry, Settings, this_job

pytestmark = pytest.mark.postgres

QUEUES, JOBS, KEYS = 8, 60, "abcd"
LATE_SECONDS = 0.1
"""A job starts in its worker somewhat later than the database let it, so two may come closer together."""


@dataclass
class Plan:
    """One queue's limits and jobs, all from a seed, and what became of them."""

    name: str
    random: Random
    runs: list[tuple[float, float, str | None, int]] = field(default_factory=list)
    done: Counter[int] = field(default_factory=Counter)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self):
        some = self.random.choice
        self.cap = some([None, 1, 2, 5])
        self.rate = some([None, JobRate(25), JobRate(20, burst=5)])
        self.key_limit = some([1, 2, 3])
        self.key_rate = some([None, JobRate(8), JobRate(6, burst=3)])
        self.weights = some([{"normal": 1.0}, {"paid": 5.0, "free": 1.0}])
        self.keyed = some([0.5, 1.0])
        self.fails = some([0.0, 0.2])

    def declare(self, app):
        queue = app.queue(
            self.name,
            workers=self.random.randint(2, 6),
            cap=self.cap,
            rate=self.rate,
            weights=self.weights,
            key_limit=self.key_limit,
            key_rate=self.key_rate,
        )

        @app.job(queue=queue, name=self.name, retry=Retry(first_seconds=0.01, factor=1, jitter=0))
        async def work(n: int, seconds: float, fails: bool) -> None:
            began = time.monotonic()
            await asyncio.sleep(seconds)
            self.runs.append((began, time.monotonic(), this_job().key, n))
            if fails and this_job().attempt == 1:
                raise ValueError("not yet")
            self.done[n] += 1
            if self.done.total() >= JOBS:
                self.over.set()

    def jobs(self, app):
        for n in range(JOBS):
            key = self.random.choice(KEYS) if self.random.random() < self.keyed else None
            job = app.jobs[self.name](
                n, self.random.uniform(0, 0.01), key is None and self.random.random() < self.fails
            )
            yield job, {"key": key, "lane": self.random.choice(list(self.weights))}

    def check(self):
        assert self.done == dict.fromkeys(range(JOBS), 1)
        assert running_at_once(self.runs) <= (self.cap or JOBS)
        held(self.rate, [began for began, *_ in self.runs])
        by_key = defaultdict(list)
        for run in self.runs:
            by_key[run[2]].append(run)
        by_key.pop(None, None)
        for runs in by_key.values():
            assert running_at_once(runs) <= self.key_limit
            # What the queue's own limits held back may start together: as many as a key may have.
            held(self.key_rate, [began for began, *_ in runs], self.key_limit)
            if self.key_limit == 1 and len(self.weights) == 1:
                assert [n for *_, n in runs] == sorted(n for *_, n in runs)


def running_at_once(runs):
    """The most that ran at one time."""
    steps = sorted([(ended, -1) for _, ended, *_ in runs] + [(began, 1) for began, *_ in runs])
    most = now = 0
    for _, change in steps:
        now += change
        most = max(most, now)
    return most


def held(rate, starts, together=1):
    """Asserts that in no stretch of time more started than the rate allows."""
    if rate is None:
        return
    starts = sorted(starts)
    for first, last in combinations_with_replacement(range(len(starts)), 2):
        seconds = starts[last] - starts[first] + LATE_SECONDS
        assert last - first + 1 <= rate.burst + seconds / rate.every_seconds + together, (
            rate,
            first,
            last,
        )


@pytest.mark.parametrize("seed", [1, 2, 3, None])
async def test_no_limit_is_exceeded_and_no_job_is_lost(database18, seed):
    seed = SystemRandom().randrange(10**9) if seed is None else seed
    print(f"seed {seed}")
    plans = [Plan(f"q{n}", Random(f"{seed}/{n}")) for n in range(QUEUES)]
    settings = Settings(database_url=database18.url)
    async with AsyncExitStack() as stack:
        apps = []
        for _ in range(2):
            app = App("limits", tenant="main", settings=settings)
            for plan in plans:
                plan.declare(app)
            apps.append(await stack.enter_async_context(app))
        await apps[0].deploy()
        for plan in plans:
            for job, options in plan.jobs(apps[0]):
                await apps[0].enqueue(job, **options)
        for app in apps:
            await stack.enter_async_context(app.working())
        async with asyncio.timeout(60):
            for plan in plans:
                await plan.over.wait()
    for plan in plans:
        plan.check()
