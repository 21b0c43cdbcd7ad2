"""Compares samples of views with the log in the background, so that damage is noticed before readers do.

One view at a time, by one relay of all, on connections of its own whose statements end by themselves. What it takes
is in proportion to the rest that follows. A sample that differs is compared again until it is equal: a
difference is told until it is mended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg

from headwater.errors import HeadwaterError, ViewStale
from headwater.log.database import Connection, Database
from headwater.log.statements import Statements
from headwater.log.tasks import ended
from headwater.relay import Leases, Standing
from headwater.views import StoredView, Verification
from headwater.views.definition import Sample

SQL = Statements("headwater.operations")

LONGEST_SECONDS = 10.0
"""The longest that one comparison, and each of its statements, may take."""
_LEASE = "verify/sampler"
_REST = 20  # times what a comparison took
_KEYS_AT_ONCE = 10_000
_MOST_SLICES = 10_000
_FIRST_SLICES = 100

_log = logging.getLogger("headwater.verify")


@dataclass(slots=True)
class Sampler:
    """Compares ``views`` in turn. ``start`` and ``stop`` are idempotent.

    ``database`` is in the relay's role, its statements limited; the views use it and share nothing with others.
    """

    database: Database
    views: Mapping[str, StoredView]
    every_seconds: float
    leases: Leases = field(default_factory=Leases)
    compared: asyncio.Event = field(default_factory=asyncio.Event)
    """Set after each comparison; for tests, which wait for what happened."""
    _task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts; returns at once."""
        if self._task is None and self.views and self.every_seconds > 0:
            self._task = asyncio.create_task(self._forever(), name="sampler")

    async def stop(self) -> None:
        """Ends what is under way."""
        task, self._task = self._task, None
        if task is not None:
            await ended([task])

    async def _forever(self) -> None:
        while True:
            await asyncio.sleep(self.leases.seconds)
            try:
                await self.database.open()
                async with self.database.connection() as connection:
                    if await self.leases.acquire(connection, _LEASE) is not None:
                        await self._sample(connection)
            except (psycopg.Error, HeadwaterError, OSError) as error:
                _log.warning("sampler: %s: %s", type(error).__name__, error)

    async def _sample(self, connection: Connection) -> None:
        """Rests, and compares a view, as long as the lease is ours; then others have their turn."""
        renewing = asyncio.create_task(self._renew(connection), name="sampler's lease")
        try:
            await asyncio.wait([renewing], timeout=self.every_seconds)
            if not renewing.done():
                began = time.monotonic()
                await self.once()
                self.compared.set()
                rest = _REST * (time.monotonic() - began)
                await asyncio.wait([renewing], timeout=rest)
        finally:
            await ended([renewing])
            await self.leases.release(connection, _LEASE)

    async def _renew(self, connection: Connection) -> None:
        held = {_LEASE: Standing()}
        while await self.leases.renew(connection, held):
            await asyncio.sleep(self.leases.seconds / 5)

    async def once(self) -> str | None:
        """Compares a sample of the view that waits longest; its name."""
        async with self.database.connection() as connection:
            cursor = await connection.execute(SQL["sampling.next"], {"views": list(self.views)})
            row = await cursor.fetchone()
        if row is None:
            return None
        view, kind, generation = row[:3]
        sample = _next_sample(kind, *row[3:])
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                if not await self._fits(view):
                    raise ViewStale(f"The definition of {view!r} has changed.")
                verified = await self.views[view].verify(sample=sample)
        except (TimeoutError, psycopg.Error, HeadwaterError, OSError) as error:
            await self._gave_up(view, generation, sample, error)
            return str(view)
        async with self.database.connection() as connection:
            await note(connection, verified, sample, generation)
        if not verified.equal:
            _log.error("%s differs from the log: %s", view, _detail(verified))
        return str(view)

    async def _fits(self, view: str) -> bool:
        async with self.database.connection() as connection:
            return await self.views[view].fits(connection)

    async def _gave_up(
        self, view: str, generation: int, sample: Sample, error: BaseException
    ) -> None:
        """Smaller slices next time, where it took too long."""
        slow = isinstance(error.__cause__ or error, TimeoutError | psycopg.errors.QueryCanceled)
        detail = (
            f"a comparison takes longer than {LONGEST_SECONDS:g} s" if slow else str(error)[:500]
        )
        slices = min(sample.slices * 10, _MOST_SLICES) if slow else sample.slices
        async with self.database.connection() as connection:
            told = {"view": view, "generation": generation, "slices": slices, "detail": detail}
            await connection.execute(SQL["sampling.gave_up"], told)
        _log.info("%s was not compared: %s", view, detail)


async def note(
    connection: Connection,
    verified: Verification,
    sample: Sample | None,
    generation: int | None = None,
) -> None:
    """Records what a comparison found: what metrics, doctor and /readyz tell."""
    of = sample or Sample(1, 0)
    found: dict[str, Any] = {
        "view": verified.view, "generation": generation, "slices": of.slices, "slice": of.number,
        "compared": verified.rows, "differing": verified.differing, "detail": _detail(verified),
    }  # fmt: skip
    await connection.execute(SQL["sampling.verified"], found)


def _detail(verified: Verification) -> str | None:
    """Which keys differ, as far as they were named."""
    keys = [f"{d.tenant} {d.key}".strip() for d in verified.differences[:3]]
    return ", ".join(keys) or None


def _next_sample(
    kind: str, slices: int | None, number: int | None, compared: int | None, differing: int | None
) -> Sample:
    """Another slice, of some 10,000 keys; the same again where it differed."""
    if slices is None or number is None:
        return Sample.of(1 / _FIRST_SLICES)
    if differing:
        # A feed's files are merged, so what differed is looked for in all of them.
        return Sample(1, 0) if kind == "feed" else Sample(slices, number)
    if not compared:
        return Sample.of(1 / max(slices // 10, 1))
    wanted = min(max(slices * compared // _KEYS_AT_ONCE, 1), _MOST_SLICES)
    return Sample.of(1 / wanted)
