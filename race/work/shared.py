"""What all contestants do in the same way: the events they write, how they are timed, what they print."""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Work = dict[str, int]
Figures = dict[str, float]
Run = Callable[[str, Work], Figures | Coroutine[Any, Any, Figures]]

STREAMS_EACH = 100
"""Streams of one writer; nobody else writes to them."""


def document(number: int, streams: int) -> dict[str, Any]:
    """The data of the n-th event: that of ``bench.shop.event``."""
    return {
        "order": f"o{number % streams}",
        "customer": f"c{(number * 7919) % streams}",
        "total": str(number % 10_000 / 100),
        "lines": number % 9,
    }


def stream_of(writer: int, turn: int) -> int:
    """Which stream a writer appends to in a turn."""
    return writer * STREAMS_EACH + turn % STREAMS_EACH


async def rate(
    writers: int, turns: int, one: Callable[[int, int], Awaitable[object]], warm: int = STREAMS_EACH
) -> float:
    """Calls a second of concurrent tasks, each with so many turns, after some that are not measured.

    By default those write to each stream once, so that none is new.
    """

    async def some(writer: int, first: int, count: int) -> None:
        for turn in range(first, first + count):
            await one(writer, turn)

    await asyncio.gather(*(some(writer, 0, warm) for writer in range(writers)))
    started = time.perf_counter()
    await asyncio.gather(*(some(writer, warm, turns) for writer in range(writers)))
    return writers * turns / (time.perf_counter() - started)


def rate_in_threads(
    writers: int, turns: int, one: Callable[[int, int], object], warm: int = STREAMS_EACH
) -> float:
    """The same of threads, for libraries that block."""

    def all_of(first: int, count: int) -> float:
        def some(writer: int) -> None:
            for turn in range(first, first + count):
                one(writer, turn)

        started = time.perf_counter()
        with ThreadPoolExecutor(writers) as pool:
            list(pool.map(some, range(writers)))  # raises what a thread has raised
        return time.perf_counter() - started

    all_of(0, warm)
    return writers * turns / all_of(warm, turns)


def run(systems: dict[str, Run]) -> None:
    """Runs ``SYSTEM URL WORK``, as the command line says, and prints its figures as one line of JSON."""
    _, system, url, work = sys.argv[:4]
    found = systems[system](url, json.loads(work))
    if inspect.iscoroutine(found):
        import uvloop  # the loop that `headwater` runs on, whoever is measured

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(found)
    print(json.dumps(found), flush=True)


async def raw_connections(url: str, count: int, table: str) -> tuple[list[Any], Any]:
    """Connections to plain Postgres, and the statements of race/sql/ by name, after the table's has been run."""
    from psycopg import AsyncConnection

    from headwater.log.statements import Statements

    statements = Statements("race")
    opened = [await AsyncConnection.connect(url, autocommit=True) for _ in range(count)]
    for connection in opened:
        connection.prepare_threshold = 0
    await opened[0].execute(statements[f"race.{table}"], prepare=False)
    return opened, statements
