"""Schedules: one run at a time whatever the processes, missed runs by policy, every run a fact."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from jobs_shop import until

from headwater import App, Retry, ScheduleRan, Settings, this_job
from headwater.errors import UnknownJob
from headwater.jobs.operating import Jobs

pytestmark = pytest.mark.postgres
MINUTE = timedelta(seconds=60)


@pytest.fixture
def database(database18):
    """What is tested here does not hang on the version of Postgres."""
    return database18


def make(database, begun, *, missed="once", gate=None):
    app = App("clock", tenant="main", settings=Settings(database_url=database.url))
    app.queue("clock", workers=4)

    @app.job(queue="clock", retry=Retry(attempts=2, first_seconds=0.01))
    async def tick(fails: bool = False) -> None:
        begun.append(this_job().id)
        if gate is not None:
            await gate.wait()
        if fails:
            raise ValueError("out of order")

    app.schedule("ticks", tick(), every_seconds=60, missed=missed, late_seconds=30)
    app.schedule("broken", tick(fails=True), cron="0 0 1 1 *", zone="Europe/Berlin")
    return app


async def runs(app, name="ticks"):
    return [one.event for one in await app.log.stream(f"schedule/{name}", tenant="main")]


async def next_of(app, name="ticks"):
    (row,) = [row for row in await Jobs(app.database("headwater_operator")).schedules() if row[0] == name]  # fmt: skip
    return row


async def test_a_run_is_enqueued_once_by_many_and_is_a_fact(database):
    begun = []
    async with make(database, begun) as app, make(database, begun) as other:
        await app.deploy()
        await other.deploy()
        planned = (await next_of(app))[4]
        assert not await app.scheduler.look()
        found = await asyncio.gather(*[one.scheduler.look(planned) for one in (app, other) * 4])
        assert sum(map(len, found)) == 1
        async with app.working(), other.working():
            await until(lambda: len(begun) == 1)

            async def told():
                return await runs(app)

            (run,) = await until(told)
        assert isinstance(run, ScheduleRan)
        assert (run.schedule, run.planned, run.outcome, run.attempts, run.job) == ("ticks", planned, "done", 1, begun[0])  # fmt: skip
        assert 0 <= run.seconds < 10
        row = await next_of(app)
        assert (row[4], row[6], row[7], row[8]) == (planned + MINUTE, None, planned, "done")


@pytest.mark.parametrize(("missed", "planned_for"), [("skip", []), ("once", [3]), ("all", [0, 1, 2, 3])])  # fmt: skip
async def test_missed_runs_by_policy_one_at_a_time(database18, missed, planned_for):
    """A run that takes too long delays those planned meanwhile: they are missed, and never beside it."""
    begun, gate = [], asyncio.Event()
    async with make(database18, begun, missed=missed, gate=gate) as app:
        await app.deploy()
        first = (await next_of(app))[4]
        await app.scheduler.look(first)
        late = first + 4.9 * MINUTE + timedelta(seconds=1)
        async with app.working():
            await until(lambda: len(begun) == 1)
            assert not await app.scheduler.look(late), "one is under way"
            gate.set()
            expected = [first, *(first + (n + 1) * MINUTE for n in planned_for)]

            async def made_up_for():
                await app.scheduler.look(late)
                done = await runs(app)
                return len(done) == len(expected) and done

            done = await until(made_up_for)
            assert not await app.scheduler.look(late)
        assert [run.planned for run in done] == expected


async def test_a_run_that_fails_for_good_is_a_fact_too(database18):
    begun = []
    async with make(database18, begun) as app:
        await app.deploy()
        await app.scheduler.look((await next_of(app, "broken"))[4])
        async with app.working():

            async def told():
                return await runs(app, "broken")

            (run,) = await until(told)
        assert (run.outcome, run.attempts) == ("dead", 2)
        assert run.reason.startswith("ValueError: out of order")
        assert len(await Jobs(app.database("headwater_operator")).dead()) == 1


async def test_a_run_cancelled_before_it_began_lets_the_next_go_on(database18):
    begun = []
    async with make(database18, begun) as app:
        await app.deploy()
        jobs = Jobs(app.database("headwater_operator"))
        planned = (await next_of(app))[4]
        await app.scheduler.look(planned)
        await jobs.cancel((await next_of(app))[6])
        assert await app.scheduler.look(planned + MINUTE) == ["ticks"]
        assert [run.outcome for run in await runs(app)] == ["cancelled"]
        await jobs.pause_schedule("ticks", pause=True)
        assert not await app.scheduler.look(planned + 9 * MINUTE)
        with pytest.raises(UnknownJob):
            await jobs.pause_schedule("tocks", pause=True)
        assert (await next_of(app))[4] == planned + 2 * MINUTE
    assert datetime.now(UTC) < planned + MINUTE
