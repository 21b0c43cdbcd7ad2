"""Runs one job: in the loop, a thread or a process, with its time limit; and what becomes of it."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import random
import time
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from headwater.errors import SettingError
from headwater.events.personal import is_sealed
from headwater.jobs.job import Job
from headwater.jobs.processes import Processes
from headwater.jobs.retrying import Retry
from headwater.jobs.taken import RunningJob, Settlement, Taken, becoming
from headwater.log.carrying import carrying
from headwater.log.tracing import enabled, span
from headwater.personal import FORGOTTEN
from headwater.personal.opener import Opener

_UNKNOWN = Retry(attempts=20, first_seconds=5)


class Overdue(Exception):
    """The job did not end in its time."""


@dataclass(slots=True)
class Executor:
    """Runs the jobs of one queue's app in this process."""

    jobs: Mapping[str, Job[..., Any]]
    threads: ThreadPoolExecutor
    processes: Processes = field(default_factory=Processes)
    opener: Opener | None = None
    chance: random.Random = field(default_factory=random.Random)

    async def run(self, running: RunningJob, settlement: Settlement) -> None:
        """Runs a job to its end, and says what came of it."""
        taken = running.taken
        taken.began = time.monotonic()
        if taken.cancelled is not None:
            settlement.add(taken, "cancelled", reason=taken.cancelled)
            return
        job = self.jobs.get(taken.job)
        if job is None:
            self._failed(taken, settlement, _UNKNOWN, f"this app has no job {taken.job!r}")
            return
        if (reason := self._refusal(taken, job)) is not None:
            settlement.add(taken, "dead", reason=reason)
            return
        try:
            arguments = job.decode(taken.arguments)
        except msgspec.DecodeError as error:
            settlement.add(taken, "dead", reason=f"its arguments do not fit: {error}")
            return
        try:
            if job.personal and not await self._open(job, taken, arguments):
                settlement.add(taken, "cancelled", reason="the person has been forgotten")
                return
            result = await self._call(job, running, arguments)
            if not taken.settled:
                settlement.done(taken, None if job.personal else result)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # the worker ends, and not the function alone
            self._raised(taken, settlement, job, error)

    async def _open(self, job: Job[..., Any], taken: Taken, arguments: dict[str, Any]) -> bool:
        """Opens personal arguments, in place; False where one of the persons has been forgotten."""
        if self.opener is None:
            raise SettingError("Nothing opens personal arguments here.", hint="Work the jobs of an open app.")  # fmt: skip
        texts = {name: arguments[name] for name in job.personal if is_sealed(arguments[name])}
        opened = await self.opener.opened(taken.tenant, set(texts.values()))
        arguments.update({name: opened[text] for name, text in texts.items()})
        return FORGOTTEN not in opened.values()

    @staticmethod
    def _refusal(taken: Taken, job: Job[..., Any]) -> str | None:
        if taken.deadline is not None and taken.deadline <= datetime.now(UTC):
            return "its deadline had passed before it could start"
        if taken.attempt > job.retry.attempts:
            return f"it was begun {taken.attempt - 1} times and never ended"
        return None

    def _raised(
        self, taken: Taken, settlement: Settlement, job: Job[..., Any], error: BaseException
    ) -> None:
        if (
            taken.settled
        ):  # its effects and its end are committed; what it does afterwards is its own
            return
        if taken.cancelled is not None:
            settlement.add(taken, "cancelled", reason=taken.cancelled)
            return
        last = traceback.format_exception_only(error)[-1].strip()
        where = "".join(traceback.format_tb(error.__traceback__)[-3:])
        if job.personal:  # what it says may be of the person, and reasons are kept
            last = f"{type(error).__name__}, in a job with personal arguments"
        reason = f"{last}\n{where}".strip()
        if isinstance(error, job.retry.never):
            settlement.add(taken, "dead", reason=reason)
        else:
            self._failed(taken, settlement, job.retry, reason)

    def _failed(self, taken: Taken, settlement: Settlement, retry: Retry, reason: str) -> None:
        if taken.attempt >= retry.attempts:
            settlement.add(taken, "dead", reason=reason)
            return
        delay = retry.delay(taken.attempt, self.chance.random())
        settlement.add(taken, "retry", reason=reason, delay_seconds=delay)

    async def _call(
        self, job: Job[..., Any], running: RunningJob, arguments: dict[str, Any]
    ) -> Any:
        taken = running.taken
        becoming(running)
        if taken.metadata == "{}" and not enabled():
            return await self._limited(job, taken, arguments)
        carried = taken.carried
        trace = carried.pop("trace", None)
        parent = {"traceparent": trace} if isinstance(trace, str) else None
        carried["cause"] = {"job": taken.id}
        with (
            carrying(**carried),
            span(f"job {job.name}", "consumer", parent=parent, job=taken.id, attempt=taken.attempt),
        ):
            return await self._limited(job, taken, arguments)

    async def _limited(self, job: Job[..., Any], taken: Taken, arguments: dict[str, Any]) -> Any:
        limit = job.timeout_seconds
        if taken.deadline is not None:
            left = (taken.deadline - datetime.now(UTC)).total_seconds()
            limit = left if limit is None else min(limit, left)
        scope = asyncio.timeout(limit)
        loop = asyncio.get_running_loop()
        taken.stop = lambda: scope.reschedule(loop.time())
        try:
            async with scope:
                return await self._by_kind(job, arguments)
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise Overdue(f"it took longer than {limit or 0:.1f} s") from error
        finally:
            taken.stop = None

    async def _by_kind(self, job: Job[..., Any], arguments: dict[str, Any]) -> Any:
        if job.run == "loop":
            return await job.function(**arguments)
        if job.run == "process":
            return await self.processes.run_job(job, arguments)
        context = contextvars.copy_context()
        call = functools.partial(context.run, functools.partial(job.function, **arguments))
        return await asyncio.get_running_loop().run_in_executor(self.threads, call)
