"""Relays as real processes: side by side, killed, paused, and a server that restarts."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
import shop
from shop import Placed

from headwater import App, Settings

pytestmark = pytest.mark.postgres

SUPPORT = Path(shop.__file__).parent


@contextmanager
def relay_process(database, *options):
    """`headwater up` in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "headwater", "up", *options],
        cwd=SUPPORT,
        env=environment | {"HEADWATER_DATABASE_URL": database.url, "HEADWATER_APP": "shop:app"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert "driving" in process.stdout.readline()
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stdout.close()


@asynccontextmanager
async def opened(database):
    """The app in this process, as application only: no relay."""
    app = shop.app
    app._settings = Settings(database_url=database.url)
    async with app:
        await app.deploy()
        yield app


async def until(condition, *, seconds=90.0):
    """Polls a condition until it holds; the poll is the wait, so nothing rests on a guess of time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {condition}")
        await asyncio.sleep(0)
    return value


def holders(database):
    with database.admin() as admin:
        rows = admin.execute(
            "SELECT name, holder FROM headwater.leases WHERE expires_at > clock_timestamp() AND name NOT LIKE 'relay/%'"
        ).fetchall()
    return dict(rows)


async def fill(app, count, start=0):
    for first in range(start, start + count, 500):
        written = await app.append(
            *(Placed(str(n % 97), Decimal(n)) for n in range(first, first + 500))
        )
    return written


async def all_verified(app, token, rows):
    for view in (shop.orders, shop.sales, shop.totals, shop.by_events):
        await view.list(at_least=token, timeout_seconds=60)
    assert (await shop.totals.get()).orders == rows
    for view in app.views:
        assert (await app.stored(view).verify()).summary == "equal", view


async def test_two_relays_share_and_the_survivor_takes_over(database18):
    """Promises 3 and 6: kill -9 of a relay loses and doubles nothing, and costs seconds."""
    async with opened(database18) as app:
        with relay_process(database18) as first, relay_process(database18) as second:
            views = set(app.views)
            shared = await until(lambda: _shared(database18, views))
            assert {int(h.split("/")[1]) for h in shared.values()} == {first.pid, second.pid}
            filling = asyncio.create_task(fill(app, 20_000))
            await until(lambda: _checkpoint(database18) > 0)
            first.kill()
            killed = time.monotonic()
            await until(
                lambda: (
                    {int(holders(database18).get(v, "x/0").split("/")[1]) for v in views}
                    == {second.pid}
                )
            )
            assert time.monotonic() - killed < 30
            written = await filling
            await all_verified(app, written.token, 20_000)


async def test_a_relay_paused_past_its_lease_changes_nothing(database18):
    """Promise 3: the fence refuses whoever comes back too late."""
    async with opened(database18) as app:
        with relay_process(database18) as paused:
            await fill(app, 2_000)
            await until(lambda: _checkpoint(database18) > 0)
            filling = asyncio.create_task(fill(app, 10_000, 2_000))
            paused.send_signal(signal.SIGSTOP)
            with relay_process(database18) as other:
                written = await filling
                await all_verified(app, written.token, 12_000)
                paused.send_signal(signal.SIGCONT)
                written = await fill(app, 5_000, 12_000)
                await all_verified(app, written.token, 17_000)
                assert other.poll() is None
                assert paused.poll() is None


async def test_a_relay_for_one_view_leaves_the_others_to_the_rest(database18):
    """Promise 6: whatever relays drive which views, no view is left to nobody."""
    async with opened(database18) as app:
        with relay_process(database18), relay_process(database18, "--only", "totals") as second:
            views = set(app.views)
            await until(lambda: views <= set(holders(database18)) and _relays(database18) == 2)
            written = await fill(app, 1_000)
            await all_verified(app, written.token, 1_000)
            others = {h for v, h in holders(database18).items() if v in views - {"totals"}}
            assert len(others) == 1
            assert str(second.pid) not in others.pop()


async def test_a_stopped_relay_leaves_nothing_to_wait_for(database18):
    """A restart of a relay costs no lease's time: all are given back."""
    async with opened(database18) as app:
        for n in range(3):
            async with app.relay():
                written = await app.append(Placed("1", Decimal(1)))
                await shop.totals.get(at_least=written.token)
            assert holders(database18) == {}, n


async def test_views_go_on_after_the_server_restarts(own_server):
    """Promise 3 across a crash of Postgres itself: appends in flight fail clearly, views catch up."""
    from headwater.errors import HeadwaterError

    async with opened(own_server) as app:
        with relay_process(own_server):
            await fill(app, 3_000)
            await asyncio.to_thread(own_server.server.postgres.restart, "immediate")
            for _ in range(200):
                try:
                    written = await app.append(Placed("1", Decimal(1)))
                    break
                except HeadwaterError:
                    await asyncio.sleep(0)
            await all_verified(app, written.token, 3_001)


def _shared(database, views):
    """Who drives which view, once two relays drive all of them."""
    held = {name: holder for name, holder in holders(database).items() if name in views}
    return held if views == set(held) and len(set(held.values())) == 2 else None


def _relays(database):
    with database.admin() as admin:
        (count,) = admin.execute(
            "SELECT count(*) FROM headwater.leases WHERE name LIKE 'relay/%' AND expires_at > clock_timestamp()"
        ).fetchone()
    return count


def _checkpoint(database):
    with database.admin() as admin:
        (position,) = admin.execute("SELECT min(position) FROM headwater.checkpoints").fetchone()
    return position


async def test_no_name_of_a_view_is_that_of_a_relays_own_lease(database18):
    """Whoever publishes the watermark holds a lease; a view called ticker once had the same, and was never driven."""
    app = App(
        "shop", events=[Placed], tenant="main", settings=Settings(database_url=database18.url)
    )
    ticker = app.fold(key="order", name="ticker")(shop.orders.fold.evolve)
    async with app:
        await app.deploy()
        async with app.relay():
            written = await app.append(Placed("1", Decimal(5)))
            assert await ticker.get("1", at_least=written.token, timeout_seconds=60) is not None
            with database18.admin() as admin:
                names = admin.execute("SELECT name FROM headwater.leases").fetchall()
        own = {name for (name,) in names} - {"ticker"}
        assert all("/" in name for name in own), own
