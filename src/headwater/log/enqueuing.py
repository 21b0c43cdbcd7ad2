"""Enqueuing: jobs created inside the transaction of the facts that cause them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, TypedDict, Unpack

import msgspec

from headwater import errors
from headwater.events.personal import is_sealed
from headwater.log.carrying import carried

_CHUNK_JOBS = 5_000


class JobOptions(TypedDict, total=False):
    """What a job may say beside its arguments.

    ``lane`` is the queue's lane. Jobs of one ``key`` start in order, one after the other. While a job with a
    ``unique_key`` is unfinished, another is not created. A job does not start before ``run_at``, or before
    ``delay_seconds`` have passed, and not after its deadline.
    """

    lane: str | None
    key: str | None
    unique_key: str | None
    run_at: datetime | None
    delay_seconds: float | None
    deadline: datetime | None
    deadline_seconds: float | None


class Enqueue(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is to be created; a job's function makes one when it is called."""

    queue: str
    job: str
    arguments: msgspec.Raw
    options: JobOptions = {}
    metadata: dict[str, Any] = {}
    personal: dict[str, str] = {}
    """Arguments that are of a person, with the one that names the subject."""

    def but(self, **options: Unpack[JobOptions]) -> Enqueue:
        """The same with some options changed."""
        return msgspec.structs.replace(self, options={**self.options, **options})


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The jobs' ids, in the order given; of those whose unique key is taken, the id of the job that has it."""

    ids: Sequence[int]
    duplicates: Sequence[bool]

    @property
    def id(self) -> int:
        """The last job's id."""
        return self.ids[-1]


def at_once(jobs: Sequence[Enqueue]) -> bool:
    """Whether one statement creates the jobs."""
    return len({job.queue for job in jobs}) == 1 and len(jobs) <= _CHUNK_JOBS


def batches_of(jobs: Sequence[Enqueue], options: JobOptions) -> Iterator[tuple[str, str]]:
    """Jobs by queue, in order: the queue, and its jobs as JSON. Raises JobRefused where there is none."""
    if not jobs:
        raise errors.JobRefused("There is nothing to enqueue.", hint="Pass at least one job.")
    around = carried(None) or {}
    for queue, found in groupby(jobs, key=lambda job: job.queue):
        several = list(found)
        for start in range(0, len(several), _CHUNK_JOBS):
            chunk = several[start : start + _CHUNK_JOBS]
            items = [_item(job, options, around) for job in chunk]
            yield queue, msgspec.json.encode(items).decode()


def _item(job: Enqueue, options: JobOptions, around: Any) -> dict[str, Any]:
    if job.personal:
        _refuse_clear(job)
    told = {name: value for name, value in {**job.options, **options}.items() if value is not None}
    metadata = {**around, **job.metadata}
    known: dict[str, Any] = {"job": job.job, "arguments": job.arguments, **told}
    return known | ({"metadata": metadata} if metadata else {})


def _refuse_clear(job: Enqueue) -> None:
    """Raises JobRefused where a personal argument is not sealed."""
    arguments = msgspec.json.decode(job.arguments)
    for name in job.personal:
        if arguments.get(name) is not None and not is_sealed(arguments[name]):
            raise errors.JobRefused(
                f"The personal argument {name!r} of the job {job.job!r} is in clear.",
                hint="Use app.enqueue or app.transaction(), which seal, or await app.seal_jobs(...) first.",
            )
