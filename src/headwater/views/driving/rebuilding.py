"""Rebuilding a view beside the one that is read.

A candidate is another generation of the same view, with a record of its own, which is driven like any view
until it is level; then it takes the view's place in one transaction. The one before is kept, so a rollback
is the same step back. Whoever drives the view meanwhile goes on; at the swap it finds another revision, and
opens anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import psycopg
from psycopg.errors import LockNotAvailable

from headwater.errors import DefinitionError, NothingKept, StoreUnavailable, UnknownView
from headwater.log.database import Connection, Database
from headwater.log.reading import safe_position
from headwater.relay import Pace
from headwater.views.definition import Verification
from headwater.views.driving.building import Building, Report
from headwater.views.driving.generations import copy_generation, drop_generation
from headwater.views.driving.record import SQL, base_row, row_beside
from headwater.views.driving.slicing import Slices
from headwater.views.driving.view import DrivenView

_log = logging.getLogger("headwater.rebuild")

_LEVEL_SECONDS = 1.0
_READERS_SECONDS = 0.5


@dataclass(slots=True)
class Rebuild:
    """One view's rebuild. ``live`` and ``candidate`` are objects of their own, of the same definition.

    ``slices`` says how a candidate is built by several processes, where it can be. ``from_baseline`` is whether it may begin
    from one that is of the same definition.
    """

    database: Database
    live: DrivenView
    candidate: DrivenView
    pace: Pace
    slices: Slices | None = None
    from_baseline: bool = True
    began_at: int = 0
    """The position of the baseline that the candidate began from; 0 where it began at the beginning, or was begun before."""
    building: Building = field(init=False)

    def __post_init__(self) -> None:
        self.candidate.record.row = row_beside(self.live.name)
        self.building = Building(self.database, self.candidate, self.pace)

    @property
    def _next(self) -> str:
        return self.candidate.record.row

    @property
    def _last(self) -> str:
        return f"{self.live.name}~last"

    async def run(self, report: Report | None = None, *, check: bool = True) -> Verification | None:
        """Builds the candidate, or goes on with it, compares it with the log, and swaps.

        Returns the comparison; where it differs, nothing was swapped, and the next rebuild begins anew.
        Raises UnknownView, and LeaseLost where another process rebuilds the view.
        """
        async with self.building.lease() as fence:
            await self._begin()
            if self.from_baseline:
                await self._begin_from_baseline()
            verified = await self._built(fence, report, check=check)
            if verified is not None:
                if not verified.equal:
                    await self._discard()
                    return verified
                await self._catch_up(fence, report)
            await self._between_readers(lambda: self._swap(fence, report))
            await self._publish_outside()
        return verified

    async def _built(
        self, fence: int, report: Report | None, *, check: bool
    ) -> Verification | None:
        """Builds the candidate to about the end of the log; the comparison, where it was asked for."""
        slices = self.slices
        try:
            if slices is not None:
                await slices.run(self.building, fence, report)
            await self._catch_up(fence, report)
            if not check:
                return None
            return await (self.candidate.verify() if slices is None else slices.verify())
        finally:
            if slices is not None:
                slices.close()

    async def roll_back(self) -> None:
        """Gives the view back what it was before its last rebuild.

        Raises NothingKept, and LeaseLost where another process rebuilds the view.

        The one rolled back stands by as a candidate: a rebuild by its definition goes on with it.
        """
        async with self.building.lease():
            await self._between_readers(self._give_back)
            await self._publish_outside()

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
            await self.candidate.record.next_generation(connection)
            await self.candidate.record.create_candidate(connection)
            if self.slices is not None:
                await self.slices.create(connection)
            await self.candidate.create_beside(connection)

    async def _begin_from_baseline(self) -> None:
        """Fills a candidate that is empty yet from the view's baseline, where there is one of its definition."""
        async with self.database.transaction() as connection:
            cursor = await connection.execute(SQL["rebuild.hold"], {"view": self._next})
            candidate = await cursor.fetchone()
            cursor = await connection.execute(
                SQL["baseline.kept"], {"view": base_row(self.live.name)}
            )
            kept = await cursor.fetchone()
            cursor = await connection.execute(SQL["slices.positions"], {"view": self._next})
            slices = [row[0] for row in await cursor.fetchall()]
            if candidate is None or kept is None or max(candidate[0], *slices, 0):
                return
            if kept[0] != self.candidate.definition.fingerprint:
                return
            # What is left is the log's end, which one process follows.
            await connection.execute(SQL["slices.forget"], {"view": self._next})
            self.began_at = await copy_generation(
                connection, self.live.name, taken=base_row(self.live.name), filled=self._next
            )

    async def _catch_up(self, fence: int, report: Report | None) -> None:
        """Drives the candidate until what the log went on by meanwhile is a moment's worth."""
        before = float("inf")
        while True:
            began = time.monotonic()
            async with self.database.connection() as connection:
                safe = await safe_position(connection)
            await self.building.drive(fence, safe, report)
            took = time.monotonic() - began
            if took < _LEVEL_SECONDS or took >= before:  # a slow store gets no nearer than that
                return
            before = took

    async def _discard(self) -> None:
        """Throws the candidate away, so that the next rebuild does not go on with it."""
        async with self.database.transaction() as connection:
            await connection.execute(SQL["record.lock_deployment"])
            await self._forget(connection, self._next)

    async def _between_readers(self, exchange: Callable[[], Awaitable[None]]) -> None:
        """Exchanges generations while no transaction reads the view.

        Postgres lets no reader pass one who waits to replace what they read. So the exchange waits for a
        moment only, and then lets those behind it go first: a long report delays it, and nobody else.
        """
        while True:
            try:
                await exchange()
            except LockNotAvailable:
                _log.warning("%s: the swap waits for a transaction that reads it", self.live.name)
            else:
                return
            await asyncio.sleep(_READERS_SECONDS)
            self.building.check_lease()

    async def _swap(self, fence: int, report: Report | None) -> None:
        """Puts the candidate in the view's place, at or beyond where it is."""
        await self._catch_up(fence, report)
        async with self.database.transaction() as connection:
            await connection.execute(SQL["record.lock_deployment"])
            if await self.candidate.record.status(connection) != "current":
                raise self.building.taken()
            await connection.execute(SQL["session.patient"])
            # From here on the view stands still: what it is ahead of the candidate is a batch or two. One of
            # them may be in its store already, where readers see it, though it is not recorded yet.
            cursor = await connection.execute(SQL["rebuild.hold"], {"view": self.live.name})
            row = await cursor.fetchone()
            assert row is not None
            upto = max(row[0], await safe_position(connection))
            await self.building.drive(fence, upto, pace=Pace())
            await self._take_place(connection, self._next, self._last)

    async def _give_back(self) -> None:
        async with self.database.transaction() as connection:
            await connection.execute(SQL["record.lock_deployment"])
            await self._require(connection, self._last)
            await connection.execute(SQL["rebuild.hold"], {"view": self.live.name})
            await self._take_place(connection, self._last, self._next)

    async def _take_place(self, connection: Connection, taken: str, kept: str) -> None:
        await connection.execute(SQL["rebuild.short_waits"])
        await self._forget(connection, kept)
        await self._exchange(connection, taken, kept)
        await self.live.learn(connection)
        await self.live.publish(connection)

    async def _publish_outside(self) -> None:
        """The exchange holds already; names in a store that is down follow when a relay next opens the view."""
        try:
            await self.live.publish_outside()
        except (StoreUnavailable, psycopg.OperationalError) as error:
            _log.warning("%s: other programs still read the one before: %s", self.live.name, error)

    async def _exchange(self, connection: Connection, taken: str, kept: str) -> None:
        """The view's rows become those of ``kept``, and those of ``taken`` the view's."""
        name = self.live.name
        # A batch of the one kept may be half written: its boundaries are kept with it.
        for statement in ("keep_view", "keep_checkpoint", "move_parked", "move_plan"):
            await connection.execute(SQL[f"rebuild.{statement}"], {"from": name, "to": kept})
        for statement in ("take_view", "take_checkpoint", "move_parked", "move_plan"):
            await connection.execute(SQL[f"rebuild.{statement}"], {"from": taken, "to": name})
        await connection.execute(SQL["rebuild.forget"], {"view": taken})
        await connection.execute(SQL["rebuild.level_fences"], {"view": name})

    async def _forget(self, connection: Connection, row: str) -> None:
        await drop_generation(connection, self.live.name, row)

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
