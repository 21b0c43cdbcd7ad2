"""What an application's own endpoints pay for limits and for answering once."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bench.appends import rate
from bench.ground import Figure, Ground, alternating
from bench.shop import event
from bench.stores import redis_server
from headwater import App
from headwater.entrances.asgi import Idempotency
from headwater.rates import Counters, Limiter, Plan, PostgresCounters
from headwater.stores.redis.rates import RedisCounters

CLIENTS = 16
DECIDERS = 64
CALLERS = 10_000
PLAN = Plan("bench", requests=1_000_000, per_seconds=1)


async def limits(ground: Ground, rounds: int) -> list[Figure]:
    """Decisions a second on 10,000 callers, by one process, in Postgres and in Redis."""
    with tempfile.TemporaryDirectory(prefix="hw-bench-") as folder, redis_server(folder) as url:
        redis = RedisCounters(url)
        async with ground.app() as (app, _):
            kept = median([await _decisions(PostgresCounters(app)) for _ in range(rounds)])
            fast = median([await _decisions(redis) for _ in range(rounds)])
        await redis.close()
    return [
        Figure("rate limit decisions in Postgres, one process", kept, "decisions/s", None, "5,000", kept >= 5_000),
        Figure("rate limit decisions in Redis, one process", fast, "decisions/s", None, "15,000", fast >= 15_000),
    ]  # fmt: skip


async def _decisions(counters: Counters) -> float:
    limiter = Limiter(counters)

    async def decide(number: int, turn: int) -> None:
        await limiter.take(f"c{(number + DECIDERS * turn) * 7919 % CALLERS}", PLAN)

    try:
        return await rate(decide, DECIDERS)
    finally:
        await limiter.close()


async def once(ground: Ground, rounds: int) -> list[Figure]:
    """An endpoint that appends in a transaction, with and without an idempotency key."""
    async with ground.app() as (app, _):
        api = _api(app)
        transport = httpx.ASGITransport(api)
        async with httpx.AsyncClient(transport=transport, base_url="http://bench") as client:
            keys = itertools.count(time.time_ns())

            def caller(path: str) -> Callable[[int, int], Any]:
                async def call(_: int, __: int) -> None:
                    answer = await client.post(path, headers={"Idempotency-Key": str(next(keys))})
                    assert answer.status_code == 200

                return call

            await rate(caller("/plain"), CLIENTS)
            with_key, without = await alternating(
                rounds,
                lambda: rate(caller("/once"), CLIENTS),
                lambda: rate(caller("/plain"), CLIENTS),
            )
    return [
        Figure(f"endpoint that answers once, {CLIENTS} clients, beside one that does not", with_key, "requests/s", without, "0.6", with_key >= 0.6 * without),
    ]  # fmt: skip


def _api(app: App) -> Starlette:
    idempotent = Idempotency(tenant="main")
    numbers = itertools.count(time.time_ns())

    async def plain(_: Request) -> Response:
        async with app.transaction() as tx:
            written = await tx.append(event(next(numbers), 100_000))
        return JSONResponse({"token": written.token})

    async def answered_once(request: Request) -> Response:
        claimed = await idempotent(request)
        async with app.transaction() as tx:
            if (first := await claimed.claim(tx.connection)) is not None:
                return first
            written = await tx.append(event(next(numbers), 100_000))
            return await claimed.settle(tx.connection, {"token": written.token})

    routes = [
        Route("/plain", plain, methods=["POST"]),
        Route("/once", answered_once, methods=["POST"]),
    ]
    return Starlette(routes=routes)
