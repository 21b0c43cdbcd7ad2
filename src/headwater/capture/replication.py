"""The reader of captures by replication: what a slot tells becomes facts, exactly once in effect.

Each transaction of the application is told in one transaction of the log, which also moves the slot's
position in ``headwater.replication``: facts and position commit together, and the slot is confirmed
afterwards. Killed before the commit, the reader is told the same again; killed after it, the reader
asks for what lies behind the position. The slot serves one reader at a time, and a reader that lost it
finds the position moved, so nothing is told twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec
import psycopg

from headwater.capture.pgoutput import Begin, Change, Commit, Relation, Truncate, Values, decode
from headwater.capture.slot import SlotConnection, lsn_of, lsn_text
from headwater.capture.tables import SQL
from headwater.errors import HeadwaterError
from headwater.log.database import Connection, Database, connect
from headwater.log.failures import translated
from headwater.log.tasks import ended

_log = logging.getLogger("headwater.capture")

MAX_CHANGES = 2_000
"""So many changes of small transactions share a commit; a larger transaction is sent in such parts."""

_CHARACTERS = 2_000  # a row of so many counts as another
_IDLE_SECONDS = 0.05
_IDLE_LOOK_SECONDS = 0.1
_LOOK_SECONDS = 1.0
_KEEP_SECONDS = 10.0
_ABSENT_SECONDS = 0.5


class _Slot(msgspec.Struct, frozen=True):
    """The slot as its table and Postgres's have it. LSNs as text, sizes in bytes."""

    generation: int
    name: str
    state: str
    applied: str
    wanted: str
    exists: bool
    active: bool
    lost: str | None
    confirmed: str | None
    retained_bytes: int
    publications: list[str]
    unfollowed: bool


class Standing(msgspec.Struct):
    """What a reader is doing: absent, reading, waiting or lost, and how far it has come."""

    state: str = "absent"
    applied: int = 0


@dataclass(slots=True)
class Replication:
    """Reads the log's slot, where there is one, until stopped. ``start`` and ``stop`` are idempotent.

    ``url`` is for a login that may replicate. A slot that holds back more than ``max_wal_bytes`` of WAL
    is given up before it fills the disk: its captures are then lost until a resync.
    """

    database: Database
    url: str
    max_wal_bytes: int
    standing: Standing = field(default_factory=Standing)
    _task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts reading; returns at once."""
        if self._task is None:
            self._task = asyncio.create_task(self._forever(), name="replication")

    async def stop(self) -> None:
        """Lets go of the slot."""
        task, self._task = self._task, None
        await ended([] if task is None else [task])

    async def _forever(self) -> None:
        failures = 0
        while True:
            started = time.monotonic()
            try:
                async with await connect(
                    self.database.url, "headwater_relay", name="headwater replication"
                ) as connection:
                    await self._watch(connection)
            except (psycopg.Error, HeadwaterError, OSError) as error:
                failures = failures + 1 if time.monotonic() - started < 10 else 1
                first_line = str(error).partition("\n")[0]
                _log.warning("replication: %s: %s", type(error).__name__, first_line)
                await asyncio.sleep(min(0.05 * 2**failures, 5.0))

    async def _watch(self, connection: Connection) -> None:
        """Waits for a slot that is free, and reads it."""
        while True:
            slot = await look(connection)
            if slot is None or slot.state == "lost":
                self.standing.state = "absent" if slot is None else "lost"
            elif why := await self._lost(connection, slot):
                _log.warning("replication: the slot is lost: %s", why)
            elif slot.active:
                self.standing.state = "waiting"
            else:
                async with await SlotConnection.open(self.url) as slot_connection:
                    await _Reader(self, slot, slot_connection, connection).read()
            await asyncio.sleep(_ABSENT_SECONDS)

    async def _lost(self, connection: Connection, slot: _Slot) -> str | None:
        """Says why the slot cannot tell all that happened, and writes it down; None where it can."""
        why = slot.lost
        if why is None and slot.confirmed is not None:
            # Looked at again, since the position may have moved between the two halves of one look.
            now = await look(connection)
            if now is not None and lsn_of(slot.confirmed) > lsn_of(now.applied) and now.generation == slot.generation:  # fmt: skip
                why = "the slot has moved on without its reader, or the log was restored"
        if why is None and slot.retained_bytes > self.max_wal_bytes:
            why = f"it held back {slot.retained_bytes:,} bytes of WAL, more than the {self.max_wal_bytes:,} allowed"
            async with await SlotConnection.open(self.url) as slot_connection:
                await slot_connection.drop(slot.name)
        if why is not None:
            parameters = {"generation": slot.generation, "why": why}
            await connection.execute(SQL["replication.lose"], parameters)
        return why


async def look(connection: Connection) -> _Slot | None:
    """The slot of this log, None where no table is captured by replication."""
    row = await (await connection.execute(SQL["replication.slot"])).fetchone()
    return None if row is None else _Slot(*row)


class _Table(msgspec.Struct):
    """A captured table as the slot last described it; ``identity`` are the places that name a row."""

    capture: int
    relation: Relation
    identity: list[int]
    empty: set[str]
    required: set[int]


class _Reader:
    """Reads one slot over one connection, and tells over another."""

    def __init__(
        self, service: Replication, slot: _Slot, source: SlotConnection, log: Connection
    ) -> None:
        self._service = service
        self._slot = slot
        self._source = source
        self._log = log
        self._applied = lsn_of(slot.applied)
        self._tables: dict[int, _Table | None] = {}
        self._transaction: Begin | None = None
        self._upto = self._applied
        self._pending: list[tuple[int, list[list[Any]], set[tuple[str | None, ...]]]] = []
        self._count = 0
        self._begun = False

    async def read(self) -> None:
        """Reads until something ends it: an error, the slot's end, or tables that came and went."""
        await self._source.follow(self._slot.name, self._applied, self._slot.publications)
        followed = {"generation": self._slot.generation, "publications": self._slot.publications}
        await self._log.execute(SQL["replication.follow"], followed)
        self._say("reading")
        looked = kept = time.monotonic()
        while True:
            message = self._source.receive()
            if message is not None:
                await self._take(message)
                if self._count < MAX_CHANGES and not (self._begun and self._transaction is None):
                    continue
            now = time.monotonic()
            if self._transaction is None:
                await self._commit()
            elif self._count >= MAX_CHANGES:
                await self._send()
            self._source.confirm(self._applied, at_most_every_seconds=_KEEP_SECONDS / 2)
            if now - looked > (_LOOK_SECONDS if message is not None else _IDLE_LOOK_SECONDS):
                looked = now
                if self._transaction is None and not await self._still_wanted(kept):
                    return
                if self._applied == self._source.reached:
                    kept = now
            if message is None:
                await self._source.arrival(_IDLE_SECONDS)

    async def _still_wanted(self, kept: float) -> bool:
        """Looks whether to go on as before; follows the WAL where it says nothing of captured tables."""
        slot = await look(self._log)
        if slot is None or slot.generation != self._slot.generation or slot.state == "lost":
            return False
        if slot.lost or slot.retained_bytes > self._service.max_wal_bytes:
            return False
        if slot.publications != self._slot.publications or slot.unfollowed:
            return False
        wanted, reached = lsn_of(slot.wanted), self._source.reached
        if wanted > max(self._applied, reached):
            self._source.confirm(self._applied, ask=True)
        # Moving is itself a commit, so an idle log is not moved at each word of the server's.
        if reached > self._applied and (
            self._applied < wanted <= reached or time.monotonic() - kept > _KEEP_SECONDS
        ):
            self._upto = reached
            await self._commit()
        return True

    def _say(self, state: str) -> None:
        self._service.standing.state = state
        self._service.standing.applied = self._applied

    # What the slot tells -------------------------------------------------------------------------

    async def _take(self, data: bytes) -> None:
        match message := decode(data):
            case Begin():
                self._transaction = message
            case Commit():
                self._upto = message.end
                self._transaction = None
            case Relation():
                await self._describe(message)
            case Truncate() if self._telling():
                await self._send()
                for relation in message.relations:
                    if (table := self._tables.get(relation)) is not None:
                        await self._begin()
                        await self._call("truncate", capture=table.capture, xid=self._xid)
            case Change() if self._telling():
                if (table := self._tables.get(message.relation)) is not None:
                    await self._change(table, message)
            case _:
                pass

    def _telling(self) -> bool:
        """Whether the transaction is news: one that was told already comes again after a kill."""
        return self._transaction is not None and self._transaction.lsn >= self._applied

    @property
    def _xid(self) -> int:
        assert self._transaction is not None
        return self._transaction.xid

    async def _describe(self, relation: Relation, empty: set[str] | None = None) -> None:
        """Follows a table's shape. A column that holds NULL is not NOT NULL, whatever the catalog says."""
        await self._send()
        await self._begin()
        columns = [
            {"name": c.name, "type": c.type, "typmod": c.typmod, "empty": c.name in (empty or ())}
            for c in relation.columns
        ]
        row = await self._call(
            "describe",
            relation=relation.oid,
            columns=msgspec.json.encode(columns).decode(),
            identity=relation.identity,
        )
        if row is None or row[1] is not None:
            self._tables[relation.oid] = None
            return
        capture, _, identity, required = row
        self._tables[relation.oid] = _Table(
            capture, relation, list(identity), empty or set(), set(required)
        )

    async def _change(self, table: _Table, change: Change) -> None:
        old, new = change.old, change.new
        if new is None:
            assert old is not None
            self._add(table, gone=True, values=old, missing=frozenset())
            return
        if table.required and (
            places := {n for n in table.required if new[n] is None and n not in change.missing}
        ):
            names = {table.relation.columns[place].name for place in places}
            await self._describe(table.relation, table.empty | names)
            described = self._tables[table.relation.oid]
            assert described is not None
            table = described
        if old is not None and any(old[n] != new[n] for n in table.identity):
            self._add(table, gone=True, values=old, missing=frozenset())
        self._add(table, gone=False, values=new, missing=change.missing)

    def _add(self, table: _Table, *, gone: bool, values: Values, missing: frozenset[int]) -> None:
        assert self._transaction is not None
        key = tuple(values[n] for n in table.identity)
        last = self._pending[-1] if self._pending else None
        # A row of which values were left out must be in the log before its next change is told.
        if last is None or last[0] != table.capture or key in last[2]:
            last = (table.capture, [], set())
            self._pending.append(last)
        if missing:
            last[2].add(key)
        last[1].append(
            [self._transaction.xid, self._transaction.seconds, gone, sorted(missing) or None, values]
        )  # fmt: skip
        self._count += 1 + sum(len(value) for value in values if value) // _CHARACTERS

    # What the log is told ------------------------------------------------------------------------

    async def _begin(self) -> None:
        if not self._begun:
            await self._log.execute(SQL["replication.begin"])
            self._begun = True
            await self._log.execute(SQL["replication.patience"])
            await self._move(self._applied)

    async def _move(self, upto: int) -> None:
        parameters = {
            "generation": self._slot.generation,
            "after": lsn_text(self._applied),
            "upto": lsn_text(upto),
        }
        with translated():
            await self._log.execute(SQL["replication.move"], parameters)

    async def _call(self, statement: str, **parameters: Any) -> tuple[Any, ...] | None:
        with translated():
            cursor = await self._log.execute(SQL[f"replication.{statement}"], parameters)
            return await cursor.fetchone()

    async def _send(self) -> None:
        """Tells what has come, in the open transaction of the log."""
        for capture, rows, _ in self._pending:
            await self._begin()
            await self._call("apply", capture=capture, rows=msgspec.json.encode(rows).decode())
        self._pending.clear()
        self._count = 0

    async def _commit(self) -> None:
        """Ends the log's transaction at the end of one of the application's, and confirms the slot."""
        await self._send()
        if self._upto <= self._applied and not self._begun:
            return
        await self._begin()
        upto = max(self._upto, self._applied)
        await self._move(upto)
        await self._log.execute(SQL["replication.commit"])
        self._begun = False
        self._applied = upto
        self._source.confirm(upto)
        self._say("reading")
