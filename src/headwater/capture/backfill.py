"""The rows that a table had before it was captured become events, step by step."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator

import msgspec
import psycopg

from headwater.capture.tables import SQL, Captured
from headwater.log.database import Database
from headwater.log.failures import translated

MAX_ROWS = 20_000
_STEP_SECONDS = 0.25
_LOCK_MILLISECONDS = "300"


class Progress(msgspec.Struct, frozen=True):
    """How far a backfill is. ``total`` is the table's size as Postgres estimates it."""

    rows: int
    total: int
    rows_per_second: float

    @property
    def seconds_left(self) -> float | None:
        """The time that the rest will take, where that can be told."""
        if not self.rows_per_second or self.total < self.rows:
            return None
        return (self.total - self.rows) / self.rows_per_second


async def backfill(operator: Database, captured: Captured) -> AsyncIterator[Progress]:
    """Appends the rows that exist, in the key's order, each step in a transaction of its own.

    It locks no row, so writers never wait for it. It may be killed at any moment: the next call goes
    on after the last step that committed. Steps are sized to last about a quarter of a second, since
    an open appending transaction holds readers back.
    """
    max_rows = 500
    more = captured.state == "backfilling"
    seen = 0
    began = time.monotonic()
    while more:
        started = time.monotonic()
        try:
            rows, more, known = await _step(operator, captured.id, max_rows)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            max_rows = max(100, max_rows // 2)
            await asyncio.sleep(random.uniform(0.05, 0.2))  # noqa: S311
            continue
        seen += rows
        seconds = time.monotonic() - started
        max_rows = max(100, min(MAX_ROWS, int(max_rows * _STEP_SECONDS / max(seconds, 0.01))))
        yield Progress(known[0], known[1], seen / (time.monotonic() - began))


async def _step(
    operator: Database, capture_id: int, max_rows: int
) -> tuple[int, bool, tuple[int, int]]:
    async with operator.transaction() as connection:
        with translated():
            # A step that meets a writer's new stream waits for that writer, who may come to wait for
            # the step: it gives up well before Postgres, after a second, would end one of them.
            await connection.execute(
                SQL["capture.lock_timeout"], {"milliseconds": _LOCK_MILLISECONDS}
            )
            cursor = await connection.execute(
                SQL["capture.backfill"], {"id": capture_id, "max_rows": max_rows}
            )
            row = await cursor.fetchone()
            cursor = await connection.execute(SQL["capture.progress"], {"id": capture_id})
            known = await cursor.fetchone()
    assert row is not None
    assert known is not None
    return row[0], row[2], (known[0], known[1])
