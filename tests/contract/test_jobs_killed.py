"""Workers killed by SIGKILL, and Postgres restarted: no job is lost, none is completed twice in effect."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from functools import partial

import jobs_shop
import killed
import pytest
from jobs_shop import events, make, until

from headwater import Retry, this_job
from headwater.errors import HeadwaterError, LeaseLost
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

    await until(idle, seconds=90)


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
            assert await asyncio.wait_for(killed.wait(), 60) == -signal.SIGKILL
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


async def test_a_job_that_runs_twice_in_one_worker_is_done_once(database18):
    """As where a crash of the server lost that it was taken, and the same worker took it again."""
    with database18.admin() as admin:
        admin.execute(jobs_shop.LOG)
    app, refused = make(database18), []

    @app.job(queue="plain", retry=Retry(attempts=1))
    async def twice(note: str) -> None:
        job = this_job()
        both = asyncio.Barrier(2)

        async def run(one):
            try:
                async with one.transaction() as tx:
                    await tx.connection.execute("INSERT INTO public.effects (note) VALUES (%s)", (note,))  # fmt: skip
                    await both.wait()
            except LeaseLost as error:
                refused.append(error)

        await asyncio.gather(run(job), run(replace(job, taken=replace(job.taken))))

    async with app:
        await app.deploy()
        async with app.working():
            await app.enqueue(*[twice(str(n)) for n in range(10)])
            await all_done(app)
    assert sorted(note for _, note in effects(database18)) == sorted(str(n) for n in range(10))
    assert len(refused) == 10


LOSE = """WITH gone AS (DELETE FROM headwater.job_steps RETURNING 1)
DELETE FROM headwater.job_cursors AS c WHERE c.seq > (SELECT min(f.seq) FROM headwater.job_cursors AS f WHERE f.lane_id = c.lane_id)"""
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'headwater queue plain'"


async def test_a_run_whose_job_was_never_taken_ends(database18):
    """What was taken is not flushed at once, so a crash may lose it; the function must not run on beside its successor."""
    app, begun, ended = make(database18), [], []

    @app.job(queue="plain")
    async def linger() -> None:
        begun.append(this_job().id)
        first = len(begun) == 1
        try:
            await asyncio.sleep(60 if first else 0)
        finally:
            ended.append("first" if first else "second")

    async with app:
        await app.deploy()
        async with app.working("plain"):
            await app.enqueue(linger())
            await until(lambda: begun)
            with database18.admin() as admin, admin.transaction():
                admin.execute("LOCK headwater.job_queues")  # nobody takes it in between
                admin.execute(LOSE)
                admin.execute(CUT)
            await until(lambda: sorted(ended) == ["first", "second"])
            await all_done(app)
    assert len(set(begun)) == 1
