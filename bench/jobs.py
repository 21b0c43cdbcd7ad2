"""How fast jobs are enqueued and completed, beside other queues on Postgres in the same run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

import psycopg
from psycopg import sql

from bench.ground import LOGIN, SQL, Figure, Ground
from bench.job_peers import PEERS, installed
from bench.job_runs import WORKERS, go, processes, starting, through
from headwater import App, Settings
from headwater.operations.migrate import create_login, migrate

JOBS = {"headwater": 50_000, "pgqueuer": 20_000, "procrastinate": 2_000, "dbos": 1_000}
HELD_SECONDS = 60.0
EACH_SECOND, SECONDS = 200, 10
FREE_JOBS, FREE_SECONDS, PAID_JOBS = 100_000, 0.1, 40


def job_app(url: str, workers: int = WORKERS) -> App:
    """The app that is measured."""
    from bench.job_waits import began

    app = App("bench", tenant="main", settings=Settings(database_url=url, pool_size=10))
    app.queue("plain", workers=workers)
    app.queue("shared", workers=workers, weights={"paid": 10, "free": 1})

    @app.job(queue="plain")
    async def empty(at_ns: int) -> None:
        began(at_ns)

    @app.job(queue="shared")
    async def slow(at_ns: int, seconds: float) -> None:
        began(at_ns)
        await asyncio.sleep(seconds)

    return app


class Ours:
    """Headwater, as the peers are measured."""

    def __init__(self, url: str) -> None:
        self.app = job_app(url)

    async def open(self) -> None:
        await self.app.__aenter__()
        await self.app.deploy()

    async def enqueue(self, at_ns: int, count: int) -> None:
        await self.app.enqueue(*[self.app.jobs["empty"](at_ns) for _ in range(count)])

    async def busy(self) -> bool:
        async with self.app.database("headwater_operator").connection() as connection:
            row = await (await connection.execute(SQL["bench.jobs_left"])).fetchone()
        return bool(row and row[0])

    async def close(self) -> None:
        await self.app.__aexit__(None, None, None)


@asynccontextmanager
async def system(ground: Ground, name: str, suffix: str = "") -> AsyncIterator[tuple[Any, str]]:
    """A system on a fresh database, and its URL."""
    database = f"bench_jobs_{name}{suffix}"
    with psycopg.connect(ground.server.url(), autocommit=True) as admin:
        for verb in ("DROP DATABASE IF EXISTS {}", "CREATE DATABASE {}"):
            admin.execute(sql.SQL(verb).format(sql.Identifier(database)))
    url = ground.server.url(database)
    if name == "headwater":
        await migrate(url)
        await create_login(url, LOGIN, database_owner=True)
        url = ground.server.url(database, user=LOGIN)
    opened = Ours(url) if name == "headwater" else PEERS[name](url)
    await opened.open()
    try:
        yield opened, url
    finally:
        await opened.close()


async def held(ground: Ground, name: str) -> tuple[float, float]:
    """The same while a snapshot is held open, and without: the last three times in a minute, in turn.

    In two databases, since a snapshot keeps dead rows in its own alone: so a drifting machine favours neither.
    """
    rates: tuple[list[float], list[float]] = ([], [])
    async with system(ground, name) as (one, url), system(ground, name, "free") as (two, free):
        with psycopg.connect(url) as holder:
            holder.execute("SET default_transaction_isolation = 'repeatable read'")
            holder.commit()
            holder.execute("SELECT count(*) FROM pg_class")
            began = time.monotonic()
            while time.monotonic() - began < 2 * HELD_SECONDS:
                rates[0].append(await through(one, name, url, JOBS[name]))
                rates[1].append(await through(two, name, free, JOBS[name]))
    return median(rates[0][-3:]), median(rates[1][-3:])


async def paid(ground: Ground) -> list[Figure]:
    """How long paid jobs wait while all are busy with free ones, beside an empty system and one job's length."""
    async with system(ground, "headwater") as (opened, url):
        slow = opened.app.jobs["slow"]

        async def waits(count: int, lane: str) -> list[float]:
            async with processes("headwater", url, WORKERS) as (started, seen):
                go(started)
                if lane == "busy":
                    for _ in range(FREE_JOBS // 10_000):
                        await opened.app.enqueue(*[slow(0, FREE_SECONDS)] * 10_000, lane="free")
                await asyncio.sleep(1)
                for _ in range(count):
                    await opened.app.enqueue(slow(time.time_ns(), 0.0), lane="paid")
                    await asyncio.sleep(0.05)
                await asyncio.sleep(1)
            return sorted(seen)

        empty = await waits(PAID_JOBS, "empty")
        busy = await waits(PAID_JOBS, "busy")
        limit = empty[len(empty) // 2] + FREE_SECONDS * 1000
        reached = busy[int(len(busy) * 0.95)]
    return [
        Figure("a paid job's wait beside 100,000 free jobs of 100 ms, p95", reached, "ms", limit, "at most 2", reached <= 2 * limit)
    ]  # fmt: skip


async def jobs(ground: Ground) -> list[Figure]:
    """All figures of jobs."""
    rates: dict[str, float] = {}
    under: dict[str, tuple[float, float]] = {}
    starts: dict[str, tuple[float, float]] = {}
    for name in ("headwater", *installed()):
        async with system(ground, name) as (opened, url):
            await through(opened, name, url, JOBS[name])
            rates[name] = median([await through(opened, name, url, JOBS[name]) for _ in range(3)])
            starts[name] = await starting(opened, name, url, EACH_SECOND, SECONDS)
        under[name] = await held(ground, name)
        print(name, rates[name], starts[name], under[name], flush=True)
    ours = rates.pop("headwater"), starts.pop("headwater"), under.pop("headwater")
    fastest = max(rates, key=lambda name: rates[name], default="")
    figures = [
        Figure(f"jobs enqueued in bulk and completed, 2 processes, beside {fastest or 'no peer'}", ours[0], "jobs/s", rates.get(fastest), "1.0", ours[0] >= rates.get(fastest, 0)),
        Figure("the same with a snapshot held for 60 s, beside without", ours[2][0], "jobs/s", ours[2][1], "0.8", ours[2][0] >= 0.8 * ours[2][1]),
    ]  # fmt: skip
    for n, part in enumerate(("p50", "p99")):
        best = min((times[n] for times in starts.values()), default=None)
        figures.append(
            Figure(f"enqueue to start at {EACH_SECOND} jobs/s, {part}, beside the fastest peer", ours[1][n], "ms", best, "at most 1", best is None or ours[1][n] <= best)
        )  # fmt: skip
    figures += [
        Figure(f"{name} with a snapshot held for 60 s, beside without", under[name][0], "jobs/s", under[name][1], "", None)
        for name in rates
    ]  # fmt: skip
    return figures + await paid(ground)
