"""One queue in one process: takes jobs, has them run, and settles them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg

from headwater.errors import DatabaseUnavailable
from headwater.jobs.fairness import Lanes
from headwater.jobs.queue import Queue
from headwater.jobs.running import Executor
from headwater.jobs.runs import Runs
from headwater.jobs.taken import SQL, RunningJob, Settlement, Taken
from headwater.log import arrays
from headwater.log.database import Connection, Database, connect
from headwater.log.failures import translated
from headwater.log.tasks import ended

_log = logging.getLogger("headwater.jobs")

_LOOK_SECONDS = (0.001, 0.05)
_EAGER = 20
_PATIENT_SECONDS, _PATIENCE_SECONDS = 0.1, 0.02
_SHORT_SECONDS = 0.02
_AHEAD_SECONDS = 0.1
_MOST = 1000
_GATHER_SECONDS, _UNHURRIED_SECONDS = 0.002, 0.025


@dataclass(slots=True)
class Desk:
    """Works on a queue under a worker's name until stopped or the name is given up."""

    queue: Queue
    worker: str
    executor: Executor
    app_database: Database
    relay_database: Database
    runs: Runs
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    held: dict[int, Taken] = field(default_factory=dict)
    begun: int = 0
    _inbox: deque[Taken] = field(default_factory=deque)
    _arrived: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    _pending: Settlement = field(default_factory=Settlement)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _free: asyncio.Event = field(default_factory=asyncio.Event)
    _running: int = 0
    _took_last: bool = True
    _seconds: float = 1.0
    _lanes: Lanes = field(init=False)

    def __post_init__(self) -> None:
        self._lanes = Lanes(self.queue.weights)

    async def run(self) -> None:
        """Works. Ends once stopped and everything taken is settled. Raises LeaseLost."""
        runners = [asyncio.create_task(self._runner()) for _ in range(self.queue.workers)]
        failures = 0
        try:
            while True:
                try:
                    async with await self._connect() as taking, await self._connect() as settling:
                        if failures:
                            await self._resume(settling)
                        failures = 0
                        await _together(self._taking(taking), self._settling(settling))
                        return
                except (psycopg.Error, DatabaseUnavailable, OSError) as error:
                    failures += 1
                    told = str(error).partition("\n")[0]
                    _log.warning("queue %s: %s: %s", self.queue.name, type(error).__name__, told)
                    await asyncio.sleep(min(0.05 * 2**failures, 2.0))
        finally:
            await ended(runners)

    async def _connect(self) -> Connection:
        name = f"headwater queue {self.queue.name}"
        return await connect(self.relay_database.url, "headwater_relay", name=name)

    def stop(self) -> None:
        """Takes no more; ``run`` ends when what is under way has ended."""
        self.stopping.set()
        self._wake.set()
        self._free.set()

    def let_go(self) -> None:
        """Gives back what has not begun, and ends what runs in the loop; threads are left to end."""
        while self._inbox:
            taken = self._inbox.popleft()
            self._pending.add(taken, "release")
        for taken in self.held.values():
            if taken.began:
                taken.end("the worker stopped")
        self._wake.set()

    # Taking and settling -------------------------------------------------------------------------

    async def _taking(self, connection: Connection) -> None:
        """Takes jobs while there is room. Looks often while it is worth it: at first within the call."""
        self._took_last = False
        try:
            await self._take_on(connection)
        finally:
            self._took_last = True
            self._wake.set()

    async def _take_on(self, connection: Connection) -> None:
        busy_at = time.monotonic()
        while not self.stopping.is_set():
            room = self._room()
            if room <= 0:
                self._free.clear()
                await self._free.wait()
                continue
            asked_at = time.monotonic()
            patience = _PATIENCE_SECONDS if asked_at - busy_at < _PATIENT_SECONDS else 0.0
            if await self._take(connection, room, patience):
                busy_at = time.monotonic()
            elif patience == 0 or time.monotonic() - asked_at < patience:
                await self._look((asked_at - busy_at) / _EAGER)

    async def _look(self, seconds: float) -> None:
        shortest, longest = _LOOK_SECONDS
        try:
            async with asyncio.timeout(min(max(seconds, shortest), longest)):
                await self.stopping.wait()
        except TimeoutError:
            return

    async def _settling(self, connection: Connection) -> None:
        """Settles what has ended; what ends meanwhile is settled together."""
        while not (self.stopping.is_set() and self._took_last and not self.held):
            self._wake.clear()
            if not self._pending:
                await self._wake.wait()
                continue
            await self._gather()
            await self._settle(connection)

    async def _gather(self) -> None:
        """Waits a little for more to settle: a flush for each would hold up the commits of those who enqueue."""
        if len(self._inbox) > self.queue.workers:
            await asyncio.sleep(_GATHER_SECONDS)  # there is work meanwhile
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_UNHURRIED_SECONDS):
                while not self._hurried():
                    self._wake.clear()
                    await self._wake.wait()

    def _hurried(self) -> bool:
        """Whether somebody waits for what ended to be settled: the next of its key, a cap, the end."""
        pending = self._pending
        return (
            self.stopping.is_set()
            or self.queue.cap is not None
            or bool(pending.kept or pending.special)
            or len(pending.finished) >= _MOST
        )

    def _room(self) -> int:
        """How many more jobs may be taken: those that run next, and more where they are short."""
        if self.stopping.is_set():
            return 0
        most = self.queue.workers
        if not self.queue.exact and self._seconds < _SHORT_SECONDS:
            most = min(_MOST, max(most, int(most * _AHEAD_SECONDS / max(self._seconds, 1e-5))))
        under_way = len(self._inbox) + self._running
        return most - under_way if under_way <= most // 2 or most == self.queue.workers else 0

    async def _take(self, connection: Connection, room: int, patience: float) -> int:
        wanted = self._lanes.wanted(room)
        parameters = {
            "worker": self.worker,
            "queue": self.queue.name,
            "lanes": list(wanted),
            "wanted": list(wanted.values()),
            "most": room,
            "patience": patience,
        }
        with translated():
            cursor = await connection.execute(
                SQL["jobs.take"], parameters, prepare=True, binary=True
            )
            rows = await cursor.fetchall()
        if rows and self.stopping.is_set():
            # Perhaps one that this worker has just given back: it is for others.
            for taken in (Taken(*row) for row in rows):
                self.held[taken.id] = taken
                self._pending.add(taken, "release")
            self._wake.set()
        elif rows:
            self._accept(Taken(*row) for row in rows)
            self._lanes.taken(Counter(row[1] for row in rows), wanted)
        return len(rows)

    async def _settle(self, connection: Connection) -> None:
        settling, self._pending = self._pending, Settlement()
        parameters = {
            "worker": self.worker,
            "queue": self.queue.name,
            "finished": arrays.bigint_array(settling.finished),
            "kept": arrays.bigint_array(settling.kept),
            "special": settling.parameters()["special"],
        }
        # Tried again before, a job may be taken anew as soon as this commits: it is held no more.
        before = {i: self.held.pop(i) for i in settling.ids if i in self.held}
        try:
            with translated():
                await connection.execute(SQL["jobs.settle"], parameters, prepare=True)
        except BaseException:
            self.held = before | self.held
            settling.finished += self._pending.finished
            settling.kept += self._pending.kept
            settling.special += self._pending.special
            self._pending = settling
            raise

    def _accept(self, jobs: Iterable[Taken]) -> None:
        for taken in jobs:
            self.held[taken.id] = taken
            self._inbox.append(taken)
            self._arrived.release()

    async def _resume(self, connection: Connection) -> None:
        """After a lost connection: what the database says is ours, and what it does not know is settled."""
        with translated():
            cursor = await connection.execute(
                SQL["jobs.resume"], {"worker": self.worker, "queue": self.queue.name}
            )
            rows = [Taken(*row) for row in await cursor.fetchall()]
        ours = {taken.id: taken for taken in rows}
        self._pending = self._pending.only({i for i in self._pending.ids if i in ours})
        known = {
            i for i, held in self.held.items() if i in ours and held.attempt == ours[i].attempt
        }
        for gone in self.held.keys() - known:
            taken = self.held.pop(gone)
            if not taken.began:
                self._inbox = deque(one for one in self._inbox if one is not taken)
            elif not taken.settled:
                # A crash lost that it was taken, or it was settled: it must not run on beside its successor.
                taken.end("another has it by now")
        self._accept(taken for i, taken in ours.items() if i not in known)

    # Running -------------------------------------------------------------------------------------

    async def _runner(self) -> None:
        while True:
            await self._arrived.acquire()
            if not self._inbox:  # it was let go
                continue
            taken = self._inbox.popleft()
            self._running += 1
            self.begun += 1
            began = time.monotonic()
            settlement = Settlement()
            try:
                running = RunningJob(
                    taken, self.worker, self.queue.name, self.app_database, self.relay_database
                )
                await self.executor.run(running, settlement)
                if '"schedule"' in taken.metadata:
                    await self._record(running, settlement)
            finally:
                self._running -= 1
                self._seconds += (time.monotonic() - began - self._seconds) * 0.2
                self._note(taken, settlement)
                self._free.set()

    async def _record(self, running: RunningJob, settlement: Settlement) -> None:
        """Records a schedule's run. If that fails, the job is settled without it, and the scheduler records it."""
        try:
            await self.runs.ended(running, settlement)
        except Exception as error:  # noqa: BLE001 - the metadata may be anybody's, the database away
            _log.warning("job %s: %s: %s", running.id, type(error).__name__, error)

    def _note(self, taken: Taken, settlement: Settlement) -> None:
        if self.held.get(taken.id) is not taken:
            self._wake.set()
            return  # given to another meanwhile
        if taken.settled:
            self.held.pop(taken.id, None)
        if taken.cancelled == "the worker stopped" and settlement.special:
            settlement = Settlement(special=[{**settlement.special[0], "outcome": "release"}])
        self._pending.finished += settlement.finished
        self._pending.kept += settlement.kept
        self._pending.special += settlement.special
        self._wake.set()


async def _together(*works: Coroutine[Any, Any, None]) -> None:
    """Runs until all have ended, or one raises: then the others are ended too."""
    left = {asyncio.create_task(work) for work in works}
    every = list(left)
    try:
        while left:
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        await ended(every)
