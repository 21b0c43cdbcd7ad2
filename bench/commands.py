"""How fast commands are decided, beside appending without a decision; and how fast a long stream loads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from functools import partial
from statistics import median

import psycopg

from bench.appends import rate
from bench.ground import Figure, Ground, alternating
from bench.shop import Place, Placed
from headwater import Accepted, App

CLIENTS = 16

LONG = 10_000


async def long_streams(ground: Ground, rounds: int) -> list[Figure]:
    """A command that leads to nothing over a stream of 10,000 events: it reads, and appends nothing."""
    async with ground.app() as (app, admin_url):
        for _ in range(LONG // 1000):
            await app.append(*(Placed("long", "c0", Decimal(1), 0) for _ in range(1000)))

        async def loaded(seconds: float) -> float:
            done, began = 0, time.perf_counter()
            while not done or time.perf_counter() - began < seconds:
                outcome = await app.do(Place("long", Decimal(1)))
                assert isinstance(outcome, Accepted)
                assert not outcome.events
                done += 1
            return done / (time.perf_counter() - began)

        async def without() -> float:
            rates = []
            for _ in range(5):
                with psycopg.connect(admin_url, autocommit=True) as admin:
                    admin.execute("DELETE FROM headwater.snapshots")
                rates.append(await loaded(0))
                await _until_kept(admin_url)
            return median(rates)

        done, limit = await alternating(rounds, lambda: loaded(2), without)
    return [
        Figure(f"loading a stream of {LONG:,} events with a snapshot, beside without", done, "loads/s", limit, "20", done >= 20 * limit),
    ]  # fmt: skip


async def _until_kept(admin_url: str) -> None:
    """Returns once the snapshot of the last decision is there, so that it disturbs no measurement."""
    with psycopg.connect(admin_url, autocommit=True) as admin:
        while admin.execute("SELECT count(*) FROM headwater.snapshots").fetchone() == (0,):
            await asyncio.sleep(0.001)


async def commands(ground: Ground, rounds: int) -> list[Figure]:
    """Commands on short streams by 16 clients, beside appends of the same events.

    Once each stream takes four commands one after another, as an order does that is placed, paid, packed and
    sent; once each command is on a stream that the process knows nothing of.
    """
    figures = []
    for each, told in ((4, "four on each"), (1, "one on each, new to the process")):
        async with ground.app() as (app, _):

            async def decided(number: int, order: str, app: App = app) -> None:
                await app.do(Place(order, Decimal(number)))

            async def appended(number: int, order: str, app: App = app) -> None:
                await app.append(Placed(order, "c0", Decimal(number), 0))

            done, limit = await alternating(
                rounds, partial(_on_streams, decided, each), partial(_on_streams, appended, each)
            )
        figures.append(
            Figure(f"commands on short streams, {told}, {CLIENTS} clients, beside append", done, "commands/s", limit, "0.5", done >= 0.5 * limit),
        )  # fmt: skip
    return figures


async def _on_streams(work: Callable[[int, str], Awaitable[None]], each: int) -> float:
    """Calls a second, so many on each of streams that nobody used before."""
    base = time.time_ns()
    return await rate(
        lambda number, turn: work(turn, f"o{base + number + CLIENTS * (turn // each)}"), CLIENTS
    )
