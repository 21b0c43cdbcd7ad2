"""Queues: order and limits of keys, caps, rates, lanes, fences."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import psycopg
import pytest
from jobs_shop import Ordered, events, idle, make, states, until

from headwater import this_job

pytestmark = pytest.mark.postgres


@pytest.fixture
def app(jobs_app):
    return jobs_app


@pytest.fixture
def app18(jobs_app18):
    return jobs_app18


async def test_order_and_limits_per_key_with_delays(app):
    told = app.jobs["keyed_note"]
    for n in range(6):
        for key in ("a", "b"):
            await app.enqueue(told(f"{key}{n}"), key=key)
    began = time.monotonic()
    delayed = await app.enqueue(told("delayed"), delay_seconds=0.3)
    async with app.working():
        await until(lambda: "delayed" in events)
        assert time.monotonic() - began >= 0.3
        await idle(app, "keyed")
    assert time.monotonic() - began >= 5 * 0.05
    for key in ("a", "b"):
        own = [event for event in events if key in event.split()[-1][0] and "delayed" not in event]
        assert own == [word for n in range(6) for word in (f"{key}{n}", f"end {key}{n}")]
    assert (await states(app).show(delayed.id)).state == "done"


async def test_order_per_key_is_the_streams_order(app18):
    """Of two transactions that touch one stream the first to begin may be the second to write."""
    told = app18.jobs["keyed_note"]
    url = app18.settings.database_url
    async with (
        await psycopg.AsyncConnection.connect(url) as early,
        await psycopg.AsyncConnection.connect(url) as later,
    ):
        for connection in (early, later):
            await connection.execute("SET ROLE headwater_app")
        await app18.on(early).append(Ordered("other", 0))  # now it has the older transaction id
        await app18.on(later).append(Ordered("k", 0))
        await app18.on(later).enqueue(told("first"), key="k")
        await later.commit()
        await app18.on(early).append(Ordered("k", 0))
        await app18.on(early).enqueue(told("second"), key="k")
        await early.commit()
    async with app18.working("keyed"):
        await until(lambda: "end second" in events)
    assert events == ["first", "end first", "second", "end second"]


async def test_one_job_for_a_unique_key_while_it_is_unfinished(app18):
    note = app18.jobs["note"]
    first = await app18.enqueue(note("one"), unique_key="u")
    again = await app18.enqueue(note("two"), unique_key="u")
    assert (again.ids, again.duplicates) == (first.ids, [True])
    theirs = await app18.enqueue(note("theirs"), unique_key="u", tenant="other")
    assert theirs.duplicates == [False]
    async with app18.working():
        await until(lambda: len(events) == 2)
        await idle(app18)
    assert sorted(events) == ["one", "theirs"]
    assert (await app18.enqueue(note("three"), unique_key="u")).duplicates == [False]


async def test_caps_hold_over_processes_and_rates_over_time(app18):
    running, most = 0, 0
    async with make_again(app18) as other:
        for one in (app18, other):
            for n in range(20):
                await one.enqueue(one.jobs["capped_note"](f"c{n}", seconds=0.01))
        for n in range(12):
            await app18.enqueue(app18.jobs["slow_note"](f"s{n}"))
        began = time.monotonic()
        async with app18.working(), other.working():
            await until(lambda: sum(event.startswith("end") for event in events) == 52)
        took = time.monotonic() - began
    for event in events:
        if event.split()[-1].startswith("c"):
            running += -1 if event.startswith("end") else 1
            most = max(most, running)
    assert most == 2
    assert took >= (12 - 2) / 20 * 0.99


def make_again(app):
    class Same:
        url = app.settings.database_url

    return make(Same)


async def test_free_jobs_delay_no_paid_ones_and_are_not_starved(app18):
    told = app18.jobs["mail_note"]
    await app18.enqueue(*[told(f"free {n}", seconds=0.002) for n in range(400)], lane="free")
    async with app18.working("mail"):
        await until(lambda: len(events) > 20)
        await app18.enqueue(*[told(f"paid {n}", seconds=0.002) for n in range(80)], lane="paid")
        await app18.enqueue(told("urgent"), lane="urgent")
        at = len(events)
        await until(lambda: sum(e.startswith("paid") for e in events) == 80)
        began = [event for event in events[at:] if not event.startswith("end")]
    first = began[:60]
    assert "urgent" in first[:8]
    assert sum(e.startswith("free") for e in first) in range(3, 20)


async def test_a_key_with_a_limit_of_two_runs_two_and_no_more(app18):
    """The others wait for one of their own key, whoever else runs; they begin in order."""
    running, most, begun = Counter(), Counter(), []
    gate = asyncio.Event()
    queue = app18.queue("pairs", workers=8, key_limit=2)

    @app18.job(queue=queue)
    async def pair(n: int) -> None:
        key = this_job().key
        begun.append((key, n))
        running[key] += 1
        most[key] = max(most[key], running[key])
        await gate.wait()
        running[key] -= 1

    await app18.deploy()
    for n in range(6):
        for key in ("a", "b"):
            await app18.enqueue(pair(n), key=key)
    async with app18.working("pairs"):
        await until(lambda: len(begun) == 4)

        async def blocked():
            (state,) = [q for q in await states(app18).queues() if q.queue == "pairs"]
            return (state.running, state.later) == (4, 8)

        await until(blocked)
        gate.set()
        await until(lambda: len(begun) == 12)
        await idle(app18, "pairs")
    assert most == {"a": 2, "b": 2}
    for key in ("a", "b"):
        order = [n for k, n in begun if k == key]
        assert all(abs(n - at) <= 1 for at, n in enumerate(order)), order


async def test_each_time_a_job_is_given_its_fence_grows(app18):
    """Given back, it keeps its attempt; whoever has it next has a higher fence all the same."""
    fences = []

    @app18.job(queue="plain")
    async def fenced() -> None:
        fences.append((this_job().attempt, this_job().fence))
        if len(fences) < 3:
            await asyncio.Event().wait()

    await app18.enqueue(fenced())
    for count in (1, 2):
        async with app18.working("plain") as work:
            await until(lambda count=count: len(fences) == count)
            await work.stop(grace_seconds=0)
    async with app18.working("plain"):
        await until(lambda: len(fences) == 3)
        await idle(app18)
    assert [attempt for attempt, _ in fences] == [1, 1, 1]
    assert fences[0][1] < fences[1][1] < fences[2][1]
