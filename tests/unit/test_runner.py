"""What a runner says of itself, on a target of a few lines."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from headwater.relay import Pace
from headwater.relay.frontier import Frontier
from headwater.relay.runner import Runner


class Target:
    """Keeps the checkpoint it was last given, then fails once, at the positions named."""

    name, on_failure, max_batch, pause_seconds, follows = "view", "park", 1000, 0.0, None
    rewrites = True

    def __init__(self, *fails):
        self.checkpoint, self.fails = 0, set(fails)

    async def first_after(self, after, upto):
        return after + 1

    async def open(self, fence):
        return self.checkpoint

    async def apply(self, batch):
        self.checkpoint = batch.upto
        if batch.upto in self.fails:
            self.fails.discard(batch.upto)
            raise OSError("the answer was lost")

    async def close(self):
        pass


@pytest.mark.parametrize("kept", [True, False])
async def test_a_store_that_fails_after_the_last_batch_was_kept_is_not_said_to_be_retried(kept):
    target = Target(5)
    if not kept:
        keep = target.apply

        async def apply(batch):
            before = target.checkpoint
            try:
                await keep(batch)
            except OSError:
                target.checkpoint = before
                raise

        target.apply = apply
    frontier = Frontier()
    frontier.advance(5)
    runner = Runner(target, 1, frontier, Pace(first_retry_seconds=0.2))
    running = asyncio.create_task(runner.run())
    async with asyncio.timeout(60):
        while runner.standing.state != "retrying":
            await asyncio.sleep(0)
        assert runner.standing.detail == "OSError: the answer was lost"
        while runner.standing.state != "running":
            await asyncio.sleep(0)
    assert runner.standing.detail is None
    assert target.checkpoint == 5
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
