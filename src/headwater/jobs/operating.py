"""What operators see of queues and jobs, and what they do with them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from headwater.errors import UnknownJob, UnknownQueue
from headwater.jobs.queue import Queue
from headwater.jobs.taken import SQL
from headwater.log.database import Connection, Database

REPLAYED_AT_ONCE = 500
_COUNTED = 1_000_000


class QueueState(msgspec.Struct, frozen=True):
    """A queue now. ``waiting`` may start, ``later`` are delayed or behind another of their key.

    ``oldest_seconds`` is how long the job that has waited longest could have been started. ``settled`` and
    ``failed`` count attempts that ended, and those that failed, since the queue exists.
    """

    queue: str
    paused: bool
    waiting: int
    later: int
    running: int
    oldest_seconds: float
    settled: int
    failed: int
    dead: int


class JobState(msgspec.Struct, frozen=True):
    """A job: what it is, where it stands, and how it has failed."""

    id: int
    queue: str
    lane: str
    tenant: str
    job: str
    arguments: msgspec.Raw
    key: str | None
    state: str
    attempt: int
    enqueued_at: datetime
    worker: str | None
    progress: float | None
    note: str | None
    result: msgspec.Raw | None
    failures: list[dict[str, Any]]


async def register_queue(connection: Connection, queue: Queue) -> None:
    """Declares a queue in the database, as an operator."""
    rate, key_rate = queue.rate, queue.key_rate
    await connection.execute(
        SQL["jobs.register"],
        {
            "queue": queue.name,
            "lanes": list(queue.weights),
            "cap": queue.cap,
            "every": None if rate is None else rate.every_seconds,
            "burst": None if rate is None else rate.burst,
            "key_limit": queue.key_limit,
            "key_every": None if key_rate is None else key_rate.every_seconds,
            "key_burst": None if key_rate is None else key_rate.burst,
        },
    )


class Jobs:
    """The jobs of an installation, as an operator sees them."""

    def __init__(self, operator: Database) -> None:
        self._operator = operator

    async def queues(self) -> list[QueueState]:
        """Every queue. Waiting jobs are counted up to a million a lane."""
        rows = await self._rows("operating.queues", {"most": _COUNTED})
        return [QueueState(*row) for row in rows]

    async def show(self, job: int, *, tenant: str | None = None) -> JobState:
        """One job, of a tenant where one is given. Raises UnknownJob."""
        rows = await self._rows("operating.show", {"id": job})
        if not rows or tenant not in {None, rows[0][3]}:
            raise UnknownJob(
                f"There is no job {job}.", hint="What is finished is forgotten after a day."
            )
        *head, result, failures = rows[0]
        head[5] = msgspec.Raw(head[5].encode())
        shown = None if result is None else msgspec.Raw(result.encode())
        return JobState(*(*head, shown, failures))

    async def dead(
        self, queue: str | None = None, *, tenant: str | None = None, limit: int = 100
    ) -> list[tuple[Any, ...]]:
        """Dead letters that were not replayed, the newest first: id, queue, tenant, job, attempts, reason, died_at."""
        parameters = {"queue": queue, "tenant": tenant, "limit": limit}
        return list(await self._rows("operating.dead", parameters))

    async def schedules(self) -> list[tuple[Any, ...]]:
        """Every schedule: name, when, zone, job, next, paused, the job under way, the last run and its outcome."""
        return list(await self._rows("schedules.list", {}))

    async def replay(self, jobs: Sequence[int] | None = None, queue: str | None = None) -> int:
        """Enqueues dead letters again: those named, those of a queue, or all; how many."""
        replayed = 0
        count: int
        while True:
            parameters = {"ids": None if jobs is None else list(jobs), "queue": queue, "most": REPLAYED_AT_ONCE}  # fmt: skip
            ((count,),) = await self._rows("operating.replay", parameters)
            replayed += count
            if count < REPLAYED_AT_ONCE:
                return replayed

    async def cancel(self, job: int) -> str:
        """Ends a job: 'cancelled', or 'asked' where it runs. Raises UnknownJob where it has ended."""
        ((state,),) = await self._rows("operating.cancel", {"id": job})
        if state is None:
            raise UnknownJob(f"There is no unfinished job {job}.", hint="It may have ended.")
        return str(state)

    async def pause(self, queue: str, *, pause: bool) -> None:
        """Lets nothing of a queue start, or lets it go on. Raises UnknownQueue."""
        ((known,),) = await self._rows("operating.pause", {"queue": queue, "pause": pause})
        if not known:
            raise UnknownQueue(f"There is no queue {queue!r}.", hint="headwater jobs lists them.")

    async def pause_schedule(self, schedule: str, *, pause: bool) -> None:
        """Lets a schedule not run, or run again. Raises UnknownJob."""
        async with self._operator.connection() as connection:
            cursor = await connection.execute(
                SQL["schedules.pause"], {"schedule": schedule, "pause": pause}
            )
            if not cursor.rowcount:
                raise UnknownJob(
                    f"There is no schedule {schedule!r}.", hint="headwater schedules lists them."
                )

    async def _rows(self, statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        async with self._operator.connection() as connection:
            return await (await connection.execute(SQL[statement], parameters)).fetchall()
