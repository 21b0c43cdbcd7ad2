"""Runs an app's queues in this process, under a lease that others take over from when it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import psycopg

from headwater.errors import DatabaseUnavailable, HeadwaterError, LeaseLost
from headwater.jobs.desk import Desk
from headwater.jobs.job import Job
from headwater.jobs.processes import Processes
from headwater.jobs.queue import Queue
from headwater.jobs.running import Executor
from headwater.jobs.runs import Runs
from headwater.jobs.taken import SQL
from headwater.log.database import Connection, Database, connect
from headwater.log.tasks import ended
from headwater.personal.opener import Opener

_log = logging.getLogger("headwater.jobs")

_TIDY_SECONDS = 2.0
_ROTATE_SECONDS = 60.0


class Service(Protocol):
    """What runs beside the queues, until cancelled."""

    async def run(self) -> None:
        """Runs."""
        ...


@dataclass(slots=True)
class Work:
    """Runs jobs until stopped. ``start`` and ``stop`` are idempotent.

    ``lease_seconds`` is how long the jobs of a process that was killed wait for another; ``keep_seconds``
    how long what is known of finished jobs is kept.
    """

    app_database: Database
    relay_database: Database
    queues: Sequence[Queue]
    jobs: Mapping[str, Job[..., Any]]
    services: Sequence[Service] = ()
    lease_seconds: float = 15.0
    keep_seconds: float = 86_400.0
    opener: Opener | None = None
    worker: str = ""
    desks: list[Desk] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _processes: Processes = field(default_factory=Processes)
    _threads: ThreadPoolExecutor | None = None

    async def start(self) -> None:
        """Starts; returns once the process is registered."""
        if self._tasks:
            return
        self._stopping.clear()
        most = sum(queue.workers for queue in self.queues)
        self._threads = ThreadPoolExecutor(max(most, 1), thread_name_prefix="headwater job")
        registered = asyncio.Event()
        self._tasks = [asyncio.create_task(self._lives(registered))]
        self._tasks += [asyncio.create_task(service.run()) for service in self.services]
        waiting = asyncio.create_task(registered.wait())
        await asyncio.wait({waiting, self._tasks[0]}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    async def stop(self, *, grace_seconds: float = 30.0) -> None:
        """Takes no more jobs, waits for those under way, and gives back what has not ended by then."""
        tasks, self._tasks = self._tasks, []
        if not tasks:
            return
        self._stopping.set()
        for desk in self.desks:
            desk.stop()
        await asyncio.wait(tasks[:1], timeout=grace_seconds)
        for desk in self.desks:
            desk.let_go()
        await asyncio.wait(tasks[:1], timeout=5.0)
        await ended(tasks)
        with suppress(HeadwaterError, psycopg.Error):
            async with await self._connect("release") as connection:
                await connection.execute(SQL["jobs.give_up"], {"worker": self.worker})
        self._processes.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _connect(self, purpose: str) -> Connection:
        return await connect(
            self.relay_database.url, "headwater_relay", name=f"headwater jobs {purpose}"
        )

    async def _lives(self, registered: asyncio.Event) -> None:
        """One life after the other: a worker that lost its lease begins anew under another name."""
        while not self._stopping.is_set():
            try:
                await self._live(registered)
            except LeaseLost:
                _log.warning("the lease of %s ran out; its jobs were given to others", self.worker)
            except (psycopg.Error, DatabaseUnavailable, OSError) as error:
                _log.warning("jobs: %s: %s", type(error).__name__, str(error).partition("\n")[0])
                await asyncio.sleep(1)

    async def _live(self, registered: asyncio.Event) -> None:
        self.worker = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex}"
        parameters = {
            "worker": self.worker,
            "host": f"{socket.gethostname()}, process {os.getpid()}",
            "seconds": self.lease_seconds,
        }
        async with await self._connect("enter") as connection:
            await connection.execute(SQL["jobs.enter"], parameters)
        assert self._threads is not None
        executor = Executor(self.jobs, self._threads, self._processes, self.opener)
        runs = Runs(self.relay_database)
        self.desks = [
            Desk(queue, self.worker, executor, self.app_database, self.relay_database, runs)
            for queue in self.queues
        ]
        registered.set()
        keeping = asyncio.create_task(self._keep())
        working = [asyncio.create_task(desk.run()) for desk in self.desks]
        try:
            left = set(working)
            while left:
                done, _ = await asyncio.wait({keeping, *left}, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                left -= done
        finally:
            await ended([keeping, *working])

    # Care ----------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Renews the lease, tells of cancelled jobs, gives up others' leases, tidies. Raises LeaseLost."""
        failed_at: float | None = None
        while True:
            try:
                async with await self._connect("care") as connection:
                    await self._care(connection)
            except (psycopg.Error, DatabaseUnavailable, OSError) as error:
                failed_at = failed_at or time.monotonic()
                _log.warning("jobs: %s: %s", type(error).__name__, str(error).partition("\n")[0])
                await asyncio.sleep(0.2)

    async def _care(self, connection: Connection) -> None:
        tidied = time.monotonic()
        rotated = float("-inf")
        while True:
            lease = {"worker": self.worker, "seconds": self.lease_seconds}
            row = await (await connection.execute(SQL["jobs.keep"], lease)).fetchone()
            if row != (True,):
                raise LeaseLost(hint="Its jobs were given to others.")
            await self._tell_cancelled(connection)
            await connection.execute(SQL["jobs.give_up"], {"worker": None})
            now = time.monotonic()
            if now - tidied > _TIDY_SECONDS:
                for queue in self.queues:
                    told = {"worker": self.worker, "queue": queue.name}
                    await connection.execute(SQL["jobs.tidy"], told)
                tidied = now
            if now - rotated > _ROTATE_SECONDS:
                await connection.execute(SQL["jobs.rotate"], {"seconds": self.keep_seconds})
                rotated = now
            await asyncio.sleep(min(self.lease_seconds / 5, 1.0))

    async def _tell_cancelled(self, connection: Connection) -> None:
        held = {i: taken for desk in self.desks for i, taken in desk.held.items()}
        if not held:
            return
        cursor = await connection.execute(SQL["jobs.cancels"], {"ids": list(held)})
        for found, reason in await cursor.fetchall():
            held[found].end(reason)
