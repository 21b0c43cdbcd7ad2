"""Writers that do all that an application might do inside a transaction, from a seed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import psycopg
from marked import APPEND, SET_TENANT, Marked

from headwater.errors import AppendRefused, DatabaseUnavailable
from headwater.log import Connection, Database, SharedCommits, Writer
from headwater.log.database import connect
from headwater.log.writing import group_of

if TYPE_CHECKING:
    from attack import Attack

TENANTS = ("north", "south", "east")
# What a session may meet when it is killed or the server goes.
LOST = (psycopg.OperationalError, psycopg.InterfaceError, DatabaseUnavailable)
APPEND_MANY = "SELECT count(*) FROM headwater.append_many(%(events)s::jsonb)"

APPEND_GIANT = """
SELECT count(*) FROM generate_series(1, %s) AS g CROSS JOIN LATERAL headwater.append(
  'line/giant-' || g, 'attack.marked', jsonb_build_object('line', 'giant-' || g, 'mark', 'giant-' || g)) AS a
"""


class Undone(Exception):
    """The deed wants its transaction rolled back."""


@dataclass
class Marks:
    """What a transaction appended, and which of it a savepoint took back."""

    kept: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)


class Session:
    """One connection after another that does one deed after another until the goal is reached."""

    def __init__(self, attack: Attack, number: int) -> None:
        self.name = f"w{number}"
        self.attack = attack
        self.random = Random(f"{attack.seed} {self.name}")
        # Every third session trusts its commits to memory, where the server may crash.
        self.durable = not attack.soft_commits or number % 3 == 0
        self._marked = 0
        self._left_prepared: tuple[str, list[str]] | None = None

    async def run(self) -> None:
        ledger = self.attack.ledger
        while not ledger.full:
            try:
                await self.attack.up.wait()
                connection = await connect(self.attack.url, "headwater_app", name="attack writer")
                async with connection:
                    if not self.durable:
                        await connection.execute("SET synchronous_commit = off")
                    await self._settle(connection)
                    while not ledger.full:
                        await self._deed(connection)
            except LOST:
                await asyncio.sleep(0.01)

    async def _deed(self, connection: Connection) -> None:
        deed = self.random.choices(DEEDS, WEIGHTS)[0]
        ledger = self.attack.ledger
        ledger.deeds[deed.__name__] = ledger.deeds.get(deed.__name__, 0) + 1
        marks = Marks()
        tenant = self.random.choice(TENANTS)
        gid = self.mark() if deed is Session.prepared else None
        committing = False
        try:
            await connection.execute("BEGIN")
            await connection.execute(SET_TENANT, {"tenant": tenant})
            await deed(self, connection, tenant, marks)
            committing = True
            if gid is None:
                await connection.execute("COMMIT")
            else:
                await self._two_phases(connection, gid, marks)
        except (Undone, AppendRefused, psycopg.errors.DeadlockDetected):
            await connection.execute("ROLLBACK")
            ledger.undo(marks.kept)
        except LOST as error:
            if (getattr(error, "sqlstate", None) or "").startswith("HW"):
                raise AssertionError(error) from error  # refused, which psycopg calls operational
            if not committing:
                ledger.undo(marks.kept)
            raise
        else:
            if gid is None:
                ledger.acknowledge(marks.kept, durable=self.durable)
        finally:
            ledger.undo(marks.undone)

    async def _two_phases(self, connection: Connection, gid: str, marks: Marks) -> None:
        self._left_prepared = gid, marks.kept
        await connection.execute(f"PREPARE TRANSACTION '{gid}'")
        await self.pause(connection, 20)
        if self.random.random() < 0.3:
            await connection.execute(f"ROLLBACK PREPARED '{gid}'")
            self.attack.ledger.undo(marks.kept)
        else:
            await connection.execute(f"COMMIT PREPARED '{gid}'")
            self.attack.ledger.acknowledge(marks.kept, durable=self.durable)
        self._left_prepared = None

    async def _settle(self, connection: Connection) -> None:
        """Commits what an earlier connection prepared and was lost over."""
        if self._left_prepared is None:
            return
        gid, kept = self._left_prepared
        cursor = await connection.execute("SELECT FROM pg_prepared_xacts WHERE gid = %s", [gid])
        if cursor.rowcount:
            await connection.execute(f"COMMIT PREPARED '{gid}'")
            self.attack.ledger.acknowledge(kept, durable=self.durable)
        self._left_prepared = None

    def mark(self) -> str:
        self._marked += 1
        return f"{self.name}-{self._marked}"

    async def pause(self, connection: Connection, most_ms: int) -> None:
        seconds = self.random.random() * most_ms / 1000
        await connection.execute("SELECT pg_sleep(%s)", [seconds])

    def events(self, marks: list[str], count: int) -> list[Marked]:
        new = [self.mark() for _ in range(count)]
        marks += new
        return [Marked(f"hot-{self.random.randrange(12)}", mark) for mark in new]

    async def append_sql(self, connection: Connection, marks: list[str]) -> None:
        mark = self.mark()
        marks.append(mark)
        await connection.execute(APPEND, {"line": self.name, "mark": mark}, prepare=True)

    # Deeds -------------------------------------------------------------------------------------

    async def plain_sql(self, connection: Connection, tenant: str, marks: Marks) -> None:
        mark = self.mark()
        marks.kept.append(mark)
        line = f"hot-{self.random.randrange(12)}"
        await connection.execute(APPEND, {"line": line, "mark": mark}, prepare=True)

    async def python(self, connection: Connection, tenant: str, marks: Marks) -> None:
        events = self.events(marks.kept, self.random.randint(1, 60))
        await Writer(connection, tenant).append(*events)

    async def many(self, connection: Connection, tenant: str, marks: Marks) -> None:
        events = [
            {
                "stream": f"line/{e.line}",
                "type": "attack.marked",
                "data": {"line": e.line, "mark": e.mark},
            }
            for e in self.events(marks.kept, self.random.randint(20, 200))
        ]
        await connection.execute(APPEND_MANY, {"events": json.dumps(events)})

    async def sleepy(self, connection: Connection, tenant: str, marks: Marks) -> None:
        for _ in range(self.random.randint(1, 4)):
            await self.append_sql(connection, marks.kept)
            await self.pause(connection, 30)

    async def rolled_back(self, connection: Connection, tenant: str, marks: Marks) -> None:
        await self.sleepy(connection, tenant, marks)
        raise Undone

    async def savepoints(self, connection: Connection, tenant: str, marks: Marks) -> None:
        """The first position may be drawn in a subtransaction that is rolled back."""
        for name in ("one", "two", "three"):
            await connection.execute(f"SAVEPOINT {name}")
            undo = self.random.random() < 0.5
            await self.append_sql(connection, marks.undone if undo else marks.kept)
            await connection.execute(f"{'ROLLBACK TO' if undo else 'RELEASE'} SAVEPOINT {name}")
            await self.pause(connection, 10)

    async def conflicting(self, connection: Connection, tenant: str, marks: Marks) -> None:
        """A batch that is refused after its streams were reserved."""
        await Writer(connection, tenant).append(*self.events(marks.kept, 5))
        await Writer(connection, tenant).append(Marked(self.name, self.mark()), expect=10**6)

    async def prepared(self, connection: Connection, tenant: str, marks: Marks) -> None:
        await self.append_sql(connection, marks.kept)
        await connection.execute("SAVEPOINT one")
        await self.append_sql(connection, marks.undone)
        await connection.execute("ROLLBACK TO SAVEPOINT one")


DEEDS = (
    Session.plain_sql,
    Session.python,
    Session.many,
    Session.sleepy,
    Session.rolled_back,
    Session.savepoints,
    Session.conflicting,
    Session.prepared,
)
WEIGHTS = (30, 20, 10, 8, 5, 8, 4, 5)


async def share_commits(attack: Attack, callers: int = 40) -> None:
    """Python callers whose appends are coalesced."""
    database = Database(attack.url, "headwater_app", max_size=3, name="attack shared")
    await database.open()
    shared = SharedCommits(database)
    await shared.start()
    random = Random(f"{attack.seed} shared")

    async def call(mark: str) -> None:
        events = [Marked(f"hot-{random.randrange(12)}", f"{mark}.{n}") for n in range(3)]
        marks = [event.mark for event in events]
        try:
            await shared.append(group_of(random.choice(TENANTS), events))
        except AppendRefused:
            attack.ledger.undo(marks)
        except LOST:
            await attack.up.wait()
        else:
            attack.ledger.acknowledge(marks, durable=True)

    round_ = 0
    while not attack.ledger.full:
        round_ += 1
        await asyncio.gather(*(call(f"shared-{round_}-{n}") for n in range(callers)))
    await shared.stop()
    await database.close()


async def run_process(attack: Attack, number: int) -> None:
    """A writer in a process of its own, in plain SQL; it says what was committed, line by line."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("sql_process.py")),
        attack.url,
        f"p{number}",
        str(attack.seed),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    try:
        while not attack.ledger.full:
            line = await process.stdout.readline()
            assert line, f"the writer p{number} ended by itself"
            attack.ledger.acknowledge(line.decode().split(), durable=True)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def append_in_one_transaction(attack: Attack, count: int) -> None:
    """So many calls of headwater.append in one transaction, each for a stream of its own."""
    await attack.ledger.reached(0.05)
    connection = await connect(attack.url, "headwater_app", name="giant")
    async with connection, connection.transaction():
        await connection.execute(SET_TENANT, {"tenant": TENANTS[0]})
        await connection.execute(APPEND_GIANT, [count])
    attack.ledger.acknowledge([f"giant-{n}" for n in range(1, count + 1)], durable=True)
