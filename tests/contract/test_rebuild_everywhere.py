"""Promise 4 in every store: definitions change under writes and reads, without a gap or a mixture."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

import obstore
import pytest
from everywhere import FEEDS, ROWS, Engines, Placed, asked, driven, fill
from obstore.store import LocalStore

from headwater.errors import LeaseLost
from headwater.testing.driving import drive, publish

pytestmark = pytest.mark.postgres


@pytest.fixture
def engines(database18, tmp_path):
    every = Engines(database18, tmp_path)
    yield every
    every.close()


# Definitions change ----------------------------------------------------------------------------------


class Watching:
    """Writes without end, and reads every view at the newest token of the moment."""

    def __init__(self, app):
        self.app = app
        self.written, self.token = 0, None
        self.factors = dict.fromkeys((*ROWS, *FEEDS), 1)
        self.reads = dict.fromkeys((*ROWS, *FEEDS), 0)
        self.named = (0, 1)
        self.going = True

    async def run(self):
        await self.write()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.forever(self.write, 0.02))
            tasks.create_task(self.forever(self.name, 0.02))
            for view in ROWS:
                tasks.create_task(self.forever(lambda view=view: self.row(view), 0))
            for view in FEEDS:
                tasks.create_task(self.forever(lambda view=view: self.feed(view), 0))

    async def forever(self, act, seconds):
        while self.going:
            await act()
            await asyncio.sleep(seconds)  # so that others have their turn

    async def write(self):
        self.token = (await self.app.append(Placed("hot", 1))).token
        self.written += 1

    async def row(self, view):
        least = self.written
        rows = await self.listed(view, self.token)
        assert least <= rows["hot"][1] <= self.written + 1, view
        assert all(total % events == 0 for total, events in rows.values())
        self.notes(view, {total // events for total, events in rows.values()})

    async def listed(self, view, token):
        """Total and events by key."""
        handle = self.app.view(view)
        waiting = {"at_least": token, "timeout_seconds": 20}
        if view in {"fold", "fast"}:
            found = {key: await handle.get(key, **waiting) for key in ("hot", "k1")}
            return {key: (row.total, row.events) for key, row in found.items()}
        return {row.order: (row.total, row.events) for row in await handle.list(**waiting)}

    async def feed(self, view):
        least = self.written
        files = await self.app._feeds[view].files(at_least=self.token, timeout_seconds=60)
        placed = sum(file.rows for _, file in files if file.type == "order.placed")
        voided = sum(file.rows for _, file in files if file.type == "order.voided")
        assert least <= placed - FILLED <= self.written + 1, view
        assert voided in {0, 3}, view
        self.notes(view, {2 if voided else 1})

    async def name(self):
        """By the name that other programs use: whole, and never from before what it was."""
        ((events, total),) = await asked(
            self.app, "SELECT sum(events), sum(total) FROM headwater.analytic"
        )
        assert total % events == 0
        read = (events, total // events)
        assert all(now >= before for now, before in zip(read, self.named, strict=True))
        self.named = read

    def notes(self, view, factors):
        """One definition at a time, and never the one before again."""
        assert len(factors) == 1, (view, factors)
        (factor,) = factors
        assert factor >= self.factors[view], view
        self.factors[view] = factor
        self.reads[view] += 1


FILLED = 700


async def test_definitions_change_in_every_store_under_writes_and_reads(engines):
    """No gap, no mixture, nothing from before its token, and a true result."""
    async with engines.app() as old:
        await old.deploy()
        await fill(old, FILLED)
        await driven(old, 1)
    async with engines.app() as old, engines.app(2) as new, old.relay():
        async with new.relay():
            watching = Watching(old)
            running = asyncio.create_task(watching.run())
            for view in (*ROWS, *FEEDS):
                rebuild = new.rebuilding(view, share=1.0)
                assert (await rebuild.run()).summary == "equal", view
            seen = dict(watching.reads)
            async with asyncio.timeout(60):
                while not running.done() and any(watching.reads[v] < seen[v] + 2 for v in seen):
                    await asyncio.sleep(0.02)
            watching.going = False
            await running
        assert set(watching.factors.values()) == {2}
        assert watching.named[1] == 2
        assert all(count > 2 for count in seen.values()), seen
    async with engines.app(2) as new:
        for view in (*ROWS, *FEEDS):
            assert (await new.stored(view).verify()).summary == "equal", view


async def half_written(app, view, fence):
    """A batch of one event that is in the store and not yet at its checkpoint."""
    await app.append(Placed("k1", 1))
    upto = await publish(app)
    driven = app.stored(view)
    after = await driven.open(fence)
    step = await driven._step(after, upto)
    await driven.record.plan(after, upto)
    await driven.batches.put(driven._hold, step, step.parts[0])
    await driven.close()


NAMES = "SELECT name FROM system.tables WHERE database = 'headwater' AND startsWith(name, 'typed.') ORDER BY 1"


async def test_what_was_swapped_is_given_back(engines):
    """Types that come and go, in the names too; what was half written when it was swapped goes on."""
    async with engines.app() as old:
        await old.deploy()
        await fill(old, 70)
        await driven(old, 1)
        await half_written(old, "analytic", 2)
    async with engines.app(2) as new:
        for view in ("analytic", *FEEDS):
            assert (await new.rebuilding(view, share=1.0).run()).summary == "equal"
        assert await asked(new, NAMES) == [("typed.order.placed",), ("typed.order.voided",)]
        assert await asked(new, "SELECT count() FROM headwater.`typed.order.voided`") == [(3,)]
        assert await asked(new, "SELECT sum(total) FROM headwater.analytic") == [(142,)]
        assert published(engines) == b'{"generation":2}'
        await new.append(Placed("k2", 1))
        await publish(new)
        await driven(new, 5, ("analytic",))  # batches of its own
        for view in ("analytic", *FEEDS):
            await new.rebuilding(view).roll_back()
        assert await asked(new, NAMES) == [("typed.order.placed",)]
        assert await asked(new, "SELECT sum(total) FROM headwater.analytic") == [(71,)]
        assert published(engines) == b'{"generation":1}'
    async with engines.app() as old:
        await fill(old, 70)
        await driven(old, 9, ("analytic", *FEEDS))
        assert await asked(old, "SELECT sum(total) FROM headwater.analytic") == [(142,)]
        assert await asked(old, "SELECT count() FROM headwater.`typed.order.placed`") == [(142,)]


def published(engines):
    store = LocalStore(str(engines.lake))
    (path,) = [
        found["path"]
        for some in obstore.list(store)
        for found in some
        if found["path"].endswith("/published.json")
    ]
    return bytes(obstore.get(store, path).bytes())


_KILLED = """
import asyncio, json, os, signal
from everywhere import everywhere

def deadly(owner, method, when, at_call=1):
    real, calls = getattr(owner, method), [0]
    async def dying(*arguments, **named):
        calls[0] += 1
        last = calls[0] == at_call
        if last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = await real(*arguments, **named)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    object.__setattr__(owner, method, dying)

async def main():
    factor = int(os.environ["HEADWATER_TEST_FACTOR"])
    app = everywhere(os.environ["HEADWATER_TEST_URL"], json.loads(os.environ["HEADWATER_TEST_URLS"]), factor=factor)
    async with app:
        await app.database("headwater_relay").open()
        rebuild = app.rebuilding(os.environ["HEADWATER_TEST_VIEW"], share=1.0)
        {patch}
        await rebuild.run()

asyncio.run(main())
"""

_POINTS = {
    "in the middle": 'deadly(rebuild.candidate, "apply", "after", 2)',
    "before a batch": 'deadly(rebuild.candidate.record, "plan", "after", 2)',
    "after a batch": 'deadly(rebuild.candidate.record, "at_once", "before", 2)',
    "before the swap": 'deadly(rebuild.candidate, "verify", "after")',
    "before the names": 'deadly(rebuild.live, "publish_outside", "before")',
    "after the names": 'deadly(rebuild.live, "publish_outside", "after")',
}
_KILLS = [
    ("analytic", "after a batch"), ("analytic", "before the names"), ("typed", "after a batch"),
    ("typed", "in the middle"), ("archive", "before a batch"), ("archive", "before the swap"),
    ("archive", "after the names"),
]  # fmt: skip


async def test_a_rebuild_that_is_killed_goes_on_where_it_was(engines):
    """One log; each time to the other definition."""
    async with engines.app() as app:
        await app.deploy()
        await fill(app, 3000)
        await driven(app, 1, ("analytic", *FEEDS))
    factors = dict.fromkeys(("analytic", *FEEDS), 1)
    for view, point in _KILLS:
        factor = factors[view] = 3 - factors[view]
        await killed(engines, view, point, factor)
        async with engines.app(factor) as app:
            if point.endswith("names"):
                await drive(app, app.stored(view), 50)  # a relay opens it: the names follow
            else:
                await _once_its_session_is_gone(app.rebuilding(view, share=1.0))
            assert (await app.stored(view).verify()).summary == "equal", (view, point)
            await named(engines, app, view, factor)


async def killed(engines, view, point, factor):
    """A process that rebuilds a view and dies at a point."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _KILLED.replace("{patch}", _POINTS[point]),
        env=os.environ | {
            "HEADWATER_TEST_URL": engines.database.url,
            "HEADWATER_TEST_URLS": json.dumps(engines.urls),
            "HEADWATER_TEST_VIEW": view,
            "HEADWATER_TEST_FACTOR": str(factor),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
    )  # fmt: skip
    assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL, (view, point)


async def named(engines, app, view, factor):
    """What other programs find is of the definition that was built."""
    if view == "analytic":
        found = await asked(app, "SELECT sum(total) FROM headwater.analytic")
        assert found == [(factor * 3000,)]
    elif view == "typed":
        found = await asked(app, NAMES)
        assert len(found) == factor
    else:
        generation = app.stored(view).record.generation
        assert published(engines) == b'{"generation":%d}' % generation


async def _once_its_session_is_gone(rebuild):
    """Postgres takes a moment to see that its client was killed."""
    while True:
        try:
            return await rebuild.run()
        except LeaseLost:
            continue
