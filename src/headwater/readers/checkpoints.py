"""Waiting for views to reach a position: one poll per process, however many readers wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg

from headwater.errors import HeadwaterError, NotCaughtUp, UnknownView
from headwater.log.database import Database
from headwater.log.statements import Statements
from headwater.log.tasks import ended

SQL = Statements("headwater.readers")

_POLL_SECONDS = (0.001, 0.01)
_SHARE = 0.1
"""How long to the next look, as a part of how long whoever came last has waited."""


@dataclass(slots=True)
class _Waiter:
    view: str
    position: int
    reached: asyncio.Future[None]
    since: float = field(default_factory=time.monotonic)


class CheckpointWatch:
    """Knows how far views are, as the database says.

    Checkpoints may go back when a view is rebuilt, so nothing is remembered between waits.
    """

    def __init__(self, database: Database, inboxes: Sequence[str] = ()) -> None:
        self._database = database
        self._inboxes = list(inboxes)
        self._waiting: list[_Waiter] = []
        self._come = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def reached(self, view: str, position: int, *, timeout_seconds: float) -> None:
        """Returns once a view has applied the log up to a position, or ``from/APP`` that app's log has come in so far.

        Raises NotCaughtUp after the timeout, UnknownView where there is no such view.
        """
        waiter = _Waiter(view, position, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._come.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._poll())
        try:
            async with asyncio.timeout(timeout_seconds):
                await waiter.reached
        except TimeoutError as error:
            if view.startswith("from/"):
                raise NotCaughtUp(
                    f"What {view.removeprefix('from/')!r} publishes was not received up to its position {position} "
                    f"within {timeout_seconds:g} s.",
                    hint="Try again, read without a token, or see `headwater inboxes list` for what holds it up.",
                ) from error
            raise NotCaughtUp(
                f"The view {view!r} did not reach position {position} within {timeout_seconds:g} s.",
                hint="Try again, read without a token, or see `headwater views` for what holds it up.",
            ) from error
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    async def close(self) -> None:
        """Ends the poll. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            await ended([task])

    async def _poll(self) -> None:
        """Polls while someone waits, on one connection."""
        while self._waiting:
            try:
                async with self._database.connection() as connection:
                    while self._waiting:
                        self._come.clear()
                        views = sorted({waiter.view for waiter in self._waiting})
                        cursor = await connection.execute(
                            SQL["readers.places"],
                            {"views": views, "inboxes": self._inboxes},
                            prepare=True,
                        )
                        self._answer(views, dict(await cursor.fetchall()))
                        await self._pause()
            except (psycopg.Error, HeadwaterError):
                await asyncio.sleep(0.1)  # readers' own timeouts say how long that may last

    async def _pause(self) -> None:
        """Until the next look: often for whoever has just come, at most a tenth later than need be for who waits long."""
        if not self._waiting:
            return
        shortest, longest = _POLL_SECONDS
        youngest = time.monotonic() - max(waiter.since for waiter in self._waiting)
        with suppress(TimeoutError):
            async with asyncio.timeout(min(max(youngest * _SHARE, shortest), longest)):
                await self._come.wait()

    def _answer(self, asked: Sequence[str], positions: dict[str, int]) -> None:
        # Who came while the answer was under way may wait for a view that was not asked about.
        still = [waiter for waiter in self._waiting if waiter.view not in asked]
        for waiter in [waiter for waiter in self._waiting if waiter.view in asked]:
            position = positions.get(waiter.view)
            if waiter.reached.done():
                continue
            if position is None:
                waiter.reached.set_exception(
                    UnknownView(
                        f"The view {waiter.view!r} is not deployed.", hint="Run headwater up."
                    )
                )
            elif position >= waiter.position:
                waiter.reached.set_result(None)
            else:
                still.append(waiter)
        self._waiting = still
