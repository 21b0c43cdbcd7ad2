"""Slices of a fold's candidate, each built by one of several processes that are started for it, or by this one."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from headwater.errors import DefinitionError, RebuildInterrupted
from headwater.jobs.processes import ProcessDied, Processes, found, where
from headwater.operations.settings import Settings
from headwater.readers.handles import FoldView
from headwater.relay import Pace
from headwater.running import Running
from headwater.views.definition import Sample, Verification
from headwater.views.driving.building import Building
from headwater.views.driving.fold import DrivenFold
from headwater.views.driving.record import row_beside
from headwater.views.fold import Slice

_log = logging.getLogger("headwater.rebuild")


@dataclass(slots=True)
class Here:
    """Builds slices in this process; see BuildsSlices."""

    running: Running
    name: str
    pace: Pace

    @property
    def _view(self) -> DrivenFold[Any]:
        """The fold, as an object that shares no state with others."""
        return cast("DrivenFold[Any]", self.running.views()[self.name])

    async def build(self, part: Slice, upto: int) -> None:
        """Drives a slice up to a position, under a lease of its own. Raises LeaseLost."""
        view = self._view
        view.take_slice(part)
        building = Building(self.running.database("headwater_relay"), view, self.pace)
        async with building.lease() as fence:
            await building.drive(fence, upto)

    async def verify(self, part: Sample) -> Verification:
        """Compares a part of the candidate's keys with the log."""
        view = self._view
        view.record.row = row_beside(self.name)
        return await view.verify(sample=part)

    def close(self) -> None:
        """Nothing is held."""


@dataclass(slots=True)
class Elsewhere:
    """Builds slices in processes that are started for it, which import the fold's module; see BuildsSlices."""

    app: str
    settings: Settings
    handle: FoldView[Any]
    share: float
    _processes: Processes = field(default_factory=Processes)

    def __post_init__(self) -> None:
        """Raises DefinitionError where another process would not find the fold."""
        fold = self.handle.fold
        module, name = where(fold.evolve)
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
        await self._run("build", part, upto)

    async def verify(self, part: Sample) -> Verification:
        """Compares a part of the candidate's keys. Raises RebuildInterrupted where its process ends before."""
        return cast("Verification", await self._run("verify", part))

    async def _run(self, what: Literal["build", "verify"], *arguments: Any) -> Any:
        fold = where(self.handle.fold.evolve)
        parts = self.app, self.settings, *fold, self.share, what
        try:
            return await self._processes.run(_run, *parts, *arguments)
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


def _run(
    app: str, settings: Settings, module: str, name: str, share: float, what: str, *arguments: Any
) -> Any:
    """Does a part of the work in this process, which was started for it."""
    return asyncio.run(_opened(app, settings, found(module, name), share, what, *arguments))


async def _opened(
    app: str, settings: Settings, handle: FoldView[Any], share: float, what: str, *arguments: Any
) -> Any:
    stores = {} if handle.store is None else {handle.store.name: handle.store}
    running = Running(app, settings, stores, [handle], [], [], [], _no_decider)
    try:
        await running.open()
        relay = running.database("headwater_relay")
        await relay.open()
        pace = Pace(share=share, gate=settings.allowance(relay, _log.warning))
        return await getattr(Here(running, handle.name, pace), what)(*arguments)
    finally:
        await running.close()


def _no_decider(command: type[Any]) -> Any:
    raise DefinitionError(f"{command.__name__} is decided on elsewhere.")
