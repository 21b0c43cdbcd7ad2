"""Empty jobs: enqueued in bulk and completed by two processes, and how long one waits to start at a steady rate."""

from __future__ import annotations

import asyncio
import time
from statistics import quantiles
from typing import Any

from bench.job_runs import starting, through
from race.work.shared import Figures, Run, Work, raw_connections, run


def peer(name: str) -> Run:
    """A queue as `make bench` measures it."""

    async def measured(url: str, work: Work) -> Figures:
        opened: Any
        if name == "headwater":
            from bench.jobs import Ours

            opened = Ours(url)
        else:
            from bench.job_peers import PEERS

            opened = PEERS[name](url)
        await opened.open()
        await through(opened, name, url, work["jobs"] // 10)
        rate = await through(opened, name, url, work["jobs"])
        p50, p99 = await starting(opened, name, url, work["each_second"], work["seconds"])
        await opened.close()
        return {"rate": rate, "p50": p50, "p99": p99}

    return measured


async def raw(url: str, work: Work) -> Figures:
    """A table: one INSERT, then two connections that delete a hundred rows at a time with SKIP LOCKED."""
    (one, two, writer), statements = await raw_connections(url, 3, "jobs")
    waits: list[float] = []

    async def until(connection: Any, done: asyncio.Event) -> None:
        while True:
            cursor = await connection.execute(statements["race.take_jobs"])
            rows = await cursor.fetchall()
            waits.extend((time.time_ns() - at) / 1e6 for (at,) in rows if at)
            if not rows and done.is_set():
                return
            if not rows:
                await asyncio.sleep(0.001)

    done = asyncio.Event()
    done.set()
    began = time.perf_counter()
    await writer.execute(statements["race.insert_jobs"], {"at_ns": 0, "count": work["jobs"]})
    await asyncio.gather(until(one, done), until(two, done))
    rate = work["jobs"] / (time.perf_counter() - began)
    done = asyncio.Event()
    takers = asyncio.gather(until(one, done), until(two, done))
    began = time.perf_counter()
    for number in range(work["each_second"] * work["seconds"]):
        due = began + number / work["each_second"]
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        values = {"at_ns": time.time_ns(), "count": 1}
        await writer.execute(statements["race.insert_jobs"], values)
    done.set()
    await takers
    found = quantiles(waits, n=100)
    return {"rate": rate, "p50": found[49], "p99": found[98]}


if __name__ == "__main__":
    run({"raw": raw} | {name: peer(name) for name in ("headwater", "pgqueuer", "procrastinate", "dbos")})  # fmt: skip
