"""How fast sagas of three steps are run by two processes, beside DBOS in the same run."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from importlib.util import find_spec
from statistics import median, quantiles
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from bench.ground import LOGIN, SQL, Figure, Ground
from bench.shop import Began, make
from headwater import App, Settings
from headwater.operations.migrate import create_login, migrate

SAGAS, EACH_SECOND, SECONDS = 1_000, 20, 5


async def sagas(ground: Ground) -> list[Figure]:
    """A saga of three commands; a workflow of three empty steps, without a queue, by DBOS."""
    rate, middle, late = await ours(ground)
    peer_rate, peer_middle = await dbos(ground) if find_spec("dbos") else (None, None)
    return [
        Figure("sagas of 3 steps, 2 workers, beside DBOS", rate, "sagas/s", peer_rate, "1", peer_rate is None or rate >= peer_rate),
        Figure(f"from a saga's event to its end at {EACH_SECOND}/s, p50, beside DBOS", middle, "ms", peer_middle),
        Figure(f"from a saga's event to its end at {EACH_SECOND}/s, p99", late, "ms"),
    ]  # fmt: skip


async def ours(ground: Ground) -> tuple[float, float, float]:
    """Sagas a second, and how long one takes at a steady rate in ms: p50 and p99."""
    url = await _database(ground, "bench_sagas")
    app = make(Settings(database_url=url, pool_size=20), sagas=True)
    async with app:
        await app.deploy()
        async with app.relay(), _processes("headwater", url, 0, 0) as started:
            for one in started:
                one.stdin.write(b"\n")
            await _through(app, 200, "warm")
            rates = [await _through(app, SAGAS, f"t{turn}") for turn in range(3)]
            ended = await _ended(app)
            for n in range(EACH_SECOND * SECONDS):
                await app.append(Began(f"steady{n}", Decimal(n)))
                await asyncio.sleep(1 / EACH_SECOND)
            await _until(app, ended + EACH_SECOND * SECONDS)
            rows = await _rows(app, "bench.saga_waits")
            for one in started:
                one.stdin.write(b"\n")
    waits = [float(row[0]) for row in rows]
    return median(rates), median(waits), quantiles(waits, n=100)[98]


async def _through(app: App, count: int, name: str) -> float:
    wanted = await _ended(app) + count
    began = time.perf_counter()
    await app.append(*[Began(f"{name}-{n}", Decimal(n)) for n in range(count)])
    await _until(app, wanted)
    return count / (time.perf_counter() - began)


async def _until(app: App, ended: int) -> None:
    while await _ended(app) < ended:
        await asyncio.sleep(0.02)


async def _ended(app: App) -> int:
    return int((await _rows(app, "bench.sagas_ended"))[0][0])


async def _rows(app: App, statement: str) -> list[Any]:
    async with app.database("headwater_operator").connection() as connection:
        return await (await connection.execute(SQL[statement])).fetchall()


async def dbos(ground: Ground) -> tuple[float, float]:
    """The same of DBOS, in the median of three turns."""
    url = await _database(ground, "bench_dbos", bare=True)
    rates = []
    for _ in range(3):
        async with _processes("dbos", url, SAGAS // 2, 0) as started:
            told = await _ran(started)
        rates.append(SAGAS / max(seconds for seconds, _ in told))
    async with _processes("dbos", url, EACH_SECOND * SECONDS // 2, EACH_SECOND / 2) as started:
        told = await _ran(started)
    return median(rates), median([wait for _, waits in told for wait in waits])


async def _ran(started: list[Any]) -> list[tuple[float, list[float]]]:
    for one in started:
        one.stdin.write(b"\n")
    return [msgspec.json.decode(await one.stdout.readline(), type=tuple[float, list[float]]) for one in started]  # fmt: skip


async def _database(ground: Ground, name: str, *, bare: bool = False) -> str:
    with psycopg.connect(ground.server.url(), autocommit=True) as admin:
        for verb in ("DROP DATABASE IF EXISTS {} WITH (FORCE)", "CREATE DATABASE {}"):
            admin.execute(sql.SQL(verb).format(sql.Identifier(name)))
    url = ground.server.url(name)
    if bare:
        return url
    await migrate(url)
    await create_login(url, LOGIN, database_owner=True)
    return ground.server.url(name, user=LOGIN)


@asynccontextmanager
async def _processes(system: str, url: str, count: int, each: float) -> AsyncIterator[list[Any]]:
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
