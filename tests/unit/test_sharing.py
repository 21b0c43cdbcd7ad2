"""Questions that share an answer's round trip."""

from __future__ import annotations

import asyncio

from headwater.log.sharing import Shared


async def test_a_question_that_comes_as_the_last_workers_end_is_answered():
    """Who is answered asks again before the loop has taken note that whoever answered has ended."""
    opened = asyncio.Event()

    async def answer(questions):
        await opened.wait()
        return questions

    shared = Shared(answer, at_once=1, name="test")

    async def twice(number):
        return [await shared.ask(number), await shared.ask(number + 10)]

    asking = asyncio.gather(twice(1), twice(2))
    await asyncio.sleep(0)
    opened.set()
    async with asyncio.timeout(60):
        assert await asking == [[1, 11], [2, 12]]
    await shared.close()
