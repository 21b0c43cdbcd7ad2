"""``make growth``: how figures move with the log's events, with views, tenants and live clients.

Each is measured at several sizes one after the other; prints tables and writes build/growth.json. What they mean is in
docs/explanation/scale.md.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from statistics import median

import msgspec
import psutil
import psycopg
from rich.console import Console
from rich.table import Table

from bench.appends import paced, rate
from bench.ground import SQL, Ground, ground
from bench.http import browsing, percentiles, served
from bench.shop import Order, Placed, event
from headwater import App, Settings
from headwater.log.database import connect
from headwater.log.ticker import Ticker
from headwater.relay import Batch

CHUNK = 100_000
CALLERS = 32
READS = 1_000
LIVE_SECONDS = 10
VIEWS_PER_SECOND = 50
CLIENTS_PER_SECOND = 10
WAIT_SECONDS = 600.0
FOLLOWING = ("customers", "orders")

LOGS = (100_000, 1_000_000, 10_000_000)
VIEWS = (1, 10, 50)
TENANTS = (1, 100, 10_000)
CLIENTS = (10, 200, 2_000)

Row = dict[str, float]
"""A size's figures by name; the unit is in the name."""


async def log(place: Ground, sizes: Sequence[int]) -> list[Row]:
    """One log that grows, ten events to a stream. Appends go to 10,000 streams at each size; reads are of all."""
    rows = []
    async with place.app() as (app, admin_url):
        filled = 0
        for size in sizes:
            seconds = time.perf_counter()
            for first in range(filled, size, CHUNK):
                await _fill(
                    app, "main", [event(n, size // 10) for n in range(first, first + CHUNK)]
                )
            bulk = (size - filled) / (time.perf_counter() - seconds)
            filled = size
            with psycopg.connect(admin_url, autocommit=True) as admin:
                admin.execute("VACUUM ANALYZE")
                ((stored,),) = admin.execute(SQL["bench.log_bytes"]).fetchall()
            row = {
                "events": size,
                "bulk append, events/s": bulk,
                "bytes of an event, with indexes": stored / size,
            }
            row["single appends, events/s"] = median(
                [await rate(_appending(app)) for _ in range(3)]
            )
            row["read of a stream, p50 ms"] = await _reads(partial(_stream, app, size // 10))
            row |= await _following(
                app,
                FOLLOWING,
                partial(_fill, app, "main", [event(n, 10_000) for n in range(CHUNK)]),
            )
            filled += 3 * CHUNK
            rows.append(row)
    return rows


async def views(place: Ground, sizes: Sequence[int]) -> list[Row]:
    """So many folds that each read every event, driven by one relay in a process of its own."""
    rows = []
    for size in sizes:
        async with place.app(partial(many, size)) as (app, _):
            await _fill(app, "main", [event(n, 10_000) for n in range(CHUNK)])
            row: Row = {"views": size}
            async with _relay(app, size) as relay:
                began = time.perf_counter()
                await _level(app, size)
                row["catching up, events/s of each"] = CHUNK / (time.perf_counter() - began)
                row["catching up, events/s of all"] = size * row["catching up, events/s of each"]
                used = _seconds(relay)
                times = await _live(app, size)
                row["commit to view at 50/s, p50 ms"], row["p99 ms"] = percentiles(times)
                row["relay's share of a core meanwhile"] = (_seconds(relay) - used) / LIVE_SECONDS
                row["relay's memory, MB"] = relay.memory_info().rss / 1e6
                row["connections of the relay"] = len(relay.net_connections("unix"))
            rows.append(row)
    return rows


async def tenants(place: Ground, sizes: Sequence[int]) -> list[Row]:
    """The same 100,000 events, of so many tenants."""
    rows = []
    for size in sizes:
        async with place.app() as (app, _):
            row: Row = {"tenants": size}
            names = [f"t{n}" for n in range(size)]
            row["single appends, events/s"] = median([await rate(_appending(app, names)) for _ in range(3)])  # fmt: skip
            each = CHUNK // size
            spread = partial(_spread, app, names, each)
            began = time.perf_counter()
            await spread()
            row["bulk append, a transaction for each tenant, events/s"] = CHUNK / (time.perf_counter() - began)  # fmt: skip
            row |= await _following(app, FOLLOWING, spread)
            row["read of a stream, p50 ms"] = await _reads(partial(_any_stream, app, names, each))
            rows.append(row)
    return rows


async def clients(place: Ground, sizes: Sequence[int]) -> list[Row]:
    """So many browsers that follow all events by server-sent events, ten a second, from one process that drives the views too."""
    rows = []
    for size in sizes:
        async with place.app() as (app, _), served(app, relay=True) as (host, port, token):
            (server,) = [p for p in psutil.Process().children() if "bench.http" in p.cmdline()]
            used, began = _seconds(server), time.perf_counter()
            times = await browsing(app, f"{host} {port} {token}", size, CLIENTS_PER_SECOND)
            share = (_seconds(server) - used) / (time.perf_counter() - began)
            p50, p99 = percentiles(times)
            rows.append(
                {
                    "clients": size,
                    "messages/s": size * CLIENTS_PER_SECOND,
                    "commit to browser, p50 ms": p50,
                    "p99 ms": p99,
                    "server's share of a core": share,
                    "server's memory, MB": server.memory_info().rss / 1e6,
                }
            )
    return rows


PARTS: Mapping[str, tuple[Callable[[Ground, Sequence[int]], Awaitable[list[Row]]], Sequence[int]]] = {
    "log": (log, LOGS),
    "views": (views, VIEWS),
    "tenants": (tenants, TENANTS),
    "clients": (clients, CLIENTS),
}  # fmt: skip


# How each is measured ----------------------------------------------------------------------------


def many(size: int, settings: Settings) -> App:
    """An app with so many folds over every event."""
    app = App("bench", events=[Placed], tenant="main", settings=settings)

    def evolve(state: Order, placed: Placed) -> Order:
        return state.but(total=state.total + placed.total, placed=state.placed + 1)

    for n in range(size):
        app.fold(key="order", name=f"orders{n}")(evolve)
    return app


async def _fill(app: App, tenant: str, events: Sequence[Placed]) -> None:
    async with app.transaction(tenant) as tx:
        await tx.append(*events)


def _appending(
    app: App, tenants: Sequence[str] = ("main",)
) -> Callable[[int, int], Awaitable[object]]:
    def one(number: int, turn: int) -> Awaitable[object]:
        n = number + CALLERS * turn
        return app.append(event(n, 10_000), tenant=tenants[n % len(tenants)])

    return one


def _stream(app: App, streams: int, n: int) -> Awaitable[object]:
    return app.log.stream(f"order/o{n * 331 % streams}", tenant="main", max_rows=10)


def _any_stream(app: App, tenants: Sequence[str], streams: int, n: int) -> Awaitable[object]:
    tenant = tenants[n * 331 % len(tenants)]
    return app.log.stream(f"order/o{n % streams}", tenant=tenant, max_rows=10)


async def _spread(app: App, tenants: Sequence[str], each: int) -> None:
    """So many events of each tenant, 20 transactions at once."""
    events = [event(n, 10_000) for n in range(each)]
    for start in range(0, len(tenants), 20):
        await asyncio.gather(*(_fill(app, name, events) for name in tenants[start : start + 20]))


async def _reads(read: Callable[[int], Awaitable[object]]) -> float:
    times = []
    for n in range(READS):
        began = time.perf_counter()
        await read(n)
        times.append((time.perf_counter() - began) * 1000)
    return percentiles(times)[0]


async def _following(app: App, names: Sequence[str], more: Callable[[], Awaitable[None]]) -> Row:
    """How fast views take the whole log, and three times ``more``, which is 100,000 events, on top of it."""
    row: Row = {}
    targets = {}
    for name in names:
        target = targets[name] = app.stored(name)
        head, checkpoint = await _published(app), await target.open(1)
        began, first = time.perf_counter(), await target.first_after(checkpoint, head)
        upto = head if first is None else first - 1
        while checkpoint < head:
            upto = min(upto + CHUNK, head)
            await target.apply(Batch(checkpoint, upto))
            checkpoint = upto
        row[f"{name}: seconds for all"] = time.perf_counter() - began
    rates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(3):
        await more()
        before, head = head, await _published(app)
        for name, target in targets.items():
            began = time.perf_counter()
            await target.apply(Batch(before, head))
            rates[name].append(CHUNK / (time.perf_counter() - began))
    for name, target in targets.items():
        row[f"{name}: 100,000 more, events/s"] = median(rates[name])
        await target.close()
    return row


async def _published(app: App) -> int:
    """The position up to which the log is published, once that is all of it."""
    async with await connect(app.database().url, "headwater_relay") as relay:
        ticker = Ticker(relay)
        while await ticker.tick():
            pass
    return await app.log.safe()


@asynccontextmanager
async def _relay(app: App, size: int) -> AsyncIterator[psutil.Process]:
    """A process that drives so many folds."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.growth", "--relay", str(size), app.database().url
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        await process.wait()


async def _drive(size: int, url: str) -> None:
    app = many(size, Settings(database_url=url, pool_size=10))
    async with app, app.relay():
        await asyncio.Event().wait()


async def _level(app: App, size: int) -> None:
    """Returns once every fold has all that is appended by now."""
    written = await app.append(event(0, 10_000))
    for n in range(size):
        await app.view(f"orders{n}").get("o0", at_least=written.token, timeout_seconds=WAIT_SECONDS)


async def _live(app: App, size: int) -> list[float]:
    """Milliseconds from a commit's return until one of the folds, in turn, is read with its token."""
    times: list[float] = []

    async def one(number: int) -> None:
        written = await app.append(event(number, 10_000))
        began = time.perf_counter()
        view = app.view(f"orders{number % size}")
        await view.get(f"o{number % 10_000}", at_least=written.token, timeout_seconds=60)
        times.append((time.perf_counter() - began) * 1000)

    await paced(one, VIEWS_PER_SECOND, LIVE_SECONDS)
    return times


def _seconds(process: psutil.Process) -> float:
    used = process.cpu_times()
    return used.user + used.system


def _print(name: str, rows: Sequence[Row]) -> None:
    table = Table(title=name, title_justify="left")
    table.add_column("")
    for row in rows:
        table.add_column(f"{next(iter(row.values())):,.0f}", justify="right")
    for figure in rows[0]:
        table.add_row(figure, *(_number(row[figure]) for row in rows))
    Console(width=120).print(table)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.2f}"


async def measure(chosen: Mapping[str, Sequence[int]]) -> None:
    """Measures the parts one after the other."""
    place = ground(Path("build/bench/postgres"))
    found: dict[str, list[Row]] = {}
    place.server.start()
    try:
        for name, sizes in chosen.items():
            began = time.perf_counter()
            found[name] = await PARTS[name][0](place, sizes)
            _print(name, found[name])
            print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
            Path("build/growth.json").write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    finally:
        place.server.stop()


def main() -> None:
    """Parses the command line and measures."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("part", nargs="*", help=f"only these: {', '.join(PARTS)}")
    parser.add_argument("--most", type=int, default=sys.maxsize, help="leave out larger sizes")
    parser.add_argument("--relay", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.relay is not None:
        size, url = options.relay
        asyncio.run(_drive(int(size), url))
        return
    if unknown := sorted(set(options.part) - PARTS.keys()):
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    asyncio.run(
        measure(
            {
                name: [size for size in sizes if size <= options.most]
                for name, (_, sizes) in PARTS.items()
                if (name in options.part or not options.part) and min(sizes) <= options.most
            }
        )
    )


if __name__ == "__main__":
    main()
