"""Ending tasks for certain.

Before Python 3.12 ``asyncio.wait_for``, by which the pool of connections waits, loses a cancellation that
comes in the same turn of the loop as what it waits for (python/cpython#86296). The task then goes on as
if nothing had been said, and who waits for its end waits forever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

_AGAIN_SECONDS = 1.0


async def ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels tasks until they have ended; what they raise is theirs."""
    every = set(tasks)
    pending = {task for task in every if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN_SECONDS)
    for task in every:
        if not task.cancelled():
            task.exception()  # heard, so that the loop does not report it


def heed_cancellation() -> None:
    """Raises CancelledError in a task that was told to end and did not hear of it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
