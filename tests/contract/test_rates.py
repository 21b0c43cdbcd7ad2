"""Limits on how often callers come, counted in Postgres and in Redis."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import httpx
import pytest
from redis_server import RedisServer
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from headwater.entrances.asgi import RateLimits
from headwater.errors import DefinitionError, StoreUnavailable
from headwater.rates import Limiter, Plan, PostgresCounters, Want
from headwater.stores.redis.rates import RedisCounters
from tests.support.web import shop_app

pytestmark = pytest.mark.postgres

FREE = Plan("free", requests=5, per_seconds=3600)
QUICK = Plan("quick", requests=20, per_seconds=1, burst=2)


@asynccontextmanager
async def postgres(database):
    async with shop_app(database, tenant="main") as app:
        yield PostgresCounters(app)


@asynccontextmanager
async def redis(_):
    server = RedisServer()
    counters = RedisCounters(server.url())
    try:
        yield counters
    finally:
        await counters.close()
        server.close()


@pytest.fixture(params=[postgres, redis], ids=["postgres", "redis"])
async def counters(request, database18):
    async with request.param(database18) as counters:
        yield counters


async def test_a_burst_goes_on_and_the_rest_is_told_when(counters):
    limiter = Limiter(counters)
    decisions = [await limiter.take("ada", FREE) for _ in range(6)]
    assert [d.allowed for d in decisions] == [True] * 5 + [False]
    assert [d.remaining for d in decisions] == [4, 3, 2, 1, 0, 0]
    assert 700 < decisions[5].retry_seconds <= 720
    assert 3590 < decisions[5].reset_seconds <= 3600
    assert (await limiter.take("bob", FREE)).remaining == 4
    await limiter.close()


async def test_what_is_made_up_for_may_come_again(counters):
    limiter = Limiter(counters)
    began = time.monotonic()
    allowed = 0
    while allowed < 12:
        decision = await limiter.take("ada", QUICK)
        allowed += decision.allowed
        if not decision.allowed:
            assert 0 < decision.retry_seconds <= QUICK.every_seconds
            await asyncio.sleep(decision.retry_seconds)
    assert time.monotonic() - began >= 10 * QUICK.every_seconds - 0.005


async def test_many_at_once_over_several_limiters_never_pass_the_burst(counters):
    limiters = [Limiter(counters) for _ in range(3)]
    plan = Plan("shared", requests=100, per_seconds=36000)
    decisions = await asyncio.gather(*(limiters[n % 3].take(f"k{n % 2}", plan) for n in range(600)))
    assert sum(d.allowed for d in decisions) == 200
    assert all(d.retry_seconds > 0 for d in decisions if not d.allowed)


async def test_counts_are_granted_in_part(counters):
    taken = await counters.take([Want("b", FREE, 4), Want("a", FREE, 1)])
    assert [t.granted for t in taken] == [4, 1]
    (again,) = await counters.take([Want("b", FREE, 4)])
    assert again.granted == 1


async def test_keys_that_are_due_no_more_go(database18):
    async with postgres(database18) as counters, shop_app(database18, tenant="main") as app:
        await counters.take([Want("old", QUICK, 1), Want("new", FREE, 1)])
        with database18.admin() as admin:
            admin.execute("UPDATE headwater.rates SET due = due - 3600 WHERE key = 'old'")
        async with app.database("headwater_relay").connection() as connection:
            cursor = await connection.execute("SELECT headwater.purge_rates()")
            assert await cursor.fetchone() == (1,)


async def test_the_middleware_tells_callers_of_their_limits(counters):
    async with client_of(Limiter(counters)) as client:
        answers = [await client.get("/", headers={"Caller": "ada"}) for _ in range(6)]
        assert [a.status_code for a in answers] == [200] * 5 + [429]
        assert answers[0].headers["RateLimit-Policy"] == '"free";q=5;w=3600'
        assert answers[0].headers["RateLimit"] == '"free";r=4;t=720'
        refused = answers[5]
        assert refused.json()["code"] == "rate_exceeded"
        assert 700 < int(refused.headers["Retry-After"]) <= 720
        assert refused.headers["RateLimit"] == '"free";r=0;t=3600'
        unlimited = await client.get("/")
        assert (unlimited.status_code, "RateLimit" in unlimited.headers) == (200, False)


async def test_without_counters_requests_go_on_or_are_refused(caplog):
    counters = RedisCounters("unix:///nowhere/redis.sock")
    with pytest.raises(StoreUnavailable):
        await counters.take([Want("a", FREE, 1)])
    async with client_of(Limiter(counters)) as client:
        assert (await client.get("/", headers={"Caller": "ada"})).status_code == 200
    assert "rates cannot be counted" in caplog.text
    async with client_of(Limiter(counters), without_counters="refuse") as client:
        refused = await client.get("/", headers={"Caller": "ada"})
        assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
    await counters.close()


@pytest.mark.parametrize(
    "wrong", [{"requests": 0}, {"per_seconds": 0}, {"burst": 0}, {"name": 'a"'}]
)
def test_a_plan_allows_something(wrong):
    with pytest.raises(DefinitionError):
        Plan(**({"name": "free", "requests": 1, "per_seconds": 1} | wrong))


@asynccontextmanager
async def client_of(limiter, **options):
    async def answer(_):
        return PlainTextResponse("hello")

    def who(connection):
        caller = connection.headers.get("caller")
        return None if caller is None else (caller, FREE)

    api = Starlette(routes=[Route("/", answer)])
    api.add_middleware(RateLimits, limiter=limiter, who=who, **options)
    transport = httpx.ASGITransport(api)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        yield client
    await limiter.close()


@pytest.mark.parametrize(
    "strange",
    [["x" * 600 + "1", "x" * 600 + "2"], ["b\x00"], ["b\ud800"]],
    ids=["long", "nul", "surrogate"],
)
async def test_whatever_callers_are_called_the_others_are_counted(counters, strange):
    """Those who come at the same time share a round trip: one's name must not fail the others'."""
    limiter = Limiter(counters)
    asked = ["ada", *strange, "bob", "ada", *strange]
    plan = Plan("single", requests=1, per_seconds=3600)
    decisions = await asyncio.gather(*(limiter.take(key, plan) for key in asked))
    given = len(strange)
    assert [d.allowed for d in decisions] == [True] * (given + 2) + [False] * (given + 1)
    await limiter.close()
