"""Rebuilding a view beside the one that is read.

A candidate is another generation of the same view, with a record of its own, which is driven like any view
until it is level; then it takes the view's place in one transaction. The one before is kept, so a rollback
is the same step back. Whoever drives the view meanwhile goes on; at the swap it finds another revision, and
opens anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from psycopg import sql

from headwater.errors import DefinitionError, LeaseLost, NothingKept, UnknownView
from headwater.log.database import Connection, Database
from headwater.log.reading import safe_position
from headwater.relay import Frontier, Leases, Pace, Runner, Standing
from headwater.views.definition import Verification
from headwater.views.driving.record import SQL
from headwater.views.driving.view import DrivenView

Report = Callable[[int, int], None]
"""Hears of progress: the position that the candidate has applied, and the log's watermark."""

_POLL_SECONDS = 0.02


@dataclass(slots=True)
class Rebuild:
    """One view's rebuild. ``live`` and ``candidate`` are objects of their own, of the same definition."""

    database: Database
    live: DrivenView
    candidate: DrivenView
    pace: Pace
    leases: Leases = field(default_factory=Leases)

    def __post_init__(self) -> None:
        self.candidate.record.row = f"{self.live.name}~next"

    @property
    def _next(self) -> str:
        return self.candidate.record.row

    @property
    def _last(self) -> str:
        return f"{self.live.name}~last"

    async def run(self, report: Report | None = None, *, check: bool = True) -> Verification | None:
        """Builds the candidate, or goes on with it, compares it with the log, and swaps.

        Returns the comparison; where it differs, nothing was swapped. Raises UnknownView, and LeaseLost where
        another process rebuilds the view.
        """
        await self._begin()
        async with self._lease() as fence:
            await self._catch_up(fence, report)
            verified = None
            if check:
                verified = await self.candidate.verify()
                if not verified.equal:
                    return verified
                await self._catch_up(fence, report)
            await self._swap(fence)
        return verified

    async def roll_back(self) -> None:
        """Gives the view back what it was before its last rebuild. Raises NothingKept.

        The one rolled back stands by as a candidate: a rebuild by its definition goes on with it.
        """
        async with self.database.transaction() as connection:
            await connection.execute(SQL["record.lock_deployment"])
            await self._require(connection, self._last)
            await connection.execute(SQL["rebuild.hold"], {"view": self.live.name})
            await self._forget(connection, self._next)
            await self._exchange(connection, self._last, self._next)
            await self.live.learn(connection)
            await self.live.publish(connection)

    # Steps ---------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Makes room for the candidate, or finds the one that was begun by the same definition."""
        async with self.database.transaction() as connection:
            await connection.execute(SQL["record.lock_deployment"])
            if await self.live.record.status(connection) == "missing":
                raise UnknownView(
                    f"The view {self.live.name!r} is not deployed.",
                    hint="Run headwater up or init first.",
                )
            await self._require_same_store(connection)
            status = await self.candidate.record.status(connection)
            if status == "current":
                await self.candidate.prepare(connection)
                return
            await self._forget(connection, self._next)
            cursor = await connection.execute(
                SQL["rebuild.newest_generation"], {"view": self.live.name}
            )
            row = await cursor.fetchone()
            assert row is not None
            record = self.candidate.record
            record.generation = row[0] + 1
            await record.create_candidate(connection)
            await self.candidate.create_beside(connection)

    async def _catch_up(self, fence: int, report: Report | None) -> None:
        async with self.database.connection() as connection:
            safe = await safe_position(connection)
        await self._drive(fence, safe, report)

    async def _drive(self, fence: int, upto: int, report: Report | None = None) -> None:
        """Drives the candidate up to a position."""
        frontier = Frontier()
        frontier.advance(upto)
        runner = Runner(self.candidate, fence, frontier, self.pace)
        running = asyncio.create_task(runner.run(), name=f"rebuild {self.live.name}")
        try:
            while runner.progress.checkpoint < upto and not running.done():
                await asyncio.sleep(_POLL_SECONDS)
                if report is not None:
                    report(runner.progress.checkpoint, upto)
        finally:
            running.cancel()
            result = (await asyncio.gather(running, return_exceptions=True))[0]
        if isinstance(result, Exception):
            raise result

    async def _swap(self, fence: int) -> None:
        """Puts the candidate in the view's place, at or beyond where it is."""
        async with self.database.transaction() as connection:
            await connection.execute(SQL["record.lock_deployment"])
            # From here on the view stands still: what it is ahead of the candidate is a batch or two.
            cursor = await connection.execute(SQL["rebuild.hold"], {"view": self.live.name})
            row = await cursor.fetchone()
            assert row is not None
            await self._drive(fence, row[0])
            await self._forget(connection, self._last)
            await self._exchange(connection, self._next, self._last)
            await self.live.learn(connection)
            await self.live.publish(connection)

    async def _exchange(self, connection: Connection, taken: str, kept: str) -> None:
        """The view's rows become those of ``kept``, and those of ``taken`` the view's."""
        name = self.live.name
        for statement in ("keep_view", "keep_checkpoint", "move_parked"):
            await connection.execute(SQL[f"rebuild.{statement}"], {"from": name, "to": kept})
        for statement in ("take_view", "take_checkpoint", "move_parked"):
            await connection.execute(SQL[f"rebuild.{statement}"], {"from": taken, "to": name})
        for view in (name, taken):
            await connection.execute(SQL["rebuild.forget_plan"], {"view": view})
        await connection.execute(SQL["rebuild.forget"], {"view": taken})

    async def _forget(self, connection: Connection, row: str) -> None:
        """Removes a generation's rows, and its tables in the log's database, where it is.

        Another store removes what it holds of it when the view is next opened.
        """
        cursor = await connection.execute(SQL["rebuild.rows"], {"view": row})
        found = await cursor.fetchone()
        if found is None:
            return
        table = f"{self.live.name}__{found[3]}"
        cursor = await connection.execute(SQL["rebuild.tables"], {"table": table})
        for (relation,) in await cursor.fetchall():
            drop = sql.SQL("DROP TABLE {}").format(sql.Identifier("headwater_views", relation))
            await connection.execute(drop)
        await connection.execute(SQL["rebuild.clear_parked"], {"view": row})
        await connection.execute(SQL["rebuild.forget"], {"view": row})

    async def _require_same_store(self, connection: Connection) -> None:
        cursor = await connection.execute(SQL["rebuild.rows"], {"view": self.live.name})
        row = await cursor.fetchone()
        assert row is not None
        if row[4] != self.live.definition.content.get("store"):
            raise DefinitionError(
                f"The view {self.live.name!r} moves to another store, so no generation can stand beside it.",
                hint=f"Run headwater rebuild --in-place {self.live.name}.",
            )

    async def _require(self, connection: Connection, row: str) -> None:
        cursor = await connection.execute(SQL["rebuild.rows"], {"view": row})
        if await cursor.fetchone() is None:
            raise NothingKept(
                f"Nothing is kept of the view {self.live.name!r} from before its last rebuild.",
                hint="A rebuild beside the live view keeps what it replaces, until the next.",
            )

    @asynccontextmanager
    async def _lease(self) -> AsyncIterator[int]:
        """The candidate's lease, renewed until the end of the block; its fence."""
        async with self.database.connection() as connection:
            fence = await self.leases.acquire(connection, self._next)
            if fence is None:
                raise LeaseLost(
                    f"Another process rebuilds {self.live.name!r}, or ended a moment ago.",
                    hint=f"Wait for it, or try again in {self.leases.seconds:g} s.",
                )
            renewing = asyncio.create_task(self._renew(), name=f"lease {self._next}")
            try:
                yield fence
            finally:
                renewing.cancel()
                await asyncio.gather(renewing, return_exceptions=True)
                await self.leases.release(connection, self._next)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self.leases.seconds / 5)
            async with self.database.connection() as connection:
                await self.leases.renew(connection, {self._next: Standing(detail="rebuild")})
