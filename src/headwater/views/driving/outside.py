"""Views whose data is outside the log's database.

The store's own checkpoint is the truth, since it moves with the data. The record in the log's database
follows it, so that readers who wait, operators and metrics find every view in one place; it is never
ahead of the data for longer than it takes a relay to open the view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from headwater.errors import ViewStale
from headwater.log.database import Connection
from headwater.views.driving.record import SQL, ViewRecord
from headwater.views.storage import Checkpoint, Hold, LastEvent, Place, Storage


@dataclass(frozen=True, slots=True)
class Outside:
    """Keeps one view's record in step with its storage."""

    record: ViewRecord
    storage: Storage

    async def place(self, connection: Connection) -> Place:
        """Where the data of the generation known lies."""
        log, _ = await _row(connection, "log.identity")
        return Place(log, self.record.name, self.record.generation, self.record.slice)

    async def newest(
        self, connection: Connection, types: Sequence[str], upto: int
    ) -> tuple[int, LastEvent | None]:
        """The log's epoch, and its last event of these types up to a position."""
        _, epoch = await _row(connection, "log.identity")
        cursor = await connection.execute(
            SQL["log.newest"], {"after": 0, "upto": upto, "types": list(types)}
        )
        row = await cursor.fetchone()
        return epoch, None if row is None else LastEvent(row[0], bytes(row[1]))

    async def open(self, recorded: int) -> tuple[Hold, int]:
        """Takes the data over under the record's fence; where to go on from.

        Raises ViewStale where the data is from a history that this log does not have.
        """
        record = self.record
        _, epoch = await _row(record.connection, "log.identity")
        place = await self.place(record.connection)
        if place.generation > 1:
            await self.storage.sweep(place, await record.generations())
        found = await self.storage.open(place, record.fence)
        if found.replayed:
            # A replay that was killed between the store's write and this one.
            await self.replayed(record.connection, found.replayed)
            recorded = await record.take_over(record.fence)  # under the revision of now
        hold = Hold(place, record.fence, epoch, found.revision)
        proven = await self._prove(found, epoch)
        if proven is not found:
            await self.storage.adopt(hold, proven)
        if proven.position != recorded:
            await record.follow_store(proven.position)
        return hold, proven.position

    async def replayed(self, connection: Connection, positions: Sequence[int]) -> None:
        """Records that parked events were applied after all, and that rows have changed for it."""
        async with connection.transaction():
            if await self.record.unpark(connection, positions):
                await self.record.disturb(connection)

    async def _prove(self, found: Checkpoint, epoch: int) -> Checkpoint:
        """The checkpoint to go on from.

        A log that was restored, or lost its end in a failover, is a prefix of what it was. If it still
        has the last event that the data rests on, then it has all before it. Positions after that event
        may have been drawn anew, so the view goes on right after it.
        """
        connection = self.record.connection
        if found.last is not None:
            cursor = await connection.execute(SQL["log.id_at"], {"position": found.last.position})
            row = await cursor.fetchone()
            if row is None or bytes(row[0]) != found.last.id:
                raise ViewStale(
                    f"The data of {self.record.name!r} rests on an event at position "
                    f"{found.last.position} that this log does not have: the log was restored.",
                    hint=f"Run headwater rebuild {self.record.name}.",
                )
        (safe,) = await _row(connection, "log.safe")
        if found.epoch in {0, epoch} and found.position <= max(safe, 0):
            return found
        position = 0 if found.last is None else found.last.position
        return replace(found, position=position, epoch=epoch)


async def _row(connection: Connection, statement: str) -> tuple[Any, ...]:
    row = await (await connection.execute(SQL[statement])).fetchone()
    assert row is not None
    return row
