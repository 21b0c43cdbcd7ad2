"""Queues and schedules, for operators; jobs and dead letters, for their tenant."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec
from starlette.responses import Response

from headwater.entrances.http.routes import Call
from headwater.jobs.operating import Jobs, JobState, QueueState


class DeadJob(msgspec.Struct):
    """A job that is not tried again, until it is replayed."""

    id: int
    queue: str
    tenant: str
    job: str
    attempts: int
    reason: str
    died_at: datetime


class ScheduleState(msgspec.Struct):
    """A schedule: when it runs next, the job of the run under way, and how the last run ended."""

    schedule: str
    when: str
    zone: str
    job: str
    next_at: datetime
    paused: bool
    running: int | None
    last_planned: datetime | None
    last_outcome: str | None


class JobsDone(msgspec.Struct):
    """What was done: how many dead letters were enqueued again, or how a job or queue is now."""

    replayed: int = 0
    state: Literal["cancelled", "asked", "paused", "resumed", "replayed"] = "replayed"


_encode = msgspec.json.Encoder().encode
_NO_STORE = {"Cache-Control": "no-store"}


async def list_queues(call: Call) -> Response:
    """GET /v1/queues."""
    return _answer(await _jobs(call).queues())


async def show_job(call: Call) -> Response:
    """GET /v1/jobs/{job}."""
    return _answer(await _jobs(call).show(_id(call), tenant=call.caller.whose))


async def list_dead(call: Call) -> Response:
    """GET /v1/dead."""
    tenant, limit = call.caller.whose, call.number("limit")
    rows = await _jobs(call).dead(call.text("queue"), tenant=tenant, limit=limit)
    return _answer([DeadJob(*row) for row in rows])


async def list_schedules(call: Call) -> Response:
    """GET /v1/schedules."""
    return _answer([ScheduleState(*row) for row in await _jobs(call).schedules()])


async def replay_dead(call: Call) -> Response:
    """POST /v1/dead/replay."""
    job = call.text("job")
    replayed = await _jobs(call).replay(None if job is None else [int(job)], call.text("queue"))
    return _answer(JobsDone(replayed))


async def cancel_job(call: Call) -> Response:
    """POST /v1/jobs/{job}/cancel."""
    state = await _jobs(call).cancel(_id(call))
    return _answer(JobsDone(state="cancelled" if state == "cancelled" else "asked"))


async def pause_queue(call: Call) -> Response:
    """POST /v1/queues/{queue}/pause."""
    await _jobs(call).pause(call.text("queue") or "", pause=True)
    return _answer(JobsDone(state="paused"))


async def resume_queue(call: Call) -> Response:
    """POST /v1/queues/{queue}/resume."""
    await _jobs(call).pause(call.text("queue") or "", pause=False)
    return _answer(JobsDone(state="resumed"))


def _jobs(call: Call) -> Jobs:
    return Jobs(call.service.app.database("headwater_operator"))


def _id(call: Call) -> int:
    return int(call.text("job") or 0)


def _answer(body: object) -> Response:
    return Response(_encode(body), 200, _NO_STORE, "application/json")


SHOWN = (DeadJob, JobsDone, JobState, QueueState, ScheduleState)
"""What answers hold, for OpenAPI."""
