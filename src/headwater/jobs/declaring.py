"""What an app declares of jobs: its queues, functions and schedules. Nothing here does I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from headwater.errors import JobDefinitionError
from headwater.events import EventTypes
from headwater.jobs.job import How, Job
from headwater.jobs.queue import NORMAL, JobRate, Queue
from headwater.jobs.retrying import Retry
from headwater.jobs.schedule import Missed, Schedule, ScheduleRan
from headwater.log.enqueuing import Enqueue

P = ParamSpec("P")
R = TypeVar("R")


class JobDefinitions:
    """The queues, jobs and schedules of one app."""

    name: str
    events: EventTypes

    def __init__(self) -> None:
        self.queues: dict[str, Queue] = {}
        self.jobs: dict[str, Job[..., Any]] = {}
        self.schedules: dict[str, Schedule] = {}

    def queue(
        self,
        name: str,
        *,
        workers: int = 10,
        cap: int | None = None,
        rate: JobRate | None = None,
        weights: Mapping[str, float] | None = None,
        key_limit: int = 1,
        key_rate: JobRate | None = None,
    ) -> Queue:
        """Declares a queue; see Queue."""
        if name in self.queues:
            raise JobDefinitionError(f"There are two queues {name!r}.", hint="Rename one.")
        lanes = {NORMAL: 1.0} if weights is None else dict(weights)
        self.queues[name] = Queue(name, workers, cap, rate, lanes, key_limit, key_rate)
        return self.queues[name]

    def job(
        self,
        *,
        queue: Queue | str,
        name: str | None = None,
        retry: Retry | None = None,
        timeout_seconds: float | None = None,
        run: How | None = None,
    ) -> Callable[[Callable[P, R]], Job[P, R]]:
        """Declares a function as a job: ``async def send(order: str) -> None``; ``tx.enqueue(send("7"))``.

        Its arguments are checked by its annotations, when it is enqueued and when it runs. An async function
        runs in the event loop, another in a thread, or with ``run="process"`` in a process of its own.
        """
        where = self._queue(queue)

        def declare(function: Callable[P, R]) -> Job[P, R]:
            job = Job(
                function,
                where,
                name=name,
                retry=retry or Retry(),
                timeout_seconds=timeout_seconds,
                run=run,
            )
            if job.name in self.jobs:
                raise JobDefinitionError(f"There are two jobs {job.name!r}.", hint="Rename one.")
            self.jobs[job.name] = job
            return job

        return declare

    def schedule(
        self,
        name: str,
        job: Enqueue,
        *,
        cron: str | None = None,
        every_seconds: float | None = None,
        zone: str = "UTC",
        missed: Missed = "once",
        late_seconds: float = 60.0,
        jitter_seconds: float = 0.0,
        tenant: str | None = None,
    ) -> Schedule:
        """Declares a schedule; see Schedule. Each run is a ``schedule.ran`` event of its tenant."""
        if name in self.schedules:
            raise JobDefinitionError(f"There are two schedules {name!r}.", hint="Rename one.")
        if tenant is None and getattr(self, "tenant", None) is None:
            raise JobDefinitionError(
                f"The schedule {name!r} has no tenant.",
                hint="Pass tenant=..., or give App(...) its only tenant.",
            )
        self._queue(job.queue)
        self.events.add(ScheduleRan)
        self.schedules[name] = Schedule(
            name, job, tenant, cron, every_seconds, zone, missed, late_seconds, jitter_seconds
        )
        return self.schedules[name]

    def _queue(self, queue: Queue | str) -> Queue:
        name = queue if isinstance(queue, str) else queue.name
        if (found := self.queues.get(name)) is None:
            raise JobDefinitionError(
                f"The app {self.name!r} has no queue {name!r}.",
                hint=f"Declare it with app.queue; it has {', '.join(self.queues) or 'none'}.",
            )
        return found
