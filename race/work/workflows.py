"""Workflows of three durable steps by two processes: how many a second, and how long one takes at a steady rate."""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import Any

from race.work.shared import Figures, Work, raw_connections, run

AT_ONCE = 20


async def headwater(url: str, work: Work) -> Figures:
    """A saga of three commands, each of which decides on a stream and appends to it."""
    from bench.sagas import ours

    rate, p50, _ = await ours(url, 1, work["workflows"], work["each_second"], work["seconds"])
    return {"rate": rate, "p50": p50}


async def dbos(url: str, work: Work) -> Figures:
    """A workflow of three empty steps, run in the process that starts it."""
    from bench.saga_runs import dbos as measured

    rate, p50 = await measured(url, 1, work["workflows"], work["each_second"], work["seconds"])
    return {"rate": rate, "p50": p50}


async def raw(url: str, work: Work) -> Figures:
    """Five commits for each: one row for the workflow, one for each step, and the end."""
    connections, statements = await raw_connections(url, AT_ONCE, "workflows")
    free: asyncio.Queue[Any] = asyncio.Queue()
    for connection in connections:
        free.put_nowait(connection)
    waits: list[float] = []

    async def one(number: int) -> None:
        connection = await free.get()
        began = time.perf_counter()
        await connection.execute(statements["race.begin_workflow"], {"id": number})
        for step in range(3):
            await connection.execute(statements["race.insert_step"], {"id": number, "step": step})
        await connection.execute(statements["race.end_workflow"], {"id": number})
        waits.append((time.perf_counter() - began) * 1000)
        free.put_nowait(connection)

    began = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(work["workflows"])))
    rate = work["workflows"] / (time.perf_counter() - began)
    waits.clear()
    running = []
    for number in range(work["each_second"] * work["seconds"]):
        running.append(asyncio.create_task(one(work["workflows"] + number)))
        await asyncio.sleep(1 / work["each_second"])
    await asyncio.gather(*running)
    return {"rate": rate, "p50": median(waits)}


if __name__ == "__main__":
    run({"headwater": headwater, "raw": raw, "dbos": dbos})
