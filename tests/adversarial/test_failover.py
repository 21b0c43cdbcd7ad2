"""Failover: a standby is promoted, having all or having lost the log's end; nothing is answered wrongly after it."""

from __future__ import annotations

import asyncio
import os
from contextlib import closing

import psycopg
import pytest
from redis_server import RedisServer

from headwater import App, Document, Event, Settings
from headwater.errors import DatabaseReadOnly, HeadwaterError, NotCaughtUp, StaleToken
from headwater.stores.redis import Redis
from headwater.testing.standby import Standby

pytestmark = [pytest.mark.postgres, pytest.mark.adversarial]


LOGIN = "headwater_login"


class Counted(Event, type="counter.counted", stream="counter/{counter}"):
    counter: str
    n: int


class Seen(Document):
    count: int = 0
    total: int = 0
    last: int = 0


def make(url, redis=False):
    """Two folds of the same events: one beside the log, one in Redis where there is one."""
    app = App("counts", events=[Counted], tenant="main", settings=Settings.from_environment({**os.environ, "HEADWATER_DATABASE_URL": url}))  # fmt: skip

    def fold(state: Seen, event: Counted) -> Seen:
        return state.but(count=state.count + 1, total=state.total + event.n, last=event.n)

    app.fold(key="counter", name="here")(fold)
    if redis:
        app.fold(key="counter", name="there", store=Redis("fast"))(fold)
    return app


async def appended(app, numbers):
    """Appends numbers to four counters, tried again while no server takes writes; the last token."""
    written = None
    for n in numbers:
        written = await again(lambda n=n: app.append(Counted(f"c{n % 4}", n), idempotency_key=f"n{n}"))  # fmt: skip
    return written.token


async def again(what):
    """Does it as soon as it can be done."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await what()
            except (HeadwaterError, psycopg.Error, OSError):
                await asyncio.sleep(0.02)


async def test_a_standby_answers_reads_with_tokens_and_refuses_writes(own_server, tmp_path):
    with Standby(own_server.server.postgres, tmp_path / "standby") as standby:
        async with (
            make(own_server.url) as app,
            make(standby.url(own_server.name, user=LOGIN)) as copy,
        ):
            await app.deploy()
            async with app.relay():
                token = await appended(app, range(40))
                for name in ("c0", "c3"):
                    seen = await copy.view("here").get(name, at_least=token, timeout_seconds=60)
                    assert seen.count == 10
                assert len(await copy.log.read(max_rows=100)) == 40
                standby.cut_off()
                token = await appended(app, range(40, 44))
                await app.view("here").get("c0", at_least=token, timeout_seconds=60)
                with pytest.raises(NotCaughtUp):
                    await copy.view("here").get("c0", at_least=token, timeout_seconds=0.2)
                assert (await copy.view("here").get("c0")).count == 10
            with pytest.raises(DatabaseReadOnly, match="target_session_attrs"):
                await copy.append(Counted("c0", 1))


async def test_what_a_promoted_standby_lost_is_never_answered(own_server, tmp_path, monkeypatch):
    """The relay and the app live on; what rests on lost events is found, and made again from the log."""
    with (
        closing(RedisServer()) as redis,
        Standby(own_server.server.postgres, tmp_path / "standby") as standby,
    ):
        monkeypatch.setenv("HEADWATER_STORE_FAST_URL", redis.url())
        async with make(standby.either_url(own_server.name, user=LOGIN), redis=True) as app:
            await app.deploy()
            async with app.relay():
                kept = await appended(app, range(40))
                await app.view("there").get("c0", at_least=kept, timeout_seconds=60)
                await asyncio.to_thread(standby.catch_up)
                standby.cut_off()
                lost = await appended(app, range(100, 160))
                for view in ("here", "there"):
                    await app.view(view).get("c0", at_least=lost, timeout_seconds=60)
                waiting = asyncio.create_task(app.view("here").get("c0", at_least=beyond(lost), timeout_seconds=60))  # fmt: skip
                await asyncio.to_thread(own_server.server.postgres.kill)
                await asyncio.to_thread(standby.promote)

                # As many again, at the positions that were lost and past them.
                token = await appended(app, range(200, 280))
                assert token.split(".")[1] == "2"
                expected = await stored(app)
                assert [sorted(numbers) for numbers in expected.values()] == [
                    [n for n in (*range(40), *range(200, 280)) if n % 4 == c] for c in range(4)
                ]
                with pytest.raises(StaleToken):
                    await waiting
                assert await lowest_fence(app) > 1_000_000  # above any that was lost
                await again(lambda: found_stale(app, "there"))
                with pytest.raises(NotCaughtUp):
                    await app.view("there").get("c0", at_least=token, timeout_seconds=0.2)
                await app.stored("there").rebuild()
                for view in ("here", "there"):
                    for token_of_before in (kept, lost):
                        with pytest.raises(StaleToken):
                            await app.view(view).get("c0", at_least=token_of_before)
                    for counter, numbers in expected.items():
                        seen = await again(lambda v=view, c=counter: app.view(v).get(c, at_least=token, timeout_seconds=5))  # fmt: skip
                        assert (seen.count, seen.total, seen.last) == (len(numbers), sum(numbers), numbers[-1])  # fmt: skip
                    assert (await app.stored(view).verify()).equal


async def lowest_fence(app):
    async with app.database("headwater_operator").connection() as operator:
        query = "SELECT min(l.fence) FROM headwater.leases AS l JOIN headwater.views AS v ON v.view = l.name"
        return (await (await operator.execute(query)).fetchone())[0]


async def found_stale(app, view):
    """Returns once a relay has found that a view's data rests on what the log does not have."""
    async with app.database("headwater_operator").connection() as operator:
        query = "SELECT l.state, l.detail FROM headwater.leases AS l WHERE l.name = %s"
        state, detail = await (await operator.execute(query, (view,))).fetchone()
    if state != "stale" or "restored" not in detail:
        raise OSError(f"it is {state}: {detail}")


def beyond(token):
    """A token of a position that the old history never came to."""
    log, epoch, position = token.split(".")
    return f"{log}.{epoch}.{int(position) + 20}"


async def stored(app):
    """Each counter's numbers, as its stream holds them."""
    return {
        f"c{c}": [one.event.n for one in await app.log.stream(f"counter/c{c}", tenant="main")]
        for c in range(4)
    }


async def test_a_synchronous_standby_loses_nothing_that_was_answered(own_server, tmp_path):
    with Standby(own_server.server.postgres, tmp_path / "standby") as standby:
        with own_server.admin() as admin:
            admin.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            admin.execute("SELECT pg_reload_conf()")
        async with make(standby.either_url(own_server.name, user=LOGIN)) as app:
            await app.deploy()
            async with app.relay():
                answered = set()

                async def write(n):
                    await app.append(Counted(f"c{n % 4}", n), idempotency_key=f"n{n}")
                    answered.add(n)

                writers = [asyncio.create_task(again(lambda n=n: write(n))) for n in range(400)]
                while len(answered) < 100:
                    await asyncio.sleep(0)
                before = set(answered)
                await asyncio.to_thread(own_server.server.postgres.kill)
                await asyncio.to_thread(standby.promote)
                with psycopg.connect(standby.postgres.url(), autocommit=True) as admin:
                    admin.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
                    admin.execute("SELECT pg_reload_conf()")
                await asyncio.gather(*writers)
                numbers = [n for found in (await stored(app)).values() for n in found]
    assert before <= set(numbers)
    assert sorted(numbers) == list(range(400))  # and what was tried again is there once
