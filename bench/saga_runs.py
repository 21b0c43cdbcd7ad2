"""Measures workflows of three steps in processes of their own: what `make bench` and `make race` have in common.

Runs in the environment of what is measured, so nothing here imports Headwater.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

import msgspec


async def dbos(
    url: str, turns: int, count: int, each_second: int, seconds: int
) -> tuple[float, float]:
    """DBOS's workflows a second, in the median of so many turns, and how long one takes at a steady rate in ms: p50."""
    rates = []
    for _ in range(turns):
        async with processes("dbos", url, count // 2, 0) as started:
            told = await ran(started)
        rates.append(count / max(seconds for seconds, _ in told))
    async with processes("dbos", url, each_second * seconds // 2, each_second / 2) as started:
        told = await ran(started)
    return median(rates), median([wait for _, waits in told for wait in waits])


async def ran(started: list[Any]) -> list[tuple[float, list[float]]]:
    for one in started:
        one.stdin.write(b"\n")
    return [msgspec.json.decode(await one.stdout.readline(), type=tuple[float, list[float]]) for one in started]  # fmt: skip


@asynccontextmanager
async def processes(system: str, url: str, count: int, each: float) -> AsyncIterator[list[Any]]:
    command = [sys.executable, "-m", "bench.saga_process", system, url, str(count), str(each)]
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    started: list[Any] = []
    try:
        for _ in range(2):
            one = await asyncio.create_subprocess_exec(*command, **pipes, limit=2**26)  # type: ignore[arg-type]
            started.append(one)
            assert one.stdout is not None
            while (await one.stdout.readline()).strip() != b"ready":
                if one.stdout.at_eof():
                    raise RuntimeError(f"{system} did not start")
        yield started
        for one in started:
            await one.wait()
    finally:
        for one in started:
            if one.returncode is None:
                one.kill()
            await one.wait()
