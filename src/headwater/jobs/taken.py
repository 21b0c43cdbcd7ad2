"""Jobs that a worker has taken, and what one of them knows of itself while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from headwater.errors import SettingError
from headwater.log.database import Connection, Database
from headwater.log.failures import translated
from headwater.log.statements import Statements
from headwater.log.writing import Writer

SQL = Statements("headwater.jobs")


@dataclass(slots=True)
class Taken:
    """One row of what a worker was given. ``kept`` ones have a row that changes; ``fence`` grows each time that a job is given."""

    id: int
    lane: str
    tenant: str
    job: str
    arguments: str
    key: str | None
    unique_key: str | None
    deadline: datetime | None
    metadata: str
    enqueued_at: datetime
    attempt: int
    kept: bool
    fence: int
    stop: Callable[[], None] | None = None
    cancelled: str | None = None
    settled: bool = False
    began: float = 0.0

    def end(self, reason: str) -> None:
        """Asks its function to end: an async one at its next await."""
        if self.cancelled is None:
            self.cancelled = reason
            if self.stop is not None:
                self.stop()

    @property
    def carried(self) -> dict[str, Any]:
        """Its metadata."""
        return {} if self.metadata == "{}" else msgspec.json.decode(self.metadata, type=dict[str, Any])  # fmt: skip


@dataclass(slots=True)
class Settlement:
    """What a worker has to tell next: jobs done that are plain, done that are kept, and the rest."""

    finished: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    special: list[dict[str, Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.finished) + len(self.kept) + len(self.special)

    def done(self, taken: Taken, result: Any = None) -> None:
        """A job has returned."""
        if result is not None:
            encoded = msgspec.json.encode(result)
            if b"\\u0000" in encoded:
                raise ValueError("the result holds the character NUL, which Postgres cannot store")
            self.add(taken, "done", result=msgspec.Raw(encoded))
        elif taken.kept:
            self.kept.append(taken.id)
        elif taken.unique_key is not None:
            self.add(taken, "done")
        else:
            self.finished.append(taken.id)

    def add(self, taken: Taken, outcome: str, **told: Any) -> None:
        """Anything else. A reason is whatever the job raised, so it is made such that Postgres can store it."""
        if (reason := told.get("reason")) is not None:
            told["reason"] = reason.encode("utf-8", "replace").decode().replace("\x00", "?")
        self.special.append(
            {"id": taken.id, "outcome": outcome, "attempt": taken.attempt, **told}
        )  # fmt: skip

    def parameters(self) -> dict[str, Any]:
        """As the database takes it."""
        return {
            "finished": self.finished,
            "kept": self.kept,
            "special": msgspec.json.encode(self.special).decode(),
        }

    @property
    def ids(self) -> set[int]:
        """Every job in it."""
        return {*self.finished, *self.kept, *(told["id"] for told in self.special)}

    def only(self, ids: set[int]) -> Settlement:
        """What it says of some jobs."""
        return Settlement(
            [one for one in self.finished if one in ids],
            [one for one in self.kept if one in ids],
            [told for told in self.special if told["id"] in ids],
        )


class JobTransaction(Writer):
    """A transaction in which a job does its work, and in which it is settled."""

    def __init__(self, connection: Connection, tenant: str) -> None:
        super().__init__(connection, tenant)
        self.connection = connection


@dataclass(slots=True)
class RunningJob:
    """The job that is running, for its function: ``this_job()``.

    ``fence`` grows each time that the job is given to a worker, also where the attempt stays: an outside system that remembers the highest refuses a
    worker that was cut off and goes on.
    """

    taken: Taken
    worker: str
    queue: str
    app_database: Database
    relay_database: Database

    @property
    def id(self) -> int:
        """The job's id."""
        return self.taken.id

    @property
    def attempt(self) -> int:
        """Which attempt this is, counted from 1."""
        return self.taken.attempt

    @property
    def fence(self) -> int:
        """A number that is higher each time that the job is given to a worker."""
        return self.taken.fence

    @property
    def tenant(self) -> str:
        """Whose job it is."""
        return self.taken.tenant

    @property
    def key(self) -> str | None:
        """The job's key."""
        return self.taken.key

    @property
    def cancelled(self) -> bool:
        """Whether it was asked to end. An async function is ended at its next await; a thread looks here."""
        return self.taken.cancelled is not None

    async def progress(self, done: float, note: str | None = None) -> None:
        """Says how far it is, from 0 to 1."""
        parameters = {"tenant": self.tenant, "id": self.id, "done": done, "note": note}
        async with self.relay_database.connection() as connection:
            await connection.execute(SQL["jobs.progress"], parameters)

    def transaction(self) -> AbstractAsyncContextManager[JobTransaction]:
        """A transaction in the application's role that settles the job as it commits: once in effect.

        Raises LeaseLost, and rolls back, where the job was given to another worker.
        """
        return self._transaction()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[JobTransaction]:
        if self.taken.settled:
            raise SettingError("The job is settled.", hint="Use one transaction for its effects.")
        async with self.app_database.transaction(self.tenant) as connection:
            yield JobTransaction(connection, self.tenant)
            await self._finish(connection)
        self.taken.settled = True

    async def _finish(self, connection: Connection) -> None:
        parameters = {"worker": self.worker, "queue": self.queue, "id": self.id}
        with translated():
            await connection.execute(SQL["jobs.finish"], parameters)


_running: ContextVar[RunningJob | None] = ContextVar("headwater_job", default=None)


def this_job() -> RunningJob:
    """The job that is running. Raises SettingError outside of one, and in a process of its own."""
    if (found := _running.get()) is None:
        raise SettingError("No job is running here.", hint="Call it in a job's function.")
    return found


def becoming(job: RunningJob) -> None:
    """From here on, in this task, the job is running."""
    _running.set(job)
