"""Queues: jobs commit with their facts, run once in effect, in order per key, within their limits."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime, timedelta

import asyncpg
import psycopg
import pytest
from jobs_shop import Ordered, events, idle, states, until
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from headwater.errors import (
    JobDefinitionError,
    JobRefused,
    TenantRefused,
    TransactionMissing,
    UnknownJob,
    UnknownQueue,
)
from headwater.testing.driving import drive, publish

pytestmark = pytest.mark.postgres


@pytest.fixture
def app(jobs_app):
    return jobs_app


@pytest.fixture
def app18(jobs_app18):
    return jobs_app18


async def test_a_job_commits_with_the_facts_or_not_at_all(app):
    note = app.jobs["note"]
    with pytest.raises(RuntimeError):
        async with app.transaction() as tx:
            await tx.append(Ordered("1", 5))
            await tx.enqueue(note("lost"))
            raise RuntimeError
    async with app.transaction() as tx:
        await tx.append(Ordered("2", 5))
        made = await tx.enqueue(note("kept", times=2), note("also"))
    async with app.working():
        await until(lambda: len(events) == 3)
        await idle(app)
    assert sorted(events) == ["also", "kept", "kept"]
    assert len(set(made.ids)) == 2
    assert (await states(app).show(made.id)).state == "done"


ITEMS = [
    {"job": "note", "arguments": {"text": "a"}, "metadata": {"actor": "ada"}},
    {"job": "note"},
    {"job": "note", "key": "k", "arguments": {}},
    {"job": "note", "lane": "none"},
    {"job": "no name!"},
    {"job": "note", "arguments": [1]},
    {"job": "note", "metadata": None},
    {"job": "note", "arguments": {"text": "x" * 70_000}},
    "note",
]


@pytest.mark.parametrize("item", ITEMS, ids=range(len(ITEMS)))
async def test_a_job_alone_is_enqueued_or_refused_as_it_is_among_others(app18, item):
    """One plain job takes a way of its own in the database: nobody may notice."""

    async def made(items):
        async with app18.database("headwater_app").transaction("main") as connection:
            found = await connection.execute("SELECT id FROM headwater.enqueue_jobs('plain', %s::jsonb)", [json.dumps(items)])  # fmt: skip
            (first, *_) = [row[0] for row in await found.fetchall()]
        async with app18.database("headwater_operator").connection() as connection:
            found = await connection.execute("SELECT to_jsonb(j) - '{id,xid,enqueued_at}'::text[] FROM headwater.jobs AS j WHERE id = %s", [first])  # fmt: skip
            return await found.fetchone()

    async def outcome(items):
        try:
            return await made(items)
        except (psycopg.Error, JobRefused) as error:
            return type(error), str(error).partition("\n")[0]

    assert await outcome([item]) == await outcome([item, {"job": "note"}])


async def test_one_that_commits_late_is_not_missed(app):
    """A later transaction's job is taken, and settled, before an earlier one commits."""
    note = app.jobs["note"]
    connection = await psycopg.AsyncConnection.connect(app.settings.database_url)
    await connection.execute("SET ROLE headwater_app")
    await app.on(connection).enqueue(note("late"), note("late 2"))
    async with app.working():
        for n in range(20):
            await app.enqueue(note(f"early {n}"))
            await until(lambda n=n: f"early {n}" in events)
        assert "late" not in events
        await connection.commit()
        await until(lambda: "late" in events and "late 2" in events)
        await idle(app)
    assert set(Counter(events).values()) == {1}
    await connection.close()


async def test_jobs_that_no_worker_has_looked_at_are_counted(app18):
    note = app18.jobs["note"]
    await app18.enqueue(note("plain"), *[note("keyed").but(key="k") for _ in range(3)], note("late").but(delay_seconds=3600))  # fmt: skip
    (state,) = [one for one in await states(app18).queues() if one.queue == "plain"]
    assert (state.waiting, state.later, state.running) == (4, 1, 0)
    assert state.oldest_seconds > 0


async def test_every_driver_enqueues_in_its_own_transaction(app18, database18):
    note, url = app18.jobs["note"], database18.url
    plain = url.replace("postgresql://", "postgresql+asyncpg://")
    host = url.partition("host=")[2].partition("&")[0].replace("%2F", "/")
    connection = await asyncpg.connect(
        host=host, user="headwater_login", database=database18.name, server_settings={"role": "headwater_app"}
    )  # fmt: skip
    async with connection.transaction():
        assert (await app18.on(connection).enqueue(note("asyncpg"))).duplicates == [False]
    await connection.close()
    engine = create_async_engine(plain.partition("?")[0].replace("@/", "@/") + f"?host={host}", connect_args={"server_settings": {"role": "headwater_app"}})  # fmt: skip
    async with AsyncSession(engine) as session, session.begin():
        await app18.on(session).enqueue(note("sqlalchemy"), lane="normal")
    await engine.dispose()
    with psycopg.connect(url) as blocking:
        blocking.execute("SET ROLE headwater_app")
        app18.on(blocking).enqueue(note("blocking"))
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SET ROLE headwater_app")
        other.execute("SELECT set_config('headwater.tenant', 'main', false)")
        other.execute("""SELECT headwater.enqueue('plain', 'note', '{"text": "sql"}')""")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as outside:
        with pytest.raises(TransactionMissing):
            await app18.on(outside).enqueue(note("no transaction"))
    async with app18.working():
        await until(lambda: len(events) == 4)
    assert sorted(events) == ["asyncpg", "blocking", "sql", "sqlalchemy"]


async def test_what_does_not_fit_is_refused_and_leaves_nothing(app18):
    note = app18.jobs["note"]
    for wrong in (
        lambda: note(5),
        note,
        lambda: note("x", other=1),
        lambda: note("x", times="2"),
    ):
        with pytest.raises(JobRefused):
            wrong()
    with pytest.raises(JobRefused, match="no lane"):
        await app18.enqueue(note("x"), lane="vip")
    with pytest.raises(UnknownQueue):
        async with app18.transaction() as tx:
            await tx.connection.execute("SELECT headwater.enqueue('nowhere', 'note')")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with app18.transaction() as tx:
            await tx.connection.execute("DELETE FROM headwater.jobs")
    with pytest.raises(TenantRefused):
        async with app18.transaction() as tx:
            await tx.connection.execute(
                "SELECT headwater.enqueue('plain', 'note', tenant => 'other')"
            )
    async with app18.transaction("other") as tx:
        await tx.enqueue(note("theirs"))
    async with app18.transaction() as tx:
        cursor = await tx.connection.execute("SELECT count(*) FROM headwater.jobs")
        assert await cursor.fetchone() == (0,)
    with pytest.raises(JobDefinitionError):
        app18.job(queue="nowhere")(note.function)
    with pytest.raises(JobDefinitionError):
        app18.job(queue="plain", name="bad")(lambda x: x)


async def test_a_job_fails_is_tried_again_and_dies_with_its_history(app):
    fail = app.jobs["fail"]
    good = await app.enqueue(fail(until=3))
    bad = await app.enqueue(fail(until=9))
    never = await app.enqueue(app.jobs["refuse"]())
    async with app.working():
        await idle(app)
    jobs = states(app)
    assert (await jobs.show(good.id)).state == "done"
    assert [f["attempt"] for f in (await jobs.show(good.id)).failures] == [1, 2]
    dead = await jobs.show(bad.id)
    assert (dead.state, len(dead.failures)) == ("dead", 3)
    assert "ValueError: not yet" in dead.failures[-1]["reason"]
    assert {row[0] for row in await jobs.dead()} == {bad.id, never.id}
    assert await jobs.replay([bad.id]) == 1
    assert await jobs.replay([bad.id]) == 0
    assert await jobs.replay() == 1
    async with app.working():
        (state,) = [await idle(app)]
    assert state.dead == 2
    assert state.failed == 2 + 3 + 1 + 3 + 1


async def test_results_progress_threads_processes_and_limits_of_time(app18):
    jobs = states(app18)
    answered = await app18.enqueue(app18.jobs["answer"](21))
    threaded = await app18.enqueue(app18.jobs["threaded"]("x"))
    squared = await app18.enqueue(app18.jobs["square"](12))
    hung = await app18.enqueue(app18.jobs["hang"]())
    late = await app18.enqueue(app18.jobs["note"]("late"), deadline=datetime.now(UTC) - timedelta(seconds=1))  # fmt: skip
    died = await app18.enqueue(app18.jobs["crash"](9))
    async with app18.working():
        await until(lambda: "x main" in events)
        seen = await jobs.show(died.id)

        async def crashed():
            return (await jobs.show(died.id)).failures

        assert "died" in (await until(crashed))[0]["reason"]
        await jobs.cancel(died.id)
        await idle(app18)
    assert seen.job == "crash"
    assert bytes((await jobs.show(answered.id)).result) == b'{"twice": 42}'
    assert bytes((await jobs.show(threaded.id)).result) == b'"x"'
    assert bytes((await jobs.show(squared.id)).result) == b"144"
    overdue = await jobs.show(hung.id)
    assert overdue.state == "dead"
    assert "longer than 0.1 s" in overdue.failures[0]["reason"]
    assert "deadline" in (await jobs.show(late.id)).failures[0]["reason"]
    assert (await jobs.show(died.id)).state == "cancelled"
    assert "late" not in events


async def test_cancel_pause_and_resume(app):
    note, jobs = app.jobs["note"], states(app)
    await jobs.pause("plain", pause=True)
    waits = await app.enqueue(app.jobs["wait"]())
    never = await app.enqueue(note("never"))
    held = [(await app.enqueue(note(f"k{n}"), key="k")).id for n in range(3)]
    assert await jobs.cancel(never.id) == "cancelled"
    async with app.working():
        await app.enqueue(app.jobs["capped_note"]("others go on"))
        await until(lambda: "end others go on" in events)
        assert len(events) == 2
        await jobs.pause("plain", pause=False)
        await until(lambda: "waiting" in events and "k2" in events)
        assert await jobs.cancel(waits.id) == "asked"
        await idle(app)
    assert (await jobs.show(waits.id)).state == "cancelled"
    assert (await jobs.show(never.id)).state == "cancelled"
    assert "never" not in events
    for gone in (never.id, held[0], 10**9):
        with pytest.raises(UnknownJob):
            await jobs.cancel(gone)
    with pytest.raises(UnknownQueue):
        await jobs.pause("nowhere", pause=True)


async def test_a_stop_gives_back_what_has_not_ended(app18):
    await app18.enqueue(*[app18.jobs["wait"]() for _ in range(6)])
    async with app18.working() as work:
        await until(lambda: events.count("waiting") == 4)
        await work.stop(grace_seconds=0.05)
    (state,) = [q for q in await states(app18).queues() if q.queue == "plain"]
    assert (state.running, state.waiting) == (0, 6)
    assert state.failed == 0


async def test_a_view_creates_jobs_with_its_checkpoint_and_a_rebuild_creates_none(app18):
    await app18.append(Ordered("1", 5))
    await app18.append(Ordered("1", 6))
    await app18.append(Ordered("2", 0))
    await publish(app18)
    view = app18.stored("receipts")
    await drive(app18, view, 1)
    await view.rebuild()
    await drive(app18, view, 2)
    async with app18.working():
        await until(lambda: len(events) == 2)
        state = await idle(app18)
    assert sorted(events) == ["receipt 1 11", "receipt 1 5"]
    assert state.settled == 2


async def test_segments_are_emptied_when_all_in_them_is_done(app, database):
    note = app.jobs["note"]
    await app.enqueue(*[note("x") for _ in range(300)])
    later = await app.enqueue(app.jobs["keyed_note"]("later"), delay_seconds=3600)
    async with app.working() as work:
        await until(lambda: len(events) == 300)
        await idle_but(app)
        with database.admin() as admin:

            def rotate():
                admin.execute("SELECT headwater.rotate_jobs(0, 1)")
                return admin.execute("SELECT count(*), max(segment) FROM headwater.jobs").fetchone()

            rotate()
            await app.enqueue(note("y"))
            await until(lambda: "y" in events)
            count, segment = rotate()
            assert (count, segment) == (1, 1), "the second segment holds one, the first is empty"
    assert work.worker
    assert (await states(app).show(later.id)).state == "waiting"


async def idle_but(app):
    async def none_running():
        return all(not q.running and not q.waiting for q in await states(app).queues())

    await until(none_running)


async def test_a_job_in_its_own_transaction_is_settled_with_its_effects(app18, database18):
    await app18.enqueue(*[app18.jobs["effect"](f"e{n}") for n in range(10)])
    await app18.enqueue(*[app18.jobs["effect"](f"k{n}") for n in range(5)], key="k")
    async with app18.working():
        await idle(app18)
    with database18.admin() as admin:
        rows = admin.execute("SELECT note FROM public.effects ORDER BY n").fetchall()
    assert sorted(row[0] for row in rows) == sorted([*[f"e{n}" for n in range(10)], *[f"k{n}" for n in range(5)]])  # fmt: skip
    assert [row[0] for row in rows if row[0].startswith("k")] == [f"k{n}" for n in range(5)]


async def test_who_lost_the_lease_settles_nothing(app18, database18):
    async with app18.working() as work:
        await app18.enqueue(app18.jobs["wait"]())
        await until(lambda: events == ["waiting"])
        first = work.worker
        with database18.admin() as admin:
            admin.execute("SELECT headwater.give_up_workers(%s)", [first])
            with pytest.raises(psycopg.Error, match="has lost its lease"):
                admin.execute(
                    "SELECT headwater.settle_jobs(%s, 'plain', ARRAY[1]::bigint[])", [first]
                )
        await until(lambda: events == ["waiting"] * 2)  # begun again, under another name
        assert work.worker != first
        await work.stop(grace_seconds=0)
    assert not [task for task in asyncio.all_tasks() if "headwater/jobs" in repr(task)]


async def test_a_database_restored_on_another_server_goes_on(app18, database18):
    """There transaction ids are smaller: what is waiting would lie in the future, and be found too late."""
    note, told = app18.jobs["note"], app18.jobs["keyed_note"]
    await app18.enqueue(*[note(f"old {n}") for n in range(5)])
    async with app18.working():
        await until(lambda: len(events) == 5)
        await idle(app18)
    await app18.enqueue(*[note(f"new {n}") for n in range(5)])
    await app18.enqueue(*[told(f"k{n}") for n in range(3)], key="k")
    with database18.admin() as admin:
        admin.execute("UPDATE headwater.jobs SET xid = (xid::text::bigint + 1000000)::text::xid8")
        for table, columns in (("job_cursors", ("before", "upto")), ("job_admissions", ("upto",))):
            for column in columns:
                admin.execute(
                    f"UPDATE headwater.{table} SET {column} = format('%%s:%%s:', pg_snapshot_xmax({column})::text::bigint + 1000000,"
                    f" pg_snapshot_xmax({column})::text::bigint + 1000000)::pg_snapshot WHERE {column}::text <> '1:1:'".replace(
                        "%%", "%"
                    )
                )
        admin.execute(
            "UPDATE headwater.job_cursors SET xid = (xid::text::bigint + 1000000)::text::xid8 WHERE xid <> '0'"
        )
        admin.execute("UPDATE headwater.job_ring SET system_identifier = 1")
    async with app18.working():
        await until(lambda: "end k2" in events and len(events) == 5 + 5 + 6)
        await app18.enqueue(note("after"))
        await until(lambda: "after" in events)
        await idle(app18)
    assert len(events) == len(set(events)) == 17


async def test_whatever_a_job_raises_or_carries_can_be_recorded(app18):
    """A NUL, a lone surrogate, an end of the process: none stops the worker."""
    odd = await app18.enqueue(app18.jobs["odd"]("raise"))
    nul = await app18.enqueue(app18.jobs["odd"]("return"))
    ends = await app18.enqueue(app18.jobs["odd"]("exit"))
    stops = await app18.enqueue(app18.jobs["odd"]("cancel"))
    async with app18.transaction() as tx:
        for wrong in ("'infinity'", "'-infinity'", "'1066-10-14'"):
            with pytest.raises(psycopg.Error, match="is not between"):
                async with tx.connection.transaction():
                    await tx.connection.execute(f"SELECT headwater.enqueue('plain', 'note', deadline => {wrong})")  # fmt: skip
        await tx.connection.execute(
            """SELECT headwater.enqueue('plain', 'note', '{"text": "carries"}', metadata => '{"schedule": 5, "trace": [], "a b": 1}')"""
        )
    async with app18.working():
        await until(lambda: "carries" in events)
        await idle(app18)
    jobs = states(app18)
    for job, reason in ((odd, "ValueError: ? and ?"), (nul, "NUL"), (ends, "SystemExit"), (stops, "CancelledError")):  # fmt: skip
        shown = await jobs.show(job.id)
        assert shown.state == "dead"
        assert reason in shown.failures[0]["reason"]
