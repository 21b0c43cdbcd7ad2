"""Slices of a fold's candidate, each built by one of several processes that are started for it, or by this one."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace
from typing import Any, cast

from headwater.errors import DefinitionError, RebuildInterrupted
from headwater.jobs.processes import ProcessDied, Processes, found, where
from headwater.log.database import Database
from headwater.operations.settings import Settings
from headwater.readers.handles import FoldView
from headwater.relay import Pace
from headwater.running import Running
from headwater.views.driving.building import Building
from headwater.views.driving.fold import DrivenFold
from headwater.views.fold import Slice

_log = logging.getLogger("headwater.rebuild")


async def build_slice(
    database: Database, view: DrivenFold[Any], pace: Pace, part: Slice, upto: int
) -> None:
    """Drives a slice of a candidate up to a position, under a lease of its own. Raises LeaseLost."""
    view.take_slice(part)
    building = Building(database, view, pace)
    async with building.lease() as fence:
        await building.drive(fence, upto)


@dataclass(slots=True)
class Here:
    """Builds slices in this process; see BuildsSlices."""

    running: Running
    view: str
    pace: Pace

    async def build(self, part: Slice, upto: int) -> None:
        """Drives a slice up to a position."""
        view = cast("DrivenFold[Any]", self.running.views()[self.view])
        database = self.running.database("headwater_relay")
        await build_slice(database, view, self.pace, part, upto)

    def close(self) -> None:
        """Nothing is held."""


@dataclass(slots=True)
class Elsewhere:
    """Builds slices in processes that are started for it, which import the fold's module; see BuildsSlices."""

    app: str
    settings: Settings
    handle: FoldView[Any]
    share: float
    at_once: int
    _processes: Processes = field(default_factory=Processes)

    def __post_init__(self) -> None:
        """Raises DefinitionError where another process would not find the fold."""
        fold, (module, name) = self.handle.fold, where(self.handle.fold.evolve)
        try:
            is_found = _fingerprint(found(module, name)) == fold.fingerprint
        except (ImportError, AttributeError):
            is_found = False
        if not is_found:
            raise DefinitionError(
                f"The fold {fold.name!r} cannot be built by several processes: others do not find {name!r} in the "
                f"module {module!r}.",
                hint="Declare it in a module, as @app.fold(...) above a function of its own name, or rebuild it by one process.",
            )

    async def build(self, part: Slice, upto: int) -> None:
        """Drives a slice up to a position. Raises RebuildInterrupted where its process ends before."""
        # What all of them may do together, each does its part of.
        settings = replace(
            self.settings, backfill_rate=-(-self.settings.backfill_rate // self.at_once)
        )
        try:
            await self._processes.run(
                _build, self.app, settings, *where(self.handle.fold.evolve), self.share, part, upto
            )
        except ProcessDied as error:
            raise RebuildInterrupted(
                f"A process that built a slice of {self.handle.name!r} ended before it was done: {error}.",
                hint=f"Run headwater rebuild {self.handle.name} again: it goes on where it was.",
            ) from error

    def close(self) -> None:
        """Ends the processes. Idempotent."""
        self._processes.close()


def _fingerprint(handle: object) -> str | None:
    return handle.fold.fingerprint if isinstance(handle, FoldView) else None


def _build(
    app: str, settings: Settings, module: str, name: str, share: float, part: Slice, upto: int
) -> None:
    """Builds a slice in this process, which was started for it."""
    asyncio.run(_open_and_build(app, settings, found(module, name), share, part, upto))


async def _open_and_build(
    app: str, settings: Settings, handle: FoldView[Any], share: float, part: Slice, upto: int
) -> None:
    stores = {} if handle.store is None else {handle.store.name: handle.store}
    running = Running(app, settings, stores, [handle], [], [], [], _no_decider)
    try:
        await running.open()
        relay = running.database("headwater_relay")
        await relay.open()
        say = _log.warning if part.number == 0 else _silent
        pace = Pace(share=share, gate=settings.allowance(relay, say))
        view = cast("DrivenFold[Any]", running.views()[handle.name])
        await build_slice(relay, view, pace, part, upto)
    finally:
        await running.close()


def _silent(_: str) -> None:
    """Others say it."""


def _no_decider(command: type[Any]) -> Any:
    raise DefinitionError(f"{command.__name__} is decided on elsewhere.")
