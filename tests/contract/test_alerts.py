"""Alerts: raised after their time, told once to each channel, silenced, resolved; every change an event."""

from __future__ import annotations

import asyncio

import pytest
from jobs_shop import until
from receiver import receiving

from headwater import (
    AlertRaised,
    AlertResolved,
    App,
    Doctor,
    Metric,
    Retry,
    ScheduleFailed,
    Settings,
    Slack,
    Webhook,
)
from headwater.errors import JobDefinitionError, UnknownAlert
from headwater.jobs.alerts import Facts
from headwater.jobs.alerts.alerting import Alerting
from headwater.jobs.outgoing.signing import new_secret

pytestmark = pytest.mark.postgres
FACTS = Facts(
    'headwater_dead_jobs{queue="mail"} 3\nheadwater_dead_jobs{queue="other"} 0\nheadwater_relays 0\n# x',
    [("ok", "order", "fine"), ("warn", "jobs", "3 dead letters"), ("fail", "security", "open")],
    {"nightly": "dead", "hourly": "done", "new": None},
)


@pytest.fixture
def database(database18):
    """What is tested here does not hang on the version of Postgres."""
    return database18


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (Metric("headwater_dead_jobs", above=2), 'headwater_dead_jobs{queue="mail"} 3'),
        (Metric("headwater_dead_jobs", above=2, queue="other"), None),
        (Metric("headwater_dead_jobs", above=3), None),
        (Metric("headwater_relays", below=1), "headwater_relays 0"),
        (Metric("headwater_rel", below=1), None),
        (Doctor(), "jobs: 3 dead letters; security: open"),
        (Doctor(level="fail"), "security: open"),
        (Doctor("order"), None),
        (ScheduleFailed(), "the last run of nightly ended dead"),
        (ScheduleFailed("hourly"), None),
    ],
)
def test_conditions_hold_for_what_they_name(condition, holds):
    assert condition.holds(FACTS) == holds


def make(database, url, for_seconds=0.0):
    app = App("watch", tenant="main", settings=Settings(database_url=database.url))
    app.queue("plain", workers=2)

    @app.job(queue="plain", retry=Retry(attempts=1))
    async def fail() -> None:
        raise ValueError("no")

    slack = app.channel(Slack("ops", url, private=True))
    pager = app.channel(Webhook("pager", url, secret=new_secret(), private=True))
    app.alert("dead", Metric("headwater_dead_jobs", above=0, queue="plain"), to=[slack, pager], for_seconds=for_seconds)  # fmt: skip
    app.alert("never", Metric("headwater_relays", above=99), to=[slack])
    app.schedule("nightly", fail(), cron="0 0 1 1 *")
    app.digest(to=[slack])
    return app


def looking(app, every=0.0):
    known = app.alerting
    return Alerting(known.database, known.alerts, known.facts, known.tell, every)


async def changes(app):
    return [type(one.event) for one in await app.log.stream("alert/dead", tenant="main")]


async def dead_letter(app):
    await app.enqueue(app.jobs["fail"]())

    async def dead():
        return list(await app.jobs_now.dead())

    return await until(dead)


async def test_an_alert_is_raised_told_once_and_resolved(database):
    async with receiving() as receiver, make(database, receiver.url) as app:
        await app.deploy()
        assert await looking(app).look() == []
        async with app.working("plain", "alerts"):
            await dead_letter(app)
            # Several look at once, beside the service: one raises it, and the others find nothing due.
            with database.admin() as admin:
                admin.execute("UPDATE headwater.alerts SET looked_at = '-infinity'")
            await asyncio.gather(*[looking(app, 60.0).look() for _ in range(4)])

            async def raised():
                return await changes(app)

            await until(raised)
            assert [await looking(app).look() for _ in range(3)] == [[], [], []]
            assert await changes(app) == [AlertRaised]
            await until(lambda: len(receiver.got) == 2)
            slack, pager = sorted(receiver.bodies, key=lambda one: "text" not in one)
            assert slack["text"].startswith(":red_circle: *dead raised*")
            assert (pager["type"], pager["data"]["name"]) == ("alert.raised", "dead")
            assert sum("webhook-signature" in headers for headers, _ in receiver.got) == 1
            with database.admin() as admin:
                admin.execute("DELETE FROM headwater.job_dead")
            assert await looking(app).look() == ["dead"]
            assert await changes(app) == [AlertRaised, AlertResolved]
            await until(lambda: len(receiver.got) == 4)


async def test_a_silent_alert_is_told_when_the_silence_ends_and_a_short_one_never(database18):
    async with receiving() as receiver, make(database18, receiver.url) as app:
        await app.deploy()
        await app.outgoing_now.silence("dead", 3600)
        with pytest.raises(UnknownAlert):
            await app.outgoing_now.silence("none", 1)
        async with app.working("plain", "alerts"):
            await dead_letter(app)
            await looking(app).look()
            assert await changes(app) == [AlertRaised]
            told = (await app.jobs_now.queues())[0]
            assert (told.queue, told.waiting + told.running + told.settled) == ("alerts", 0)
            await app.outgoing_now.silence("dead", 0)
            await looking(app).look()
            await until(lambda: len(receiver.got) == 2)
            (dead, never) = await app.outgoing_now.alerts()
            assert (dead[1], never[1]) == ("raised", "ok")
    async with receiving() as receiver, make(database18, receiver.url, for_seconds=3600) as app:
        with database18.admin() as admin:
            admin.execute("UPDATE headwater.alerts SET since = NULL, raised_at = NULL")
        await looking(app).look()
        assert (await app.outgoing_now.alerts())[0][1] == "waiting"
        with database18.admin() as admin:
            admin.execute("UPDATE headwater.alerts SET since = since - interval '1 hour'")
        assert await looking(app).look() == ["dead"]


async def test_a_digest_counts_what_ran_and_failed(database18):
    async with receiving() as receiver, make(database18, receiver.url) as app:
        await app.deploy()
        async with app.working():
            await dead_letter(app)
            planned = next(row for row in await app.jobs_now.schedules() if row[0] == "nightly")[4]
            assert await app.scheduler.look(planned) != []

            async def recorded():
                return await app.log.stream("schedule/nightly", tenant="main")

            await until(recorded)
            # The digest's own schedule was due by then too; this one comes when the run is a fact.
            await app.enqueue(app.jobs["headwater.digest"](channels=["ops"]))

            def told():
                return [
                    one["text"]
                    for one in receiver.bodies
                    if "nightly: 1 dead" in one.get("text", "")
                ]

            text = (await until(told))[0]
        assert text.startswith("*The week's digest*\n")
        assert "queue plain: " in text


def test_what_cannot_be_told_is_refused_when_declared():
    app = App("odd", tenant="main")
    ops = app.channel(Webhook("ops", "https://hooks.example/1"))
    with pytest.raises(JobDefinitionError):
        Metric("headwater_relays")
    with pytest.raises(JobDefinitionError):
        app.channel(Slack("ops", "https://hooks.example/2"))
    with pytest.raises(JobDefinitionError):
        App("other", tenant="main").alert("x", Doctor(), to=[ops])
    with pytest.raises(JobDefinitionError):
        app.alert("Not a name", Doctor(), to=[ops])
    with pytest.raises(JobDefinitionError):
        app.webhooks([])
