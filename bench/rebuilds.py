"""What rebuilding and verifying take, and what appends take meanwhile."""

from __future__ import annotations

import asyncio
import sys
import time
from decimal import Decimal
from statistics import median
from typing import Any, cast

import psycopg

from bench.ground import SQL, Figure, Ground, alternating
from bench.shop import Customer, Order, Placed, event
from headwater import App, Settings
from headwater.log.database import connect
from headwater.log.ticker import Ticker
from headwater.testing.driving import drive

EVENTS = 1_000_000
KEYS = 100_000
BATCH = 100_000
STEADY_SECONDS = 8
APPENDS_PER_SECOND = 200

declared = App("rebuilds", events=[Placed], tenant="main")


@declared.fold(key="order")
def orders(state: Order, placed: Placed) -> Order | None:
    """Found by its name by the processes that build a slice of it."""
    return state.but(
        customer=placed.customer, total=state.total + placed.total, placed=state.placed + 1
    )


def make(settings: Settings) -> App:
    """The fold above, and a SQL view of as many keys."""
    app = App("rebuilds", events=[Placed], tenant="main", settings=settings)
    app.declare(orders.fold)
    app.sql(
        "customers",
        row=Customer,
        key=("customer",),
        sql="SELECT customer, count(*) AS orders, sum(total) AS total, max(total) AS largest "
        "FROM order.placed GROUP BY customer",
    )
    return app


async def rebuilding(ground: Ground, rounds: int) -> list[Figure]:
    """Each ratio with its limit in the same run, in turn."""
    async with ground.app(make) as (app, admin_url):
        for first in range(0, EVENTS, BATCH):
            async with app.transaction() as tx:
                await tx.append(*(event(n, KEYS) for n in range(first, first + BATCH)))
        async with await connect(app.database().url, "headwater_relay") as relay:
            ticker = Ticker(relay)
            while await ticker.tick():
                pass
        for view in app.views:
            await drive(app, app.stored(view), 1)
        with psycopg.connect(admin_url, autocommit=True) as admin:
            admin.execute("SET timezone = 'UTC'")
            admin.execute("VACUUM ANALYZE")

            async def by_hand(statement: str) -> float:
                began = time.perf_counter()
                await asyncio.to_thread(admin.execute, cast("Any", SQL[f"bench.{statement}"]))
                took = time.perf_counter() - began
                admin.execute("DROP TABLE IF EXISTS bench.rebuilt")
                return EVENTS / took

            async def rebuilt(view: str, processes: int = 1, *, check: bool = True) -> float:
                rebuild = app.rebuilding(view, share=1.0, processes=processes)
                assert rebuild is not None
                began = time.perf_counter()
                verified = await rebuild.run(check=check)
                assert verified is None or verified.summary == "equal"
                return EVENTS / (time.perf_counter() - began)

            async def verified() -> float:
                began = time.perf_counter()
                assert (await app.stored("customers").verify()).summary == "equal"
                return EVENTS / (time.perf_counter() - began)

            two, one = await alternating(
                rounds, lambda: rebuilt("orders", 2), lambda: rebuilt("orders")
            )
            built, created = await alternating(
                rounds, lambda: rebuilt("customers", check=False), lambda: by_hand("rebuilt")
            )
            checked, recomputed = await alternating(rounds, verified, lambda: by_hand("recomputed"))
        calm, busy = [], []
        for _ in range(rounds):
            calm.append(await _p99(app, beside=False))
            busy.append(await _p99(app, beside=True))
    calm_ms, busy_ms = median(calm), median(busy)
    return [
        Figure("rebuild of a fold by 2 processes, compared and swapped, beside 1", two, "events/s", one, "1.6", two >= 1.6 * one),
        Figure("rebuild of a SQL view, beside CREATE TABLE AS and its key", built, "events/s", created, "0.7", built >= 0.7 * created),
        Figure("verify of a SQL view, beside its query by hand", checked, "events/s", recomputed, "0.6", checked >= 0.6 * recomputed),
        Figure(f"p99 of single appends, {APPENDS_PER_SECOND}/s, while a fold is rebuilt, beside without", busy_ms, "ms", calm_ms, "at most 2", busy_ms <= 2 * calm_ms),
    ]  # fmt: skip


async def _again(url: str) -> None:
    """Rebuilds the fold over and over, by the defaults."""
    async with make(Settings(database_url=url)) as app:
        await app.database("headwater_relay").open()
        while True:
            rebuild = app.rebuilding("orders")
            assert rebuild is not None
            print("begun", flush=True)
            await rebuild.run()


async def _p99(app: App, *, beside: bool) -> float:
    """Milliseconds of single appends that come at a steady rate, beside a process that rebuilds."""
    other = None
    if beside:
        command = sys.executable, "-m", "bench.rebuilds", app.database().url
        other = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert other.stdout is not None
        await other.stdout.readline()
    times: list[float] = []
    started = time.perf_counter()
    pending: set[asyncio.Task[None]] = set()

    async def append(number: int) -> None:
        began = time.perf_counter()
        await app.append(Placed(f"o{number % KEYS}", "c1", Decimal(1), 1))
        times.append((time.perf_counter() - began) * 1000)

    for number in range(STEADY_SECONDS * APPENDS_PER_SECOND):
        wait = started + number / APPENDS_PER_SECOND - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(append(number))
        pending.add(task)
        task.add_done_callback(pending.discard)
    await asyncio.gather(*pending)
    if other is not None:
        assert other.returncode is None, "the process that rebuilds ended before"
        other.kill()
        await other.wait()
    return sorted(times)[int(len(times) * 0.99)]


if __name__ == "__main__":
    asyncio.run(_again(sys.argv[1]))
