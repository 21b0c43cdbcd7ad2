"""How fast sagas of three steps are run by two processes, beside DBOS in the same run."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from importlib.util import find_spec
from statistics import median, quantiles
from typing import Any

import psycopg
from psycopg import sql

from bench.ground import LOGIN, SQL, Figure, Ground
from bench.saga_runs import dbos, processes
from bench.shop import Began, make
from headwater import App, Settings
from headwater.operations.migrate import create_login, migrate

SAGAS, EACH_SECOND, SECONDS = 1_000, 20, 5


async def sagas(ground: Ground) -> list[Figure]:
    """A saga of three commands; a workflow of three empty steps, without a queue, by DBOS."""
    url = await _database(ground, "bench_sagas")
    rate, middle, late = await ours(url, 3, SAGAS, EACH_SECOND, SECONDS)
    peer_rate, peer_middle = None, None
    if find_spec("dbos"):
        url = await _database(ground, "bench_dbos", bare=True)
        peer_rate, peer_middle = await dbos(url, 3, SAGAS, EACH_SECOND, SECONDS)
    return [
        Figure("sagas of 3 steps, 2 workers, beside DBOS", rate, "sagas/s", peer_rate, "1", peer_rate is None or rate >= peer_rate),
        Figure(f"from a saga's event to its end at {EACH_SECOND}/s, p50, beside DBOS", middle, "ms", peer_middle),
        Figure(f"from a saga's event to its end at {EACH_SECOND}/s, p99", late, "ms"),
    ]  # fmt: skip


async def ours(
    url: str, turns: int, count: int, each_second: int, seconds: int
) -> tuple[float, float, float]:
    """Sagas a second, and how long one takes at a steady rate in ms: p50 and p99."""
    app = make(Settings(database_url=url, pool_size=20), sagas=True)
    async with app:
        await app.deploy()
        async with app.relay(), processes("headwater", url, 0, 0) as started:
            for one in started:
                one.stdin.write(b"\n")
            await _through(app, 200, "warm")
            rates = [await _through(app, count, f"t{turn}") for turn in range(turns)]
            ended = await _ended(app)
            for n in range(each_second * seconds):
                await app.append(Began(f"steady{n}", Decimal(n)))
                await asyncio.sleep(1 / each_second)
            await _until(app, ended + each_second * seconds)
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
