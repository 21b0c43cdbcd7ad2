"""How fast views follow, and how soon a reader elsewhere sees a write."""

from __future__ import annotations

import asyncio
import sys
import time
from statistics import median

import msgspec
import psycopg

from bench.ground import SQL, Figure, Ground
from bench.shop import event
from headwater import App, Settings
from headwater.log.database import connect
from headwater.log.ticker import Ticker
from headwater.relay import Batch

EVENTS = 500_000
KEYS = 100_000
BATCH = 100_000
LATENCY_SECONDS = 20
EVENTS_PER_SECOND = 1_000
SAMPLES_PER_SECOND = 50


async def catching_up(ground: Ground, rounds: int) -> list[Figure]:
    """A SQL view and a fold over 100,000 keys, from the beginning of the log."""
    async with ground.app() as (app, admin_url):
        for first in range(0, EVENTS, BATCH):
            async with app.transaction() as tx:
                written = await tx.append(*(event(n, KEYS) for n in range(first, first + BATCH)))
        head = written.position
        ranges = [(end - BATCH, end) for end in range(head - EVENTS + BATCH, head + 1, BATCH)]
        async with await connect(app.database().url, "headwater_relay") as relay:
            ticker = Ticker(relay)
            while await ticker.tick():
                pass
        view, by_hand = [], []
        with psycopg.connect(admin_url, autocommit=True) as admin:
            admin.execute("SET timezone = 'UTC'")
            admin.execute("SET synchronous_commit = off")
            admin.execute("VACUUM ANALYZE headwater.events")
            for turn in range(rounds):
                admin.execute("TRUNCATE bench.by_hand")
                started = time.perf_counter()
                for after, upto in ranges:
                    admin.execute(SQL["bench.by_hand"], {"after": after, "upto": upto})
                by_hand.append(EVENTS / (time.perf_counter() - started))
                view.append(EVENTS / await _follow(app, "customers", BATCH, head, turn))
        folds = [
            EVENTS / await _follow(app, "orders", 20_000, head, turn) for turn in range(rounds)
        ]
        for name in ("customers", "orders"):
            assert (await app.stored(name).verify()).equal, name
    return [
        Figure("SQL view catching up, batches of 100,000, 100,000 keys", median(view), "events/s", median(by_hand), "0.7", median(view) >= 0.7 * median(by_hand)),
        Figure("fold catching up, 100,000 keys", median(folds), "events/s", None, "50,000/s", median(folds) >= 50_000),
    ]  # fmt: skip


async def _follow(app: App, name: str, batch: int, head: int, turn: int) -> float:
    """Seconds that one view takes from an empty start to the head, as the relay drives it."""
    target = app.stored(name)
    await target.rebuild()
    checkpoint = await target.open(turn + 1)
    first = await target.first_after(checkpoint, head)
    assert first is not None
    started = time.perf_counter()
    upto = first - 1
    while checkpoint < head:
        upto = min(upto + batch, head)
        await target.apply(Batch(checkpoint, upto))
        checkpoint = upto
    seconds = time.perf_counter() - started
    await target.close()
    return seconds


async def read_your_writes(ground: Ground) -> list[Figure]:
    """From a commit's return to another process's get(at_least), at 1,000 events a second."""
    async with ground.app() as (app, _):
        url = app.database().url
        processes = [await _process("relay", url), await _process("reader", url)]
        _, reader = processes
        assert reader.stdin is not None
        try:
            for process in processes:
                assert process.stdout is not None
                await process.stdout.readline()
            started = time.perf_counter()
            every = EVENTS_PER_SECOND // SAMPLES_PER_SECOND
            pending: set[asyncio.Task[None]] = set()

            async def append(number: int) -> None:
                written = await app.append(event(number, KEYS))
                returned = time.monotonic_ns()
                if number % every == 0:
                    placed = event(number, KEYS)
                    assert reader.stdin is not None
                    reader.stdin.write(f"{returned} {placed.order} {written.token}\n".encode())

            for number in range(EVENTS_PER_SECOND * LATENCY_SECONDS):
                due = started + number / EVENTS_PER_SECOND
                if (wait := due - time.perf_counter()) > 0:
                    await asyncio.sleep(wait)
                task = asyncio.create_task(append(number))
                pending.add(task)
                task.add_done_callback(pending.discard)
            await asyncio.gather(*pending)
            await reader.stdin.drain()
            reader.stdin.close()
            assert reader.stdout is not None
            times = sorted(msgspec.json.decode(await reader.stdout.readline()))
        finally:
            for process in processes:
                if process.returncode is None:
                    process.kill()
                await process.wait()
    p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
    return [
        Figure("commit to another process's get(at_least), p50", p50, "ms", None, "5 ms", p50 <= 5),
        Figure(
            "commit to another process's get(at_least), p99", p99, "ms", None, "25 ms", p99 <= 25
        ),
    ]


async def _process(what: str, url: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.views", what, url,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def _relay(app: App) -> None:
    async with app, app.relay():
        print("ready", flush=True)
        await asyncio.Event().wait()


async def _reader(app: App) -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    times: list[float] = []

    async def read(returned: int, order: str, token: str) -> None:
        await orders.get(order, at_least=token, timeout_seconds=30)
        times.append((time.monotonic_ns() - returned) / 1e6)

    orders = app._folds["orders"]  # noqa: SLF001 - the view by its name
    async with app:
        print("ready", flush=True)
        reads = set()
        while line := await lines.readline():
            returned, order, token = line.decode().split()
            reads.add(asyncio.create_task(read(int(returned), order, token)))
        await asyncio.gather(*reads)
        print(msgspec.json.encode(times).decode(), flush=True)


if __name__ == "__main__":
    from bench import shop

    _, role, database_url = sys.argv
    made = shop.make(Settings(database_url=database_url, pool_size=10))
    asyncio.run({"relay": _relay, "reader": _reader}[role](made))
