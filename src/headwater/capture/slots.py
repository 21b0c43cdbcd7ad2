"""The slot of a log: what it needs, making and dropping it, and letting it tell of a table."""

from __future__ import annotations

import asyncio
from typing import Literal

import msgspec

from headwater.capture.slot import SlotConnection, lsn_text
from headwater.capture.tables import SQL
from headwater.errors import CaptureRefused
from headwater.log.database import Database
from headwater.log.failures import translated

_ASK_AGAIN_SECONDS = 0.1


class Monitor(msgspec.Struct, frozen=True):
    """How the slot of a log is. Sizes in bytes of WAL; ``keep_megabytes`` is Postgres's own cap, -1 for none."""

    state: Literal["live", "lost"]
    detail: str | None
    slot: str
    read: bool
    wal_status: str
    retained_bytes: int
    behind_bytes: int
    idle_seconds: float
    keep_megabytes: int


async def check_requirements(operator: Database, url: str) -> None:
    """Raises CaptureRefused, with all that is missing, where the server or the login cannot replicate."""
    async with operator.connection() as connection:
        row = await (await connection.execute(SQL["replication.requirements"])).fetchone()
        known = await (await connection.execute(SQL["replication.monitor"])).fetchone()
    assert row is not None
    level, _, _, free = row
    if level != "logical":
        raise CaptureRefused(
            f"The server's wal_level is {level}: its WAL tells no rows.",
            hint="ALTER SYSTEM SET wal_level = logical, and restart the server; an embedded one follows "
            "HEADWATER_EMBEDDED_WAL_LEVEL=logical when it starts.",
        )
    if free < 1 and known is None:
        raise CaptureRefused(
            "Every replication slot of the server is taken.",
            hint="Raise max_replication_slots and restart the server, or drop a slot that nobody reads.",
        )
    async with await SlotConnection.open(url):
        pass


async def monitor(operator: Database) -> Monitor | None:
    """How the slot is; None where no table is captured by replication."""
    async with operator.connection() as connection:
        row = await (await connection.execute(SQL["replication.monitor"])).fetchone()
    return None if row is None else Monitor(*row)


async def open_slot(operator: Database, url: str) -> bool:
    """Makes a slot where there is none, or the one that was is lost. True where it made one.

    A slot begins when every transaction of the cluster that is open now has ended, and waits for that.
    """
    async with operator.connection() as connection:
        known = await (await connection.execute(SQL["replication.monitor"])).fetchone()
        if known is not None and known[0] == "live":
            return False
        await connection.execute(SQL["replication.publish_nothing"])
        row = await (await connection.execute(SQL["replication.next_slot"])).fetchone()
        assert row is not None
        generation, slot, prefix = row
        cursor = await connection.execute(SQL["replication.orphans"], {"prefix": prefix})
        orphans = [name for (name,) in await cursor.fetchall()]
        async with await SlotConnection.open(url) as source:
            for orphan in orphans:
                await source.drop(orphan)
            begins = await source.create(slot)
        parameters = {"slot": slot, "generation": generation, "lsn": lsn_text(begins)}
        await connection.execute(SQL["replication.begin_slot"], parameters)
    return True


async def join(operator: Database, capture_id: int) -> None:
    """Lets the slot tell of a table that was published after the slot began.

    A transaction that was open when the publication was made is read as of then, when Postgres did not
    know the publication, and up to Postgres 17 that is an error. So those transactions end first.
    """
    async with operator.connection() as connection:
        row = await (await connection.execute(SQL["replication.snapshot"])).fetchone()
        assert row is not None
        newest = row[1]
        while row is not None and row[0] < newest:
            await asyncio.sleep(_ASK_AGAIN_SECONDS)
            row = await (await connection.execute(SQL["replication.snapshot"])).fetchone()
        await connection.execute(SQL["replication.join"], {"id": capture_id})


class Readiness(msgspec.Struct, frozen=True):
    """How far a capture has come towards being live."""

    way: Literal["triggers", "replication"]
    joined: bool
    comparing: bool
    state: str

    @property
    def compares(self) -> bool:
        """Whether its rows are compared with the log, in place of being appended unseen."""
        return self.comparing or self.way == "replication"


async def readiness(operator: Database, capture_id: int) -> Readiness:
    """How far a capture has come."""
    async with operator.connection() as connection:
        cursor = await connection.execute(SQL["replication.joined"], {"id": capture_id})
        row = await cursor.fetchone()
    assert row is not None
    return Readiness(*row)


async def make_told(operator: Database, url: str, capture_id: int) -> None:
    """Has the slot tell of a published table: makes the slot, or lets the one there is tell of it."""
    await open_slot(operator, url)
    if not (await readiness(operator, capture_id)).joined:
        await join(operator, capture_id)


async def close_slot(operator: Database, url: str) -> None:
    """Drops the slot where no table needs it any more. Killed at any moment, another call goes on."""
    async with operator.connection() as connection:
        row = await (await connection.execute(SQL["replication.unneeded"])).fetchone()
        if row is None:
            return
        slot, generation = row
        parameters = {"generation": generation, "why": "no table needs it"}
        await connection.execute(SQL["replication.lose"], parameters)
        async with await SlotConnection.open(url) as source:
            await source.drop(slot)
        with translated():
            await connection.execute(SQL["replication.end_slot"])
            await connection.execute(SQL["replication.unpublish_nothing"])
