"""The operations on queues, jobs and schedules, declared once: what they take, answer and refuse."""

from __future__ import annotations

from headwater.entrances.http import jobs
from headwater.entrances.http.limits import Limits
from headwater.entrances.http.openapi import schema
from headwater.entrances.http.routes import Answer, Number, Operation, Schema, Text
from headwater.errors import UnknownJob, UnknownQueue

_JSON = "application/json"
_ID = r"[0-9]{1,18}"
_NAME = r"[a-z][a-z0-9_-]{0,62}"


def _one(named: str) -> dict[str, Schema]:
    return {_JSON: schema(named)}


def _several(named: str) -> dict[str, Schema]:
    return {_JSON: {"type": "array", "items": schema(named)}}


def operations_on_jobs(limits: Limits) -> list[Operation]:
    """``read`` shows a tenant its jobs and dead letters; ``operate`` shows and changes what concerns all tenants."""
    job = Text("job", "The job's id.", _ID, 18, where="path")
    queue = Text("queue", "The queue.", _NAME, 63, where="path")
    of_queue = Text("queue", "Only of this queue.", _NAME, 63)
    return [
        Operation(
            "GET", "/v1/queues", "List queues: what waits, runs and failed.", jobs.list_queues,
            {200: Answer("The queues.", _several("QueueState"))}, "operate",
        ),
        Operation(
            "POST", "/v1/queues/{queue}/pause", "Let nothing of a queue start.", jobs.pause_queue,
            {200: Answer("It is paused.", _one("JobsDone"))}, "operate", (queue,), refusals=(UnknownQueue,),
        ),
        Operation(
            "POST", "/v1/queues/{queue}/resume", "Let a queue go on.", jobs.resume_queue,
            {200: Answer("It goes on.", _one("JobsDone"))}, "operate", (queue,), refusals=(UnknownQueue,),
        ),
        Operation(
            "GET", "/v1/jobs/{job}", "Show a job of the tenant and how it has failed.", jobs.show_job,
            {200: Answer("The job.", _one("JobState"))}, "read", (job,), refusals=(UnknownJob,),
        ),
        Operation(
            "POST", "/v1/jobs/{job}/cancel", "End a job.", jobs.cancel_job,
            {200: Answer("It is cancelled, or was asked to end.", _one("JobsDone"))}, "operate", (job,), refusals=(UnknownJob,),
        ),
        Operation(
            "GET", "/v1/dead", "List the tenant's dead letters, the newest first.", jobs.list_dead,
            {200: Answer("The dead letters.", _several("DeadJob"))}, "read",
            (of_queue, Number("limit", "The most dead letters.", 1, limits.page_rows, 100)),
        ),
        Operation(
            "POST", "/v1/dead/replay", "Enqueue dead letters again: one, a queue's, or all.", jobs.replay_dead,
            {200: Answer("How many were.", _one("JobsDone"))}, "operate",
            (of_queue, Text("job", "Only this job.", _ID, 18)),
        ),
        Operation(
            "GET", "/v1/schedules", "List schedules, their next and last runs.", jobs.list_schedules,
            {200: Answer("The schedules.", _several("ScheduleState"))}, "operate",
        ),
    ]  # fmt: skip
