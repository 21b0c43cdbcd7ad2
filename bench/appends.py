"""How fast facts are appended, beside what Postgres does without a log."""

from __future__ import annotations

import asyncio
import re
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable

import psycopg

from bench.ground import LOGIN, SQL, Figure, Ground, alternating
from bench.shop import Placed, event
from headwater.events import encode
from headwater.log.database import connect
from headwater.operations.embedded import Binaries

CALLERS = 32
SECONDS = 4.0
STREAMS = 100_000
BULK = 100_000


async def rate(work: Callable[[int, int], Awaitable[object]], callers: int = CALLERS) -> float:
    """Calls a second by so many concurrent callers."""
    done = 0
    deadline = time.perf_counter() + SECONDS

    async def caller(number: int) -> None:
        nonlocal done
        turn = 0
        while time.perf_counter() < deadline:
            await work(number, turn)
            turn += 1
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(caller(number) for number in range(callers)))
    return done / (time.perf_counter() - started)


async def paced(work: Callable[[int], Awaitable[object]], per_second: int, seconds: int) -> None:
    """Calls at a fixed rate, whatever they take, and waits for all of them."""
    started = time.perf_counter()
    tasks = []
    for number in range(per_second * seconds):
        due = started + number / per_second
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.ensure_future(work(number)))
    await asyncio.gather(*tasks)


async def singles(ground: Ground, rounds: int) -> list[Figure]:
    """Single appends by 32 callers: in shared commits, and each in the caller's own transaction."""
    async with ground.app() as (app, _):
        connections = [await connect(app.database().url, "headwater_app") for _ in range(CALLERS)]
        base = time.time_ns()

        def one(number: int, turn: int) -> Placed:
            return event(base + number + CALLERS * turn, STREAMS)

        async def bare(number: int, turn: int) -> None:
            placed = one(number, turn)
            parameters = {"stream": f"order/{placed.order}", "data": encode(placed).decode()}
            await connections[number].execute(SQL["bench.insert_bare"], parameters, prepare=True)

        async def coalesced(number: int, turn: int) -> None:
            await app.append(one(number, turn))

        async def own(number: int, turn: int) -> None:
            async with connections[number].transaction():
                await app.on(connections[number]).append(one(number, turn))

        async def bare_own(number: int, turn: int) -> None:
            async with connections[number].transaction():
                await bare(number, turn)

        await rate(own)
        shared, limit = await alternating(rounds, lambda: rate(coalesced), lambda: rate(bare))
        single, same = await alternating(rounds, lambda: rate(own), lambda: rate(bare_own))
        for connection in connections:
            await connection.close()
    return [
        Figure(f"single appends, {CALLERS} callers, shared commits", shared, "events/s", limit, "1.5", shared >= 1.5 * limit),
        Figure(f"append in each caller's own transaction, {CALLERS} clients", single, "events/s", same, "0.5", single >= 0.5 * same),
    ]  # fmt: skip


def _pgbench(command: list[str]) -> subprocess.CompletedProcess[str]:
    settings = {"PGOPTIONS": "-c role=headwater_app -c headwater.tenant=main"}
    return subprocess.run(command, env=settings, capture_output=True, text=True, check=False)


async def by_pgbench(ground: Ground, rounds: int) -> list[Figure]:
    """headwater.append by pgbench, 32 clients, 100,000 streams."""
    async with ground.app() as (_, admin_url):
        with psycopg.connect(admin_url) as admin:
            database = admin.info.dbname

        async def run(script: str) -> float:
            with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
                file.write(SQL[f"bench.{script}"] + "\n")
                file.flush()
                command = [
                    str(Binaries.from_wheel().folder / "pgbench"),
                    *(
                        "-n",
                        "-M",
                        "prepared",
                        "-c",
                        str(CALLERS),
                        "-j",
                        "2",
                        "-T",
                        str(int(SECONDS)),
                    ),
                    *(
                        "-f",
                        file.name,
                        "-h",
                        str(ground.server.socket_folder),
                        "-U",
                        LOGIN,
                        database,
                    ),
                ]
                output = await asyncio.to_thread(_pgbench, command)
            found = re.search(r"tps = ([0-9.]+)", output.stdout)
            if found is None:
                raise RuntimeError(f"pgbench failed: {output.stderr}")
            return float(found[1])

        await run("pgbench_append")
        reached, limit = await alternating(
            rounds, lambda: run("pgbench_append"), lambda: run("pgbench_bare")
        )
    return [Figure("headwater.append by pgbench, 32 clients", reached, "events/s", limit, "0.45", reached >= 0.45 * limit)]  # fmt: skip


async def bulk(ground: Ground, rounds: int) -> list[Figure]:
    """100,000 events over 10,000 streams, in one transaction."""
    async with ground.app() as (app, admin_url):
        turn = 0

        async def ours() -> float:
            nonlocal turn
            turn += 1
            events = [event(turn * BULK + n, 10_000) for n in range(BULK)]
            started = time.perf_counter()
            async with app.transaction() as tx:
                await tx.append(*events)
            return BULK / (time.perf_counter() - started)

        async def copied() -> float:
            with psycopg.connect(admin_url, autocommit=True) as admin:
                admin.execute("TRUNCATE bench.twin")
                with admin.cursor().copy(f"COPY ({SQL['bench.newest']}) TO STDOUT") as out:
                    rows = b"".join(out)
                started = time.perf_counter()
                with admin.cursor().copy("COPY bench.twin FROM STDIN") as copy:
                    copy.write(rows)
                return BULK / (time.perf_counter() - started)

        await ours()
        reached, limit = await alternating(rounds, ours, copied)
    met = reached >= 0.6 * limit and reached >= 50_000
    return [Figure("bulk append, 100,000 events over 10,000 streams", reached, "events/s", limit, "0.6 and 50,000/s", met)]  # fmt: skip


async def at_size(ground: Ground, size: int) -> list[Figure]:
    """Append rate and read latency with many events against few, ten to a stream in both.

    Appends go to as many streams in both; reads are of all.
    """
    async with ground.app() as (app, admin_url):

        async def settle() -> None:
            with psycopg.connect(admin_url, autocommit=True) as admin:
                admin.execute("VACUUM ANALYZE")

        async def fill(upto: int, start: int) -> None:
            for first in range(start, upto, BULK):
                async with app.transaction() as tx:
                    await tx.append(*(event(n, upto // 10) for n in range(first, first + BULK)))
            await settle()

        async def appending(streams: int) -> float:
            async def one(number: int, turn: int) -> None:
                await app.append(event(number + CALLERS * turn, streams))

            return sorted([await rate(one) for _ in range(3)])[1]

        async def reading(streams: int) -> float:
            times = []
            for n in range(1000):
                started = time.perf_counter()
                await app.log.stream(f"order/o{n * 331 % streams}", tenant="main", max_rows=10)
                times.append(time.perf_counter() - started)
            return sorted(times)[len(times) // 2] * 1000

        await fill(BULK, 0)
        few_rate, few_read = await appending(BULK // 10), await reading(BULK // 10)
        await fill(size, BULK)
        many_rate, many_read = await appending(BULK // 10), await reading(size // 10)
    return [
        Figure(f"append rate at {size:,} events against 100,000", many_rate, "events/s", few_rate, "0.9", many_rate >= 0.9 * few_rate),
        Figure(f"stream read at {size:,} events against 100,000 (ratio of speeds)", 1000 / many_read, "reads/s", 1000 / few_read, "0.9", few_read >= 0.9 * many_read),
    ]  # fmt: skip
