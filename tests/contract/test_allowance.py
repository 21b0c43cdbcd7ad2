"""Rebuilds and backfills go on in their window, at their rate, and while live views keep up."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from headwater import App, Event, Settings
from headwater.errors import SettingError
from headwater.operations.allowance import Allowance, Window
from headwater.testing.driving import drive, publish

pytestmark = pytest.mark.postgres


class Placed(Event, type="order.placed", stream="order/{order}"):
    order: str


@pytest.mark.parametrize(
    ("text", "now", "hours"),
    [
        ("22:00-06:00", "2026-03-01T23:00:00+00:00", 0), ("22:00-06:00", "2026-03-01T05:59:59+00:00", 0),
        ("22:00-06:00", "2026-03-01T06:00:00+00:00", 16), ("22:00-06:00", "2026-03-01T21:00:00+00:00", 1),
        ("09:30-10:00", "2026-03-01T09:30:00+00:00", 0), ("09:30-10:00", "2026-03-01T10:30:00+00:00", 23),
        ("22:00-06:00 Europe/Berlin", "2026-07-01T20:00:00+00:00", 0), ("22:00-06:00 Europe/Berlin", "2026-07-01T19:00:00+00:00", 1),
        ("22:00-06:00 Europe/Berlin", "2026-01-01T20:00:00+00:00", 1),
        # The night that clocks go forward: 02:30 does not exist there, and the window opens all the same.
        ("06:00-07:00 Europe/Berlin", "2026-03-28T22:00:00+00:00", 6),
        ("02:30-04:00 Europe/Berlin", "2026-03-29T00:00:00+00:00", 1.5),
    ],
)  # fmt: skip
def test_how_long_until_a_window_opens(text, now, hours):
    assert Window.of(text).waits(datetime.fromisoformat(now)) == timedelta(hours=hours)


@pytest.mark.parametrize("text", ["22-6", "24:00-01:00", "22:00-22:00", "22:00-06:00 Nowhere/At", "22:00-06:00 ../etc"])  # fmt: skip
def test_a_window_that_is_none_is_explained(text):
    with pytest.raises(SettingError):
        Settings.from_environment({"HEADWATER_BACKFILL_WINDOW": text})
    with pytest.raises(SettingError):
        Settings.from_environment({"HEADWATER_BACKFILL_RATE": "-1"})


class Said(list):
    """What the work says, and a way to wait for it."""

    def __init__(self):
        super().__init__()
        self._heard = asyncio.Event()

    def append(self, text):
        super().append(text)
        self._heard.set()

    async def something(self):
        await asyncio.wait_for(self._heard.wait(), 60)


def app_of(database, **settings):
    app = App("orders", events=[Placed], tenant="main", settings=Settings(database_url=database.url, **settings))  # fmt: skip
    app.sql("orders", sql='SELECT "order", count(*) AS n FROM order.placed GROUP BY 1')
    return app


async def test_a_rebuild_pauses_outside_its_window_and_says_so(database18):
    closed = datetime.now(UTC) + timedelta(hours=2)
    window = f"{closed:%H:%M}-{closed + timedelta(hours=1):%H:%M}"
    async with app_of(database18, backfill_window=window) as app:
        await app.deploy()
        await app.append(*(Placed(str(n)) for n in range(50)))
        await publish(app)
        await drive(app, app.stored("orders"), 1)
        said = Said()
        rebuild = app.rebuilding("orders", say=said.append)
        running = asyncio.create_task(rebuild.run())
        await said.something()
        assert said == [f"paused: until {closed:%H:%M} UTC, when the window opens"]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        rebuild.pace.gate.now = lambda: closed
        assert (await rebuild.run()).summary == "equal"
        assert said[-1] == "going on"


async def test_long_work_pauses_while_a_live_view_is_behind(database18):
    async with app_of(database18) as app:
        await app.deploy()
        await app.append(Placed("1"))
        await publish(app)
        said = Said()
        allowed = Allowance(app.database("headwater_relay"), lag_seconds=0.01, say=said.append)
        await app.database("headwater_relay").open()
        await allowed(1)  # nobody drives the view, so nobody waits for it
        with database18.admin() as admin:
            admin.execute(
                "INSERT INTO headwater.leases (name, holder, fence, expires_at) VALUES ('orders', 'x', 0, 'infinity')"
            )
            waiting = asyncio.create_task(allowed(1))
            await said.something()
            assert said == ["paused: the view orders is behind by more than 0.01 s"]
            assert not waiting.done()
            admin.execute("UPDATE headwater.leases SET expires_at = '-infinity'")
            await waiting


async def test_a_rate_holds_over_several_batches():
    allowed = Allowance(database=None, rate=2000, lag_seconds=0)
    began = time.monotonic()
    for _ in range(6):
        await allowed(100)
    assert time.monotonic() - began >= 0.25  # the sixth begins once five have had their time
