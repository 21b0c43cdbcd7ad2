"""The rows that a table had before it was captured become events, step by step."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import msgspec

from headwater.capture.tables import SQL, Captured
from headwater.log.database import Database
from headwater.log.failures import translated

MAX_ROWS = 20_000
_STEP_SECONDS = 0.25


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
        async with operator.transaction() as connection:
            with translated():
                cursor = await connection.execute(
                    SQL["capture.backfill"], {"id": captured.id, "max_rows": max_rows}
                )
                row = await cursor.fetchone()
                assert row is not None
                more = row[2]
                cursor = await connection.execute(SQL["capture.progress"], {"id": captured.id})
                known = await cursor.fetchone()
        seen += row[0]
        seconds = time.monotonic() - started
        max_rows = max(100, min(MAX_ROWS, int(max_rows * _STEP_SECONDS / max(seconds, 0.01))))
        assert known is not None
        yield Progress(known[0], known[1], seen / (time.monotonic() - began))
