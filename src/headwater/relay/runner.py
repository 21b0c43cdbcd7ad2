"""Drives one view: batch by batch, forever, whatever happens.

The batch's size is the one control. It doubles while batches are full and quick; it halves when one
fails and the target cannot tell which event is at fault, until the batch is a single event. Then the
view's policy decides. A store that is at fault is waited for; an event that is at fault is retried a
few times, unless another was parked just before, and set aside.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import psycopg

from headwater.errors import HeadwaterError, LeaseLost, ViewStale
from headwater.log.tracing import enabled, span
from headwater.relay.frontier import Frontier
from headwater.relay.leases import Standing
from headwater.relay.port import Batch, CannotApply, Target

_log = logging.getLogger("headwater.relay")


@dataclass(frozen=True, slots=True)
class Pace:
    """How a view is driven. Times in seconds; sizes in positions."""

    first_batch: int = 1_000
    target_seconds: float = 0.5
    longest_pause_seconds: float = 0.1
    attempts: int = 4
    first_retry_seconds: float = 0.05
    longest_retry_seconds: float = 15.0
    calm_seconds: float = 60.0
    share: float = 1.0
    """The part of the time in which batches are applied; the rest is left to others."""
    gate: Callable[[int], Awaitable[None]] | None = None
    """Awaited before each batch, with how many positions it may span; it returns once that may be done."""


@dataclass(slots=True)
class Progress:
    """What a runner has done, for people and metrics."""

    checkpoint: int = 0
    batches: int = 0
    parked: int = 0
    failures: int = 0
    busy_seconds: float = 0.0


Traces = Callable[[Batch], Awaitable[Sequence[str]]]
"""The traces that a batch's events are part of, as traceparents."""


async def no_traces(_: Batch) -> Sequence[str]:
    """Of a target whose positions are not the log's."""
    return ()


def _summary(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


@dataclass(slots=True)
class Runner:
    """One view under one fence. ``run`` ends when the lease is lost or the task is cancelled."""

    target: Target
    fence: int
    frontier: Frontier
    pace: Pace = field(default_factory=Pace)
    standing: Standing = field(default_factory=Standing)
    progress: Progress = field(default_factory=Progress)
    traces: Traces = no_traces
    _size: int = 0
    _last_parked: float = float("-inf")

    async def run(self) -> None:
        """Follows the log. Raises LeaseLost once another has taken over, ViewStale if data is another's.

        Another's: it does not follow from the definition that this process knows.
        """
        failures = 0
        try:
            while True:
                try:
                    checkpoint = await self.target.open(self.fence)
                    self.progress.checkpoint = checkpoint
                    self._size = self._size or self.pace.first_batch
                    while True:
                        if failures == 0 or self.frontier.position <= checkpoint:
                            # After a failure only once something was applied or nothing waits: a
                            # store may fail after it has kept the last batch there is.
                            failures = 0
                            self.standing.state, self.standing.detail = "running", None
                        checkpoint = await self._next(checkpoint)
                        self.progress.checkpoint = checkpoint
                        failures = 0
                except LeaseLost:
                    raise
                except ViewStale as error:
                    self._say("stale", _summary(error))
                    raise
                except (psycopg.Error, HeadwaterError, OSError) as error:
                    failures += 1
                    await self._wait_for_store(error, failures)
        finally:
            await self.target.close()

    async def _next(self, checkpoint: int) -> int:
        """Applies the next batch; the new checkpoint."""
        safe = await self.frontier.beyond(checkpoint)
        batch = await self._plan(checkpoint, safe)
        if self.pace.gate is not None:
            await self.pace.gate(batch.upto - max(batch.after, batch.upto - self._size))
        started = time.monotonic()
        try:
            await self._apply(batch)
        except CannotApply as failure:
            self.progress.failures += 1
            if failure.position is None and (narrowed := await self._narrower(batch)):
                self._size = narrowed
                return checkpoint
            batch = await self._decide(batch, failure)
        seconds = time.monotonic() - started
        self.progress.batches += 1
        self.progress.busy_seconds += seconds
        if self.pace.share < 1:
            await asyncio.sleep(seconds * (1 / self.pace.share - 1))
        full = batch.upto < safe
        if full and seconds < self.pace.target_seconds:
            self._size = min(self._size * 2, self.target.max_batch)
        elif seconds > 2 * self.pace.target_seconds:
            self._size = max(self._size // 2, 100)
        if not full:
            # A short breath that grows with the batch's cost: hot rows that are rewritten too often
            # bloat faster than they can be pruned.
            longest = self.pace.longest_pause_seconds if self.target.rewrites else 0.0
            breath = min(seconds / 4, longest)
            await asyncio.sleep(max(breath, self.target.pause_seconds))
        return batch.upto

    async def _apply(self, batch: Batch) -> None:
        links = await self.traces(batch) if enabled() else ()
        name = self.target.name
        with span(f"view {name}", "consumer", links=links, after=batch.after, upto=batch.upto):
            await self.target.apply(batch)

    async def _plan(self, checkpoint: int, safe: int) -> Batch:
        """The next batch. Positions are nearly dense, so it is a range; a wide gap is stepped over."""
        if safe - checkpoint <= self._size:
            return Batch(checkpoint, safe)
        first = await self.target.first_after(checkpoint, safe)
        if first is None:
            return Batch(checkpoint, safe)
        return Batch(checkpoint, min(safe, first + self._size - 1))

    async def _narrower(self, batch: Batch) -> int | None:
        """A smaller size that still splits the batch, or None when it holds a single event."""
        first = await self.target.first_after(batch.after, batch.upto)
        if first is None:
            return None
        span = batch.upto - first + 1
        return span // 2 if span > 1 else None

    async def _decide(self, batch: Batch, failure: CannotApply) -> Batch:
        """Retries the event at fault, then does with it what the view's policy says."""
        position = failure.position
        if position is None:
            position = await self.target.first_after(batch.after, batch.upto) or batch.upto
        # Up to just before the culprit everything can be applied, so it waits for nothing.
        if position - 1 > batch.after and failure.position is not None:
            before = Batch(batch.after, position - 1)
            await self._apply(before)
            return before
        single = Batch(batch.after, position)
        calm = time.monotonic() - self._last_parked > self.pace.calm_seconds
        for attempt in range(self.pace.attempts if calm else 0):
            self._say("retrying", f"position {position}: {failure.reason}")
            await asyncio.sleep(self.pace.first_retry_seconds * 3**attempt)
            try:
                await self._apply(single)
            except CannotApply as again:
                failure = again
            else:
                return single
        return await self._set_aside(single, position, failure.reason)

    async def _set_aside(self, single: Batch, position: int, reason: str) -> Batch:
        policy = self.target.on_failure
        while policy == "stop":
            self._say("stopped", f"position {position}: {reason}")
            await asyncio.sleep(self.pace.longest_retry_seconds)
            try:
                await self._apply(single)
            except CannotApply as again:
                reason = again.reason
            else:
                return single
        marked = {position: reason}
        if policy == "park":
            single = Batch(single.after, single.upto, parked=marked)
        else:
            single = Batch(single.after, single.upto, skipped=marked)
        await self._apply(single)
        self._last_parked = time.monotonic()
        self.progress.parked += policy == "park"
        _log.warning("%s: %s position %s: %s", self.target.name, policy, position, reason)
        return single

    async def _wait_for_store(self, error: Exception, failures: int) -> None:
        """Backs off with jitter while the store is at fault; a view never gives up on its store."""
        before = self.standing.detail
        self._say("retrying", _summary(error))
        longest = self.pace.longest_retry_seconds
        seconds = min(self.pace.first_retry_seconds * 2**failures, longest)
        if self.standing.detail != before:
            _log.warning("%s: %s", self.target.name, self.standing.detail)
        await asyncio.sleep(seconds * random.uniform(0.5, 1))  # noqa: S311 - jitter, no secret

    def _say(self, state: str, detail: str) -> None:
        self.standing.state, self.standing.detail = state, detail[:500]
