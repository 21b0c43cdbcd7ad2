"""A fold's candidate that several processes build, each its slice of the keys.

A slice is a record beside the candidate's, with a checkpoint and a lease of its own; the documents are in one place.
Once all slices are at the same position they are made one: the candidate is there too, and is driven like any from
then on. Killed anywhere, the slices go on where they were.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Protocol

from headwater.log.database import Connection, Database
from headwater.log.reading import safe_position
from headwater.log.tasks import ended
from headwater.relay import Leases
from headwater.views.definition import Sample, Verification
from headwater.views.driving.building import Building, Report
from headwater.views.driving.fold import DrivenFold
from headwater.views.driving.record import SQL, row_beside
from headwater.views.fold import Slice


class BuildsSlices(Protocol):
    """Where slices are built: in this process or in others."""

    async def build(self, part: Slice, upto: int) -> None:
        """Drives a slice of the candidate up to a position."""
        ...

    async def verify(self, part: Sample) -> Verification:
        """Compares a part of the candidate's keys with the log."""
        ...

    def close(self) -> None:
        """Ends what was started for it. Idempotent."""
        ...


_POLL_SECONDS = 0.2
_LEVEL_SECONDS = 5.0
_DIFFERENCES = 20


@dataclass(slots=True)
class Slices:
    """How a candidate is built, and compared, in slices, so many ``at_once``."""

    database: Database
    candidate: DrivenFold[Any]
    builder: BuildsSlices
    at_once: int = 1

    @property
    def _row(self) -> str:
        return row_beside(self.candidate.name)

    def _rows(self, of: int) -> list[str]:
        return [row_beside(self.candidate.name, number) for number in range(of)]

    async def create(self, connection: Connection) -> None:
        """Records as many slices of a new candidate as are built at once; none for one. In a transaction."""
        of = min(self.at_once, self.candidate.max_slices)
        if of > 1:
            rows = {"view": self._row, "rows": self._rows(of)}
            await connection.execute(SQL["slices.create"], rows)
            await connection.execute(SQL["slices.create_checkpoints"], rows)

    async def run(self, building: Building, fence: int, report: Report | None) -> None:
        """Builds the slices that are recorded, if any, up to about the end of the log, and makes one of them.

        Raises LeaseLost where another process rebuilds the view, and what building a slice raises.
        """
        if of := len(await self._positions()):
            await self._build(of, building, fence, report)

    async def verify(self) -> Verification:
        """Compares the candidate with the log, a part of the keys in each of so many processes."""
        of = self.at_once
        if of == 1:
            return await self.candidate.verify()
        parts = [Sample(of, number, of_whole=True) for number in range(of)]
        tasks = [asyncio.create_task(self.builder.verify(part)) for part in parts]
        try:
            verified = await asyncio.gather(*tasks)
        finally:
            await ended(tasks)
        return Verification.of_parts(verified, _DIFFERENCES)

    def close(self) -> None:
        """Ends the processes. Idempotent."""
        self.builder.close()

    async def _build(self, of: int, building: Building, fence: int, report: Report | None) -> None:
        before = float("inf")
        while True:
            began = time.monotonic()
            async with self.database.connection() as connection:
                upto = await safe_position(connection)
            await self._build_all(of, upto, building, report)
            took = time.monotonic() - began
            is_level = took < _LEVEL_SECONDS or took >= before
            if is_level and await self._join(of, fence, upto, building):
                return
            before = took

    async def _positions(self) -> list[int]:
        async with self.database.connection() as connection:
            cursor = await connection.execute(SQL["slices.positions"], {"view": self._row})
            return [row[0] for row in await cursor.fetchall()]

    async def _build_all(
        self, of: int, upto: int, building: Building, report: Report | None
    ) -> None:
        """Builds each slice up to a position, some at once; what one raises ends the others."""
        places = asyncio.Semaphore(self.at_once)

        async def one(number: int) -> None:
            async with places:
                await self.builder.build(Slice(number, of), upto)

        tasks = [asyncio.create_task(one(n), name=f"slice {n} of {self._row}") for n in range(of)]
        try:
            waiting = set(tasks)
            while waiting:
                done, waiting = await asyncio.wait(
                    waiting, timeout=_POLL_SECONDS, return_when=asyncio.FIRST_EXCEPTION
                )
                for task in done:
                    task.result()
                building.check_lease()
                if report is not None and (positions := await self._positions()):
                    report(sum(positions) // len(positions), upto)
        finally:
            await ended(tasks)

    async def _join(self, of: int, fence: int, upto: int, building: Building) -> bool:
        """Makes one of the slices; False where one is not at the position, so that it is built on.

        They are taken over first: a process that was paused, and goes on, writes nothing.
        """
        leases = Leases()
        fences = []
        async with self.database.connection() as connection:
            try:
                for row in self._rows(of):
                    if (held := await leases.acquire(connection, row)) is None:
                        raise building.taken()
                    fences.append(held)
                if not await self.candidate.join_outside(connection, [*fences, fence], upto):
                    return False
                async with connection.transaction():
                    await connection.execute(SQL["record.lock_deployment"])
                    if await self.candidate.record.status(connection) != "current":
                        raise building.taken()
                    cursor = await connection.execute(
                        SQL["slices.held_positions"], {"view": self._row}
                    )
                    positions = [row[0] for row in await cursor.fetchall()]
                    if len(positions) != of or set(positions) != {upto}:
                        return False
                    joined = {"view": self._row, "upto": upto}
                    for statement in ("join", "join_parked", "forget"):
                        await connection.execute(SQL[f"slices.{statement}"], joined)
            finally:
                for row in self._rows(of):
                    await leases.release(connection, row)
        return True
