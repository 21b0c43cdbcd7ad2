"""Everything at once: writers, tickers, readers and faults, from one seed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

import psycopg
from marked import APPEND, HEAD, SAFE, SET_TENANT, committed_rows, prepare
from readers import PythonReader, Reader, SqlReader, TailReader
from scene import Ticks
from writers import LOST, Session, append_in_one_transaction, run_process, share_commits

from headwater.log import Connection, Ticker
from headwater.log.database import connect
from simulation.ledger import Ledger
from simulation.verdict import Row, Verdict, judge

KILL = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'attack%%' ORDER BY md5(pid::text || %(salt)s) LIMIT %(count)s
"""
KILL_TICKERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'attack ticker'
"""
ATTACH = "SELECT headwater.create_blocks(headwater.block_of(now() + make_interval(months => %(months)s)), 1)"
ENTER = "SELECT headwater.enter_block(now() + make_interval(months => %(months)s))"
Fault = Callable[["Attack"], Awaitable[None]]


@dataclass
class Attack:
    """One run: at least ``events`` acknowledged, faults at their share of the way."""

    seed: int
    url: str
    admin_url: str
    events: int
    giant: int = 0
    writers: int = 16
    processes: int = 2
    tickers: int = 2
    ticker_class: Callable[[Connection], Ticks] = Ticker
    soft_commits: bool = False
    patience_seconds: float = 120.0  # of readers, once all is published
    faults: Sequence[tuple[float, Fault]] = ()
    last_mark: str = "the end"
    ledger: Ledger = field(init=False)
    readers: Sequence[Reader] = field(init=False)
    committed: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.events)
        self.up = asyncio.Event()
        self.up.set()
        self.all_published = asyncio.Event()
        self.ticker_starts = 0
        self.readers = (
            PythonReader(self, "python of 61", 61),
            PythonReader(self, "python of 5,000", 5_000),
            SqlReader(self, "sql of 211", 211),
            TailReader(self, "tail of 1,000", 1_000),
            PythonReader(self, "python of one tenant", 500, tenant="north"),
        )

    async def run(self) -> Verdict:
        await prepare(self.url)
        readers = [asyncio.create_task(reader.run()) for reader in self.readers]
        tickers = [asyncio.create_task(self._tick(number)) for number in range(self.tickers)]
        faults = asyncio.create_task(self._strike())
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self.writers):
                    group.create_task(Session(self, number).run())
                for number in range(self.processes):
                    group.create_task(run_process(self, number))
                group.create_task(share_commits(self))
                if self.giant:
                    group.create_task(append_in_one_transaction(self, self.giant))
            await faults
            await self._publish_all()
            async with asyncio.timeout(self.patience_seconds):
                await asyncio.gather(*readers)
        except TimeoutError:
            pass  # a reader waits for what it missed; the verdict says so
        finally:
            for task in (*tickers, faults, *readers):
                task.cancel()
            await asyncio.gather(*tickers, faults, *readers, return_exceptions=True)
        self.committed = committed_rows(self.admin_url)
        return judge(
            self.committed,
            [reader.sight for reader in self.readers],
            acknowledged=self.ledger.acknowledged,
            undone=self.ledger.undone,
        )

    async def _strike(self) -> None:
        """One fault after another, none before its share of the way."""
        for share, fault in sorted(self.faults, key=lambda pair: pair[0]):
            await self.ledger.reached(share)
            await fault(self)

    async def _tick(self, number: int) -> None:
        """Tickers that forget all they knew after a random number of ticks."""
        random = Random(f"{self.seed} ticker {number}")
        while True:
            with suppress(*LOST):
                await self.up.wait()
                self.ticker_starts += 1
                async with await connect(
                    self.url, "headwater_relay", name="attack ticker"
                ) as connection:
                    ticker = self.ticker_class(connection)
                    for _ in range(random.randint(20, 400)):
                        if not await ticker.tick():
                            await asyncio.sleep(0.002)

    async def _publish_all(self) -> None:
        """Ends what was left prepared, appends the last event, and sees the watermark reach it."""
        with psycopg.connect(self.admin_url, autocommit=True) as admin:
            left = admin.execute(
                "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
            )
            for (gid,) in left.fetchall():
                admin.execute(f"ROLLBACK PREPARED '{gid}'")
        connection = await connect(self.url, "headwater_app", name="the end")
        async with connection, connection.transaction():
            await connection.execute(SET_TENANT, {"tenant": "north"})
            await connection.execute(APPEND, {"line": "end", "mark": self.last_mark})
        async with asyncio.timeout(60), await connect(self.url, "headwater_relay") as connection:
            while await _number(connection, SAFE) < await _number(connection, HEAD):
                await asyncio.sleep(0.005)
        self.all_published.set()


async def _number(
    connection: psycopg.AsyncConnection[tuple[int]], statement: str, **parameters: int
) -> int:
    row = await (await connection.execute(statement, parameters)).fetchone()
    assert row is not None
    return row[0]


# Faults ------------------------------------------------------------------------------------------


def kill_connections(count: int) -> Fault:
    """Ends some of the attack's connections: writers, tickers and readers alike."""

    async def fault(attack: Attack) -> None:
        async with await psycopg.AsyncConnection.connect(
            attack.admin_url, autocommit=True
        ) as admin:
            await admin.execute(KILL, {"count": count, "salt": str(attack.seed)})

    return fault


async def kill_tickers(attack: Attack) -> None:
    """Ends all tickers at once: each forgets what it knew."""
    async with await psycopg.AsyncConnection.connect(attack.admin_url, autocommit=True) as admin:
        await admin.execute(KILL_TICKERS)


def attach_block(months: int) -> Fault:
    """A later month's block is attached under load, ahead of its time, as the relay does."""

    async def fault(attack: Attack) -> None:
        async with await psycopg.AsyncConnection.connect(
            attack.admin_url, autocommit=True
        ) as admin:
            await admin.execute("SET ROLE headwater_owner")
            await admin.execute(ATTACH, {"months": months})

    return fault


def enter_block(months: int) -> Fault:
    """The month changes under load."""

    async def fault(attack: Attack) -> None:
        async with await connect(attack.url, "headwater_relay") as relay:
            assert await _number(relay, ENTER, months=months) is True

    return fault


def crash(restart: Callable[[], None]) -> Fault:
    """The server goes down at once and comes back; clients wait for it meanwhile."""

    async def fault(attack: Attack) -> None:
        attack.up.clear()
        await asyncio.to_thread(restart)
        attack.up.set()

    return fault
