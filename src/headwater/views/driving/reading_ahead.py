"""Reads the next batch's rows while the store writes this one's.

What was read ahead is where the next batch begins; how far it goes, its driver says later, and the rest is read
then. Both together are what one read of the whole gives: rows of a type and month, in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import psycopg

from headwater.errors import HeadwaterError
from headwater.log.tasks import ended
from headwater.relay import CannotApply
from headwater.views.batches import Part

Read = Callable[[int, int], Awaitable[list[Part]]]

_BLOCK_BITS = 40


class ReadingAhead:
    """At most one read that nobody has asked for yet."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._range = (0, 0)
        self._task: asyncio.Task[list[Part]] | None = None

    def begin(self, after: int, upto: int) -> None:
        """Begins to read a range that is published. The one before must have been taken or forgotten."""
        assert self._task is None
        # Within one month a part of a type is one part, wherever the range is cut.
        if (after + 1) >> _BLOCK_BITS == upto >> _BLOCK_BITS:
            self._range = after, upto
            self._task = asyncio.create_task(self._reading(after, upto), name="read ahead")

    async def _reading(self, after: int, upto: int) -> list[Part]:
        return await self._read(after, upto)

    async def forget(self) -> None:
        """Ends the read and drops what it gave. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            await ended([task])

    async def parts(self, after: int, upto: int) -> list[Part]:
        """The rows of a range, read ahead or now. Raises as reading does."""
        begun, end = self._range
        is_fitting = (
            begun == after and end <= upto and (after + 1) >> _BLOCK_BITS == upto >> _BLOCK_BITS
        )
        if self._task is None or not is_fitting:
            await self.forget()
            return await self._read(after, upto)
        task, self._task = self._task, None
        try:
            found = await task
        except (CannotApply, HeadwaterError, psycopg.Error):
            return await self._read(
                after, upto
            )  # whatever it was is told of by the read that was asked for
        except asyncio.CancelledError:
            await ended([task])
            raise
        rest = await self._read(end, upto) if end < upto else []
        return together(found, rest, after, upto)


def together(first: list[Part], second: list[Part], after: int, upto: int) -> list[Part]:
    """The parts of two ranges of one month that follow one another, as those of one range."""
    merged: dict[str, Part] = {}
    for part in (*first, *second):
        before = merged.get(part.type)
        data = part.data if before is None else before.data + part.data
        opened = part.opened if before is None else before.opened + part.opened
        merged[part.type] = replace(part, after=after, upto=upto, data=data, opened=opened)
    return list(merged.values())
