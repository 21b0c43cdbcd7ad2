"""Brings the log level with a table: reads the table, and appends what the log does not know.

It serves backfills of captures by replication, captures again after a release, and resyncs after a slot
was lost or triggers were disabled. The proof that it neither loses nor doubles a change of a writer
beside it stands in the migration, above ``headwater.open_comparison``.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator

import msgspec
import psycopg

from headwater.capture.backfill import MAX_ROWS, Progress
from headwater.capture.tables import SQL, Captured, briefly_locked
from headwater.errors import CaptureStopped
from headwater.log.database import Connection, Database
from headwater.log.failures import translated

_STEP_SECONDS = 0.25
_LOCK_MILLISECONDS = "300"
_ASK_AGAIN_SECONDS = 0.02
_LIVING = 2_000
_MIN_ROWS = 200


class _Read(msgspec.Struct, frozen=True):
    """A step's rows, and the snapshot that they were read in."""

    snapshot: str
    shape: str
    rows: str
    last: list[str] | None
    versions: str | None
    count: int


async def begin_resync(operator: Database, captured: Captured) -> None:
    """Has the log compared with the whole table, from its beginning. Raises CaptureRefused."""
    async with operator.connection() as connection:
        with translated():
            await connection.execute(SQL["comparing.begin"], {"id": captured.id})


async def compare(operator: Database, captured: Captured) -> AsyncIterator[Progress]:
    """Compares in steps, each in a transaction of its own, until the log is level with the table.

    ``Progress.rows`` are those looked at. Killed at any moment, another call goes on after the last
    step. By replication a reader must be running. Raises CaptureStopped where the capture stops meanwhile.
    """
    began = time.monotonic()
    seen = 0
    over = False
    async with operator.connection() as connection:
        await _Comparison(connection, captured).followed()
    while not over:
        await briefly_locked(operator, "comparing.open", {"id": captured.id}, captured.name)
        async with operator.connection() as connection:
            snapshot = await _value(connection, "comparing.snapshot")
            comparison = _Comparison(connection, captured)
            async for rows in comparison.rows():
                seen += rows
                yield Progress(seen, 0, seen / (time.monotonic() - began))
            if await comparison.may_miss_rows():
                await comparison.missing()
            parameters = {"id": captured.id, "snapshot": snapshot}
            over = bool(await _value(connection, "comparing.end", parameters))


class _Comparison:
    """One round over a table, on one connection: a server that crashed in between ends it."""

    def __init__(self, connection: Connection, captured: Captured) -> None:
        self._connection = connection
        self._captured = captured
        self._held_seconds = 0.0

    async def rows(self) -> AsyncIterator[int]:
        """Compares the table's rows in the key's order; yields how many each step saw."""
        max_rows = 500
        while True:
            read = await self._read(max_rows)
            if not read.count:
                return
            done = await self._told(
                "comparing.compare",
                {
                    "snapshot": read.snapshot,
                    "shape": read.shape,
                    "rows": read.rows,
                    "last": read.last,
                    "versions": read.versions,
                },
            )
            # By what the open transaction took: waiting for the reader holds nobody back.
            by = _STEP_SECONDS / max(self._held_seconds, 0.01)
            max_rows = max(_MIN_ROWS, min(MAX_ROWS, int(max_rows * by)))
            if not done:
                await asyncio.sleep(_ASK_AGAIN_SECONDS)
                continue
            yield read.count

    async def missing(self) -> None:
        """Tells of the rows that the log holds as living and the table has not."""
        after = {"after_tenant": "", "after_stream": ""}
        while True:
            parameters = {"id": self._captured.id, "max_rows": _LIVING, **after}
            cursor = await self._connection.execute(SQL["comparing.living"], parameters)
            row = await cursor.fetchone()
            assert row is not None
            living, count, tenant, stream = row
            if not count:
                return
            async with self._connection.transaction():
                await self._connection.execute(SQL["comparing.isolate"])
                parameters = {"id": self._captured.id, "living": living}
                cursor = await self._connection.execute(SQL["comparing.missing"], parameters)
                row = await cursor.fetchone()
            assert row is not None
            snapshot, missing, lacking = row
            if snapshot is None:
                continue
            if lacking and not await self._told(
                "comparing.compare_missing", {"snapshot": snapshot, "missing": missing}
            ):
                continue
            after = {"after_tenant": tenant, "after_stream": stream}

    async def _read(self, max_rows: int) -> _Read:
        while True:
            async with self._connection.transaction():
                await self._connection.execute(SQL["comparing.isolate"])
                cursor = await self._connection.execute(
                    SQL["comparing.read"], {"id": self._captured.id, "max_rows": max_rows}
                )
                row = await cursor.fetchone()
            assert row is not None
            if row[0] is not None:
                return _Read(*row)

    async def _told(self, statement: str, parameters: dict[str, object]) -> bool:
        """Whether the step was told; False where it must be read anew."""
        lsn = await _value(self._connection, "comparing.lsn")
        await self._reached(lsn)
        started = time.monotonic()
        try:
            async with self._connection.transaction():
                timeout = {"milliseconds": _LOCK_MILLISECONDS}
                await self._connection.execute(SQL["capture.lock_timeout"], timeout)
                told = await _value(
                    self._connection, statement, {"id": self._captured.id, "lsn": lsn, **parameters}
                )
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            await asyncio.sleep(random.uniform(0.05, 0.2))  # noqa: S311
            return False
        self._held_seconds = time.monotonic() - started
        return told is not None

    async def followed(self) -> None:
        """Waits until a reader has asked for the table."""
        while not (await self._state())[1]:
            await asyncio.sleep(_ASK_AGAIN_SECONDS)

    async def may_miss_rows(self) -> bool:
        """Whether rows may have gone unseen: none of a capture that is new."""
        return (await self._state())[2]

    async def _reached(self, lsn: object) -> None:
        """Waits until the reader has come to an LSN. A capture by triggers has no reader, nor need of one."""
        way, _, _ = await self._state()
        while way == "replication" and not await _value(
            self._connection, "comparing.want", {"lsn": lsn}
        ):
            await asyncio.sleep(_ASK_AGAIN_SECONDS)
            await self._state()

    async def _state(self) -> tuple[str, bool, bool]:
        """How the table is captured, whether a reader follows it, and whether the log knew it before. Raises CaptureStopped."""
        cursor = await self._connection.execute(SQL["comparing.state"], {"id": self._captured.id})
        row = await cursor.fetchone()
        assert row is not None
        state, way, slot_state, detail, followed, comparing = row
        if state != "backfilling" or (way == "replication" and slot_state != "live"):
            raise CaptureStopped(
                f"The capture {self._captured.name!r} has stopped: {detail or state}.",
                hint=f"headwater resync {self._captured.name} begins again.",
            )
        return way, followed, comparing


async def _value(
    connection: Connection, statement: str, parameters: dict[str, object] | None = None
) -> object:
    with translated():
        row = await (await connection.execute(SQL[statement], parameters or {})).fetchone()
    assert row is not None
    return row[0]
