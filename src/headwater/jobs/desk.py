"""One queue in one process: takes jobs, has them run, settles them; a turn does both in one commit."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

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

_POLL_SECONDS = (0.001, 0.05)
_EAGER = 20
_SHORT_SECONDS = 0.02
_AHEAD_SECONDS = 0.1
_MOST = 1000
_GATHER_SECONDS = 0.002


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
    _running: int = 0
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
                    connection = await connect(
                        self.relay_database.url, "headwater_relay", name=f"headwater {self.queue.name}"
                    )  # fmt: skip
                    async with connection:
                        if failures:
                            await self._resume(connection)
                        failures = 0
                        await self._turns(connection)
                        return
                except (psycopg.Error, DatabaseUnavailable, OSError) as error:
                    failures += 1
                    told = str(error).partition("\n")[0]
                    _log.warning("queue %s: %s: %s", self.queue.name, type(error).__name__, told)
                    await asyncio.sleep(min(0.05 * 2**failures, 2.0))
        finally:
            await ended(runners)

    def stop(self) -> None:
        """Takes no more; ``run`` ends when what is under way has ended."""
        self.stopping.set()
        self._wake.set()

    def let_go(self) -> None:
        """Gives back what has not begun, and ends what runs in the loop; threads are left to end."""
        while self._inbox:
            taken = self._inbox.popleft()
            self._pending.add(taken, "release")
        for taken in self.held.values():
            if taken.began and taken.cancelled is None:
                taken.cancelled = "the worker stopped"
                if taken.stop is not None:
                    taken.stop()
        self._wake.set()

    # Turns ---------------------------------------------------------------------------------------

    async def _turns(self, connection: Connection) -> None:
        busy_at = time.monotonic()
        while True:
            await self._until_worth(busy_at)
            self._wake.clear()
            if self.stopping.is_set() and not self.held:
                return
            room = self._room()
            if room <= 0 and not self._pending:
                continue
            told = len(self._pending)
            given = await self._turn(connection, room)
            if given or told:
                busy_at = time.monotonic()

    async def _until_worth(self, busy_at: float) -> None:
        """Waits until there is something to tell, or room for more and time to look: often, while it is worth it."""
        if self._room() <= 0 and not self._pending and not self.stopping.is_set():
            await self._wake.wait()
        elif not self._pending:
            shortest, longest = _POLL_SECONDS
            look = min(max((time.monotonic() - busy_at) / _EAGER, shortest), longest)
            try:
                async with asyncio.timeout(look if self._room() > 0 else None):
                    await self._wake.wait()
            except TimeoutError:
                return
        if len(self._inbox) > self.queue.workers:
            await asyncio.sleep(
                _GATHER_SECONDS
            )  # a bigger batch next time; there is work meanwhile

    def _room(self) -> int:
        """How many more jobs may be taken: those that run next, and more where they are short."""
        if self.stopping.is_set():
            return 0
        most = self.queue.workers
        if not self.queue.exact and self._seconds < _SHORT_SECONDS:
            most = min(_MOST, max(most, int(most * _AHEAD_SECONDS / max(self._seconds, 1e-5))))
        under_way = len(self._inbox) + self._running
        return most - under_way if under_way <= most // 2 or most == self.queue.workers else 0

    async def _turn(self, connection: Connection, room: int) -> int:
        settling, self._pending = self._pending, Settlement()
        wanted = self._lanes.wanted(room)
        parameters = {
            "worker": self.worker,
            "queue": self.queue.name,
            "finished": arrays.bigint_array(settling.finished),
            "kept": arrays.bigint_array(settling.kept),
            "special": settling.parameters()["special"],
            "lanes": list(wanted),
            "wanted": list(wanted.values()),
            "most": room,
        }
        try:
            with translated():
                cursor = await connection.execute(
                    SQL["jobs.work"], parameters, prepare=True, binary=True
                )
                rows = await cursor.fetchall()
        except BaseException:
            settling.finished += self._pending.finished
            settling.kept += self._pending.kept
            settling.special += self._pending.special
            self._pending = settling
            raise
        for settled in settling.ids:
            self.held.pop(settled, None)
        if rows:
            self._accept(Taken(*row) for row in rows)
            self._lanes.taken(Counter(row[1] for row in rows), wanted)
        return len(rows)

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
            if not self.held[gone].began:
                self._inbox = deque(taken for taken in self._inbox if taken.id != gone)
            del self.held[gone]
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
                    await self.runs.ended(running, settlement)
            finally:
                self._running -= 1
                self._seconds += (time.monotonic() - began - self._seconds) * 0.2
                self._note(taken, settlement)

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
