"""What is read ahead is used only where it is what a read of the whole would give."""

from __future__ import annotations

import asyncio

import pytest

from headwater.relay import CannotApply
from headwater.views.batches import Part
from headwater.views.driving.reading_ahead import ReadingAhead

BLOCK = 1 << 40


class Log:
    """Two types of events, one at each position: what a range holds, and which ranges were read."""

    def __init__(self, *poisoned):
        self.read_ranges = []
        self.poisoned = poisoned

    async def read(self, after, upto):
        self.read_ranges.append((after, upto))
        await asyncio.sleep(0)
        if any(after < position <= upto for position in self.poisoned):
            raise CannotApply("poison")
        found = {}
        for position in range(after + 1, upto + 1):
            name = "even" if position % 2 == 0 else "odd"
            found[name] = found.get(name, b"") + b"%d\n" % position
        return [Part(name, "m", (), after, upto, data) for name, data in found.items()]

    async def whole(self, after, upto):
        return sorted(await Log().read(after, upto), key=lambda part: part.type)


async def parts(ahead, after, upto):
    return sorted(await ahead.parts(after, upto), key=lambda part: part.type)


@pytest.mark.parametrize(
    ("begun", "asked", "read"),
    [
        ((10, 20), (10, 20), [(10, 20)]),
        ((10, 20), (10, 35), [(10, 20), (20, 35)]),
        ((10, 11), (10, 14), [(10, 11), (11, 14)]),  # one type is in the second part alone
        ((10, 20), (10, 15), [(10, 20), (10, 15)]),
        ((10, 20), (12, 20), [(10, 20), (12, 20)]),
    ],
)
async def test_it_is_what_one_read_gives(begun, asked, read):
    log = Log()
    ahead = ReadingAhead(log.read)
    ahead.begin(*begun)
    await asyncio.sleep(0)
    assert await parts(ahead, *asked) == await log.whole(*asked)
    assert log.read_ranges == read
    assert await parts(ahead, *asked) == await log.whole(*asked), "nothing is given twice"


async def test_beyond_a_month_nothing_is_read_ahead():
    log = Log()
    ahead = ReadingAhead(log.read)
    ahead.begin(BLOCK - 10, BLOCK + 10)
    await asyncio.sleep(0)
    assert log.read_ranges == []
    ahead.begin(BLOCK - 10, BLOCK - 5)
    asked = (BLOCK - 10, BLOCK + 5)
    assert await parts(ahead, *asked) == await log.whole(*asked)
    assert log.read_ranges[-1] == asked


async def test_what_fails_ahead_is_told_of_by_the_read_that_was_asked_for():
    log = Log(15)
    ahead = ReadingAhead(log.read)
    ahead.begin(10, 20)
    assert await parts(ahead, 10, 14) == await log.whole(10, 14)
    ahead.begin(14, 20)
    with pytest.raises(CannotApply):
        await ahead.parts(14, 20)


async def test_what_is_forgotten_is_read_again():
    log = Log()
    ahead = ReadingAhead(log.read)
    ahead.begin(10, 20)
    await asyncio.sleep(0)
    await ahead.forget()
    assert await parts(ahead, 10, 20) == await log.whole(10, 20)
    assert log.read_ranges == [(10, 20), (10, 20)]
    await ahead.forget()
