"""Workers killed by SIGKILL, and Postgres restarted: no job is lost, none is completed twice in effect."""

from __future__ import annotations

import asyncio
import signal
from functools import partial

import jobs_shop
import killed
import pytest
from jobs_shop import events, make, until

from headwater.errors import HeadwaterError
from headwater.jobs.operating import Jobs
from headwater.testing.faults import JOB_POINTS

pytestmark = pytest.mark.postgres

KEYS, EACH = 4, 6


process = partial(killed.process, jobs_shop)


async def enqueue_effects(app, turn=0):
    """Jobs with a key, in a known order per key, and as many without."""
    effect = app.jobs["effect"]
    for n in range(turn * EACH, (turn + 1) * EACH):
        async with app.transaction() as tx:
            for key in range(KEYS):
                await tx.enqueue(effect(f"{key}.{n}"), key=str(key))
            await tx.enqueue(*[effect(f"plain {n}.{m}") for m in range(KEYS)])


def effects(database):
    with database.admin() as admin:
        return admin.execute("SELECT key, note FROM public.effects ORDER BY n").fetchall()


def assert_once_in_order(database, turns=1):
    rows, count = effects(database), turns * EACH
    for key in map(str, range(KEYS)):
        assert [note for k, note in rows if k == key] == [f"{key}.{n}" for n in range(count)]
    plain = sorted(note for key, note in rows if key is None)
    assert plain == sorted(f"plain {n}.{m}" for n in range(count) for m in range(KEYS))


async def all_done(app):
    async def idle():
        queues = await Jobs(app.database("headwater_operator")).queues()
        return not any(q.waiting or q.later or q.running for q in queues)

    await until(idle, seconds=40)


@pytest.mark.parametrize("point", JOB_POINTS)
async def test_a_worker_killed_at_a_named_point(database18, point):
    """Another takes over after the lease; what a job did in its own transaction is there once."""
    with database18.admin() as admin:
        admin.execute(jobs_shop.LOG)
    async with make(database18) as app:
        await app.deploy()
        await enqueue_effects(app)
        note = app.jobs["note"]
        told = await app.enqueue(*[note(f"t{n}") for n in range(30)])
        calls = 1 if "settle" in point else 3
        async with process(database18, point, calls) as killed:
            assert await asyncio.wait_for(killed.wait(), 30) == -signal.SIGKILL
        events.clear()
        async with app.working():
            await all_done(app)
        assert_once_in_order(database18)
        states = Jobs(app.database("headwater_operator"))
        assert {(await states.show(i)).state for i in told.ids} == {"done"}
        assert not await states.dead()


async def test_postgres_restarted_under_workers(own_server):
    """At once and in an orderly way, while two processes work."""
    with own_server.admin() as admin:
        admin.execute(jobs_shop.LOG)
    async with make(own_server) as app:
        await app.deploy()
        async with process(own_server, "never", 0) as worker, app.working():
            await worker.stdout.readline()
            for turn, mode in enumerate(("immediate", "fast", "immediate")):

                async def enqueued(turn=turn):
                    try:
                        await enqueue_effects(app, turn)
                    except HeadwaterError:  # the pool learns that its connections are gone
                        return False
                    return True

                before = len(effects(own_server))
                assert await until(enqueued)
                await until(lambda before=before: len(effects(own_server)) > before)
                await asyncio.to_thread(own_server.server.postgres.restart, mode)
            await all_done(app)
        assert_once_in_order(own_server, 3)


async def test_processes_killed_under_load(database18):
    """Two are killed while they work and another takes over, whatever the moment."""
    with database18.admin() as admin:
        admin.execute(jobs_shop.LOG)
    async with make(database18) as app:
        await app.deploy()
        for turn in range(3):
            await enqueue_effects(app, turn)
        async with process(database18, "never", 0) as one, process(database18, "never", 0) as two:
            for count, worker in ((10, one), (40, two)):
                await until(lambda count=count: len(effects(database18)) >= count)
                worker.kill()
        async with app.working():
            await all_done(app)
        assert_once_in_order(database18, 3)
