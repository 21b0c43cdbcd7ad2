"""Queues as operators and monitors meet them: command line, HTTP, metrics, doctor, traces."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jobs_shop
import pytest
from jobs_shop import events, make, until
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from warm import warm

from headwater.examined import examined, metrics_of
from headwater.jobs.operating import Jobs
from tests.support.web import serving_of, token_for

pytestmark = pytest.mark.postgres
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def database(database18):
    """What is tested here does not hang on the version of Postgres."""
    return database18


async def with_a_dead_letter(app, tenant=None):
    made = await app.enqueue(app.jobs["refuse"](), tenant=tenant)
    jobs = Jobs(app.database("headwater_operator"))
    async with app.working("plain"):

        async def dead():
            return (await jobs.show(made.id)).state == "dead"

        await until(dead)
    return made.id


async def test_operators_see_counts_and_a_tenant_its_own_jobs(database18):
    async with make(database18) as app, serving_of(app) as client:
        mine = await with_a_dead_letter(app)
        theirs = await with_a_dead_letter(app, "other")
        _, reads = await token_for(client, "main", scopes=["read"])
        _, operates = await token_for(client, None, scopes=["operate"])
        dead = (await client.get("/v1/dead", headers=reads)).json()
        assert [one["id"] for one in dead] == [mine]
        shown = (await client.get(f"/v1/jobs/{mine}", headers=reads)).json()
        assert (shown["state"], shown["failures"][0]["attempt"]) == ("dead", 1)
        assert (await client.get(f"/v1/jobs/{theirs}", headers=reads)).status_code == 404
        for path in ("/v1/queues", "/v1/schedules"):
            assert (await client.get(path, headers=reads)).status_code == 403
        assert (await client.get(f"/v1/jobs/{mine}", headers=operates)).status_code == 403
        (plain,) = [q for q in (await client.get("/v1/queues", headers=operates)).json() if q["queue"] == "plain"]  # fmt: skip
        assert (plain["dead"], plain["failed"], plain["paused"]) == (2, 2, False)
        done = await client.post("/v1/queues/plain/pause", headers=operates)
        assert done.json()["state"] == "paused"
        assert (await client.post("/v1/queues/none/pause", headers=operates)).status_code == 404
        again = await client.post("/v1/dead/replay", params={"queue": "plain"}, headers=operates)
        assert again.json()["replayed"] == 2
        waiting = await app.enqueue(app.jobs["note"]("x"))
        ended = await client.post(f"/v1/jobs/{waiting.id}/cancel", headers=operates)
        assert ended.json()["state"] == "cancelled"
        assert (await client.post(f"/v1/jobs/{waiting.id}/cancel", headers=operates)).status_code == 404  # fmt: skip
        metrics = (await client.get("/metrics", headers=operates)).text
        assert 'headwater_waiting_jobs{queue="plain"} 2' in metrics
        assert 'headwater_queue_paused{queue="plain"} 1' in metrics
        assert 'headwater_job_failures_total{queue="plain"} 2' in metrics


async def test_the_doctor_names_what_keeps_jobs_waiting(database18):
    async with make(database18) as app:
        await app.deploy()

        async def found():
            return [f.finding for f in await examined(app) if f.check == "jobs"]

        assert (await found())[0].startswith("5 queues")
        await with_a_dead_letter(app)
        await app.enqueue(app.jobs["mail_note"]("x"), lane="paid")
        assert await found() == ["nobody works, and jobs wait in mail", "1 dead letters"]
        assert 'headwater_oldest_job_seconds{queue="mail"}' in await metrics_of(app)


async def test_a_job_continues_the_trace_of_who_enqueued_it(database18, monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    events.clear()
    async with make(database18) as app:
        await app.deploy()
        with trace.get_tracer("test").start_as_current_span("request") as request:
            await app.enqueue(app.jobs["note"]("traced"))
        async with app.working("plain"):
            await until(lambda: "traced" in events)
    (span,) = [one for one in exporter.get_finished_spans() if one.name == "job note"]
    assert span.context.trace_id == request.get_span_context().trace_id
    assert span.parent.span_id == request.get_span_context().span_id


def test_the_command_line_works_and_shows(database18):
    """Each in a process of its own; a worker that is interrupted settles what it has and ends."""
    support = Path(jobs_shop.__file__).parent
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")}
    environment = inherited | {
        "HEADWATER_DATABASE_URL": database18.url, "HEADWATER_APP": "jobs_app:app",
        "PYTHONPATH": str(support), "COLUMNS": "200",
    }  # fmt: skip

    def headwater(*arguments, exits=0):
        done = warm().run(arguments, env=environment)
        assert done.returncode == exits, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    worker = subprocess.Popen(
        [sys.executable, "-m", "headwater", "work", "--lease", "5"], env=environment, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        assert worker.stdout.readline().startswith("working on plain, mail")
        with database18.admin() as admin:
            admin.execute("SET ROLE headwater_app")
            admin.execute("SELECT set_config('headwater.tenant', 'main', false)")
            (done,) = admin.execute("""SELECT id FROM headwater.enqueue('plain', 'threaded', '{"text": "cli"}')""").fetchone()  # fmt: skip
            (bad,) = admin.execute("SELECT id FROM headwater.enqueue('plain', 'refuse')").fetchone()
            (unfit,) = admin.execute("""SELECT id FROM headwater.enqueue('plain', 'note', '{"text": 5}')""").fetchone()  # fmt: skip
            admin.execute("RESET ROLE")
            while admin.execute("SELECT count(*) FROM headwater.job_outcomes").fetchone() != (3,):
                pass
        shown = json.loads(headwater("jobs", "--show", done))
        assert (shown["state"], shown["result"]) == ("done", "cli")
        assert "arguments do not fit" in json.loads(headwater("jobs", "--show", unfit))["failures"][0]["reason"]  # fmt: skip
        assert {row["id"] for row in json.loads(headwater("jobs", "--dead", "--json"))} == {bad, unfit}  # fmt: skip
        assert headwater("jobs", "--pause", "--queue", "plain") == "queue plain: paused\n"
        assert headwater("jobs", "--replay", bad, "--replay", 999, exits=1) == "1 enqueued again\n"
        (plain,) = json.loads(headwater("jobs", "--queue", "plain", "--json"))
        assert (plain["paused"], plain["waiting"], plain["dead"]) == (True, 1, 1)
        headwater("jobs", "--queue", "nowhere", exits=2)
        headwater("jobs", "--pause", exits=2)
        headwater("jobs", "--cancel", done, exits=2)
        assert headwater("schedules") == "There is no schedule.\n"
    finally:
        worker.send_signal(signal.SIGINT)
        assert worker.wait(30) == 130
        worker.stdout.close()
