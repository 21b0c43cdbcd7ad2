"""Baselines: a copy of a view as it was at a position, compared with the log there, from which a rebuild may begin.

A baseline is another generation that nobody drives, in rows of its own (VIEW~base). It is copied from the one that is
read, in one snapshot, so neither readers nor the relay wait.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from headwater.errors import DefinitionError, ViewStale
from headwater.log.database import Database
from headwater.relay import Pace
from headwater.views.definition import Verification
from headwater.views.driving.building import Building
from headwater.views.driving.generations import copy_generation, drop_generation
from headwater.views.driving.record import SQL, base_row
from headwater.views.driving.view import DrivenView


@dataclass(frozen=True, slots=True)
class Baseline:
    """A kept baseline: where the view was, when it was kept, and whether it is of the definition of now."""

    view: str
    position: int
    kept_at: datetime
    fits: bool


@dataclass(slots=True)
class Baselines:
    """The baseline of one view. ``live`` and ``copy`` are objects of their own, of the same definition."""

    database: Database
    live: DrivenView
    copy: DrivenView
    building: Building = field(init=False)

    def __post_init__(self) -> None:
        self.copy.record.row = f"{self.live.name}~copy"
        self.building = Building(self.database, self.copy, Pace())

    @property
    def _base(self) -> str:
        return base_row(self.live.name)

    async def keep(self) -> Verification:
        """Copies the view, compares the copy with the log, and keeps it in place of the baseline before.

        Where it differs nothing is kept. Raises DefinitionError for a view that has none, ViewStale, and LeaseLost where
        another process does the same.
        """
        if not self.live.has_baselines:
            raise no_baseline(self.live.name)
        async with self.building.lease():
            await self._make_room()
            await self._fill()
            verified = await self.copy.verify()
            async with self.database.transaction() as connection:
                await connection.execute(SQL["record.lock_deployment"])
                if verified.equal:
                    await drop_generation(connection, self.live.name, self._base)
                    names = {"from": self.copy.record.row, "to": self._base}
                    for statement in ("keep_view", "keep_checkpoint", "move_parked"):
                        await connection.execute(SQL[f"rebuild.{statement}"], names)
                    await connection.execute(SQL["rebuild.forget"], {"view": self.copy.record.row})
                else:
                    await drop_generation(connection, self.live.name, self.copy.record.row)
        return verified

    async def kept(self) -> Baseline | None:
        """The baseline that is kept, or None."""
        async with self.database.connection() as connection:
            cursor = await connection.execute(SQL["baseline.kept"], {"view": self._base})
            row = await cursor.fetchone()
        if row is None:
            return None
        fingerprint, position, kept_at = row
        fits = fingerprint == self.live.definition.fingerprint
        return Baseline(self.live.name, position, kept_at, fits)

    async def drop(self) -> None:
        """Removes the baseline. Idempotent."""
        async with self.database.transaction() as connection:
            await connection.execute(SQL["record.lock_deployment"])
            await drop_generation(connection, self.live.name, self._base)

    # Steps ---------------------------------------------------------------------------------------

    async def _make_room(self) -> None:
        """Another generation, in place of one that was left half done."""
        async with self.database.transaction() as connection:
            await connection.execute(SQL["record.lock_deployment"])
            if (status := await self.live.record.status(connection)) != "current":
                raise ViewStale(
                    f"The view {self.live.name!r} is {status}, so it is no baseline of its definition.",
                    hint="Rebuild it first." if status == "stale" else "Run headwater up or init.",
                )
            await drop_generation(connection, self.live.name, self.copy.record.row)
            await self.copy.record.next_generation(connection)
            await self.copy.record.create_candidate(connection)
            await self.copy.create_beside(connection)

    async def _fill(self) -> None:
        async with self.database.connection() as connection:
            await connection.execute(SQL["baseline.snapshot"])
            try:
                await copy_generation(
                    connection, self.live.name, taken=self.live.name, filled=self.copy.record.row
                )
                await connection.execute(SQL["baseline.end"])
            except BaseException:
                await connection.execute(SQL["session.end"])
                raise


def no_baseline(view: str) -> DefinitionError:
    """What is raised for a view that can have none."""
    return DefinitionError(
        f"The view {view!r} can have no baseline: it is in another store, is rebuilt in place, or opens personal fields, "
        "which a copy would keep.",
        hint="Folds and SQL views over events in the log's database can.",
    )
