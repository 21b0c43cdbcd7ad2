"""Measures one queue, whichever it is: what `make bench` and `make race` have in common.

Runs in the environment of the queue that is measured, so nothing here imports Headwater.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import quantiles
from typing import Any

import msgspec

WORKERS = 20


@asynccontextmanager
async def processes(system: str, url: str, workers: int = WORKERS) -> AsyncIterator[list[Any]]:
    """Two processes that are ready to work; at the end they say what they have seen."""
    command = [sys.executable, "-m", "bench.job_process", system, url, str(workers)]
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    started = [
        await asyncio.create_subprocess_exec(*command, **pipes, limit=2**26)  # type: ignore[arg-type]
        for _ in range(2)
    ]
    waits: list[float] = []
    try:
        for one in started:
            assert one.stdout is not None
            while (await one.stdout.readline()).strip() != b"ready":
                if one.stdout.at_eof():
                    raise RuntimeError(f"{system} did not start")
        yield [started, waits]
        for one in started:
            assert one.stdin is not None
            assert one.stdout is not None
            one.stdin.write(b"\n")
            waits += msgspec.json.decode(await one.stdout.readline(), type=list[float])
            # It ends by itself: to kill it now would reap it behind asyncio's back.
            await one.wait()
    finally:
        for one in started:
            if one.returncode is None:
                one.kill()
            await one.wait()


def go(started: list[Any]) -> None:
    for one in started:
        one.stdin.write(b"\n")


async def through(opened: Any, name: str, url: str, count: int) -> float:
    """Jobs a second, enqueued in bulk and completed by two processes."""
    async with processes(name, url) as (started, _):
        began = time.perf_counter()
        await opened.enqueue(0, count)
        go(started)
        while await opened.busy():
            await asyncio.sleep(0.02)
        return count / (time.perf_counter() - began)


async def starting(
    opened: Any, name: str, url: str, each_second: int, seconds: int
) -> tuple[float, float]:
    """From enqueuing to starting at a steady rate, each in a transaction of its own: p50 and p99 in ms."""
    async with processes(name, url) as (started, waits):
        go(started)
        await asyncio.sleep(1)
        began = time.perf_counter()
        for n in range(each_second * seconds):
            await asyncio.sleep(max(began + n / each_second - time.perf_counter(), 0))
            await opened.enqueue(time.time_ns(), 1)
        while await opened.busy():
            await asyncio.sleep(0.05)
    found = quantiles(waits, n=100)
    return found[49], found[98]
