"""A task that loses its cancellation ends all the same."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from headwater.log.tasks import ended, heed_cancellation


async def test_a_task_that_did_not_hear_of_its_end_is_told_again():
    heard = 0

    async def hard_of_hearing():
        nonlocal heard
        while heard < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                heard += 1

    task = asyncio.create_task(hard_of_hearing())
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await ended([task])
    assert (task.done(), heard) == (True, 2)


async def test_what_an_ended_task_raised_stays_its_own():
    async def failing():
        raise ZeroDivisionError

    task = asyncio.create_task(failing())
    await asyncio.sleep(0)
    await ended([task])
    assert isinstance(task.exception(), ZeroDivisionError)


async def test_a_lost_cancellation_is_heeded_at_the_next_connection():
    async def looping():
        with contextlib.suppress(asyncio.CancelledError):  # as wait_for loses it
            await asyncio.Event().wait()
        heed_cancellation()
        return "went on"

    task = asyncio.create_task(looping())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
