"""Snapshots: states of folds over streams, kept so that a long stream need not be read from its beginning.

A snapshot is kept after a decision has read more events than SPACING beyond the last one, beside the decision and
never in its way. It belongs to a fold's definition: changed code reads the stream from its beginning once. It is
made from committed events only, and may be deleted at any time.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import msgspec
import psycopg

from headwater.commands.statements import SQL
from headwater.errors import HeadwaterError
from headwater.log.database import Database
from headwater.log.tasks import ended

_log = logging.getLogger("headwater.commands")
_AT_ONCE = 4
_encode = msgspec.json.Encoder(decimal_format="string").encode

SPACING = 500
"""How many events a decision reads before it keeps a snapshot."""
LEAST = SPACING
"""Streams with fewer events have none."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A fold's state over a stream, at a version and its position: JSON, null where there is no document."""

    tenant: str
    stream: str
    fingerprint: str
    version: int
    position: int
    state: bytes

    @property
    def place(self) -> tuple[str, str, str]:
        """What it is of."""
        return self.tenant, self.stream, self.fingerprint


def as_json(state: object) -> bytes | None:
    """A state as it is kept, whatever a function does to it later; None for one that cannot be written."""
    try:
        return _encode(state)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        _log.debug("a state cannot be kept: %s", error)
        return None


class Snapshots:
    """Keeps snapshots in tasks of its own; a few at a time, and what is too much is left out."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tasks: dict[tuple[str, str, str], asyncio.Task[None]] = {}

    def keep(self, snapshot: Snapshot) -> None:
        """Keeps a snapshot, soon; a newer one stays."""
        if len(self._tasks) >= _AT_ONCE or snapshot.place in self._tasks:
            return
        task = asyncio.create_task(self._keep(snapshot), name=f"snapshot of {snapshot.stream}")
        self._tasks[snapshot.place] = task
        task.add_done_callback(lambda _: self._tasks.pop(snapshot.place, None))

    async def close(self) -> None:
        """Ends what is under way. Idempotent."""
        await ended(list(self._tasks.values()))

    async def _keep(self, snapshot: Snapshot) -> None:
        parameters = {
            "tenant": snapshot.tenant,
            "stream": snapshot.stream,
            "fingerprint": snapshot.fingerprint,
            "version": snapshot.version,
            "position": snapshot.position,
            "state": snapshot.state.decode(),
        }
        try:
            async with self._database.transaction(snapshot.tenant) as connection:
                await connection.execute(SQL["commands.keep_snapshot"], parameters, prepare=True)
        except (HeadwaterError, psycopg.Error, OSError) as error:
            _log.debug("no snapshot of %s: %s", snapshot.stream, error)
