"""The view ``sagas``: starts instances for events, and finds the events that instances wait for.

Both are read from the log in order, the waits among them, so an event is either before its wait in the log, and found
in what the view has kept, or after it, and found as it comes. What it makes are jobs, in the commit of its checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headwater.errors import UnknownView
from headwater.log.database import Connection, Database
from headwater.relay import Batch
from headwater.sagas.statements import SQL
from headwater.views.definition import Definition, Difference, Explanation, Sample, Verification
from headwater.views.driving.record import snapshot
from headwater.views.driving.view import DrivenView
from headwater.views.port import Report

NAME = "sagas"


class SagasView(DrivenView):
    """Drives what the database does set by set. It begins at the watermark at which it is first deployed."""

    max_batch = 20_000

    def __init__(self, database: Database) -> None:
        super().__init__(database, Definition(NAME, "sagas", {"version": 1}), "park")
        self._aside: set[int] = set()

    async def _create(self, connection: Connection) -> None:
        if self.record.generation == 1:
            await connection.execute(SQL["sagas.from_now"], {"view": NAME})

    async def _drop(self, connection: Connection) -> None:
        await connection.execute(SQL["sagas.clear"])

    async def _opened(self, checkpoint: int) -> int:
        self._aside = {row[0] for row in await self.record.not_applied(self.record.connection)}
        return checkpoint

    async def apply(self, batch: Batch) -> None:
        """Starts and wakes what the batch's events start and wake; see Target."""
        marked = {**batch.parked, **batch.skipped}
        async with self.record.batch(batch.after, batch.upto) as connection:
            for status, found in (("parked", batch.parked), ("skipped", batch.skipped)):
                for position, reason in found.items():
                    await self.record.set_aside(connection, position, None, reason, status=status)
            await connection.execute(SQL["sagas.apply"], {"after": batch.after, "upto": batch.upto, "view": NAME, "aside": [*self._aside, *marked]}, prepare=True)  # fmt: skip
        self._aside.update(marked)

    async def verify(
        self,
        report: Report | None = None,  # noqa: ARG002 - it is one statement
        *,
        limit: int = 20,
        sample: Sample | None = None,  # noqa: ARG002
    ) -> Verification:
        """Compares the waits kept with those that the streams tell of, up to the checkpoint."""
        async with snapshot(self._database) as connection:
            position = await self.record.checkpoint(connection) or 0
            parked = len(await self.record.not_applied(connection))
            rows = await (
                await connection.execute(SQL["sagas.differing"], {"upto": position})
            ).fetchall()
            kept = await (await connection.execute(SQL["sagas.waits"])).fetchone()
        found = tuple(
            Difference(row[0], f"{row[1]} step {row[2]}", row[3], row[4]) for row in rows[:limit]
        )
        return Verification(NAME, position, kept[0] if kept else 0, len(rows), found, parked)

    async def explain(
        self, key: Sequence[str | None], *, tenant: str, limit: int = 20
    ) -> Explanation:
        """Not here: an instance's stream says it. Raises UnknownView."""
        raise UnknownView(
            f"The view {NAME!r} has no documents: {key}, {tenant}, {limit}.",
            hint="headwater sagas show SAGA/ID tells what an instance did.",
        )

    async def replay(self, positions: Sequence[int] | None = None) -> int:
        """Starts what parked events were to start; how many are parked no more."""
        async with self._database.transaction() as connection:
            await self.record.disturb(connection)
            parked = await self.record.parked(connection, positions)
            for position, *_ in parked:
                # Of the time up to then, as if it came now: nothing else is in the batch.
                await connection.execute(SQL["sagas.apply_one"], {"position": position})
            return await self.record.unpark(connection, [row[0] for row in parked])

    def row_of(self, values: Sequence[Any]) -> Any:
        """Values as they are."""
        return values
