"""Promise 4: a view is rebuilt beside the one that is read, and swapped without a gap or a mixture."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from functools import partial

import pytest
from redis_server import RedisServer

from headwater import App, Document, Event, Settings
from headwater.errors import (
    DefinitionError,
    LeaseLost,
    NothingKept,
    ViewDefinitionError,
    ViewInUse,
)
from headwater.operations.health import view_rows
from headwater.stores.redis import Redis
from headwater.testing.driving import drive, publish

pytestmark = pytest.mark.postgres


class Placed(Event, type="order.placed", stream="order/{order}"):
    order: str
    total: int


class Order(Document):
    total: int = 0
    events: int = 0


def orders_app(url, redis="", *, factor=1, kind="fold") -> App:
    stores = {"fast": redis} if redis else {}
    app = App(
        "orders", events=[Placed], tenant="main", settings=Settings(database_url=url, stores=stores)
    )
    if kind == "sql":
        app.sql(
            "orders",
            sql=f'SELECT "order", sum({factor} * total) AS total, count(*) AS events FROM order.placed GROUP BY 1',
        )
        return app

    def once(state: Order, event: Placed) -> Order:
        return state.but(total=state.total + event.total, events=state.events + 1)

    def doubled(state: Order, event: Placed) -> Order:
        return state.but(total=state.total + 2 * event.total, events=state.events + 1)

    def tripled(state: Order, event: Placed) -> Order:
        return state.but(total=state.total + 3 * event.total, events=state.events + 1)

    store = Redis("fast") if kind == "redis" else None
    evolve = {1: once, 2: doubled, 3: tripled}[factor]
    app.fold(key="order", name="orders", store=store)(evolve)
    return app


@pytest.fixture
def redis():
    server = RedisServer()
    yield server
    server.close()


KINDS = ["fold", "sql", "redis"]


@pytest.fixture(params=KINDS)
def made(request, database18, redis):
    """Makes the app over one kind of view, with a factor."""
    return partial(orders_app, database18.url, redis.url(), kind=request.param)


@pytest.fixture(params=KINDS)
def made_everywhere(request, database, redis):
    """The same, on every supported Postgres."""
    return partial(orders_app, database.url, redis.url(), kind=request.param)


async def fill(app, count, *, keys=7, after=0):
    written = await app.append(*(Placed(f"k{n % keys}", 1) for n in range(after, after + count)))
    await publish(app)
    return written


async def test_two_versions_of_an_app_side_by_side_leave_each_view_to_the_one_it_fits(made):
    """An old relay that finds a view rebuilt lets it go, and says so; it keeps the log moving."""
    async with made() as old:
        await old.deploy()
        async with old.relay() as before:
            written = await fill(old, 70)
            await old.view("orders").list(at_least=written.token, timeout_seconds=60)
            async with made(factor=2) as new, new.relay() as after:
                await new.deploy()
                await new.stored("orders").rebuild()
                late = await new.append(Placed("k0", 1))
                row = await new.view("orders").get("k0", at_least=late.token, timeout_seconds=60)
                assert (row.total, row.events) == (22, 11)
                async with asyncio.timeout(60):
                    while (before.driving, after.driving) != ([], ["orders"]):
                        await asyncio.sleep(0)
                assert (await new.stored("orders").verify()).summary == "equal"
            operator, views = old.database("headwater_operator"), {"orders": old.stored("orders")}
            async with asyncio.timeout(60):
                while (shown := (await view_rows(operator, views))[0])[6] != "stale":
                    pass  # asking the database is the pause
            assert shown[2] == "stale"
            assert "is stale" in shown[8]


async def test_reads_go_on_while_it_is_rebuilt_under_writes(made):
    """Continuous writes, and reads at their tokens: none is refused, none is from before its token."""
    async with made() as app:
        await app.deploy()
        async with app.relay():
            await fill(app, 3000)
            rebuilding, counts = True, [0]

            async def write_and_read():
                while rebuilding:
                    written = await app.append(Placed("hot", 1))
                    counts[0] += 1
                    row = await app.view("orders").get("hot", at_least=written.token)
                    assert row.events == counts[0]

            writing = asyncio.create_task(write_and_read())
            for _ in range(5):
                rebuild = app.rebuilding("orders", share=1.0)
                verified = await rebuild.run()
                assert verified.summary == "equal"
            rebuilding = False
            await writing
            assert counts[0] >= 5
            written = await app.append(Placed("hot", 1))
            row = await app.view("orders").get("hot", at_least=written.token)
            assert row.events == counts[0] + 1
        assert (await app.stored("orders").verify()).summary == "equal"


async def test_a_changed_definition_is_swapped_whole_and_rolled_back(made_everywhere):
    made = made_everywhere
    async with made() as app:
        await app.deploy()
        await fill(app, 70)
        await drive(app, app.stored("orders"), 1)
    async with made(factor=2) as changed:
        row = await changed.view("orders").get("k1")
        assert row.total == 10  # the old one is read until the new one is whole
        with pytest.raises(NothingKept):
            await changed.rebuilding("orders").roll_back()
        assert (await changed.rebuilding("orders").run()).summary == "equal"
        assert (await changed.view("orders").get("k1")).total == 20
        assert len(await changed.view("orders").list()) == 7
        written = await changed.append(Placed("k1", 1))
        await publish(changed)
        await drive(changed, changed.stored("orders"), 2)
        assert (await changed.view("orders").get("k1", at_least=written.token)).total == 22
        await changed.rebuilding("orders").roll_back()
    async with made() as app:
        assert (await app.view("orders").get("k1")).total == 10
        await drive(app, app.stored("orders"), 3)
        assert (await app.view("orders").get("k1", at_least=written.token)).total == 11
        assert (await app.stored("orders").verify()).summary == "equal"
    async with made(factor=2) as changed:  # and forward again: what was built stands by
        assert (await changed.rebuilding("orders").run()).summary == "equal"
        assert (await changed.view("orders").get("k1", at_least=written.token)).total == 22
        assert (await changed.stored("orders").verify()).summary == "equal"


async def test_a_corrupted_view_is_mended_beside_itself(database18):
    async with orders_app(database18.url) as app:
        await app.deploy()
        await fill(app, 70)
        await drive(app, app.stored("orders"), 1)
        with database18.admin() as admin:
            admin.execute(
                "UPDATE headwater_views.orders__1 SET document = jsonb_set(document, '{total}', '99') WHERE key = 'k2'"
            )
        assert (await app.stored("orders").verify()).differing == 1
        await app.rebuilding("orders").run()
        assert (await app.stored("orders").verify()).summary == "equal"
        with database18.admin() as admin:
            await app.rebuilding("orders").run()
            tables = admin.execute(
                "SELECT relname FROM pg_class WHERE relname LIKE 'orders__%' AND relkind = 'r' ORDER BY 1"
            )
            # The one that is read, the one kept, and the changes: no other generation is left.
            assert [row[0] for row in tables] == ["orders__2", "orders__3", "orders__changes"]


async def test_a_sql_view_is_filled_at_once_parks_what_fails_and_has_its_key_again(database18):
    async with App(
        "orders", events=[Placed], tenant="main", settings=Settings(database_url=database18.url)
    ) as app:
        app.sql(
            "shares",
            sql='SELECT "order", sum(700 / total) AS share FROM order.placed GROUP BY 1',
        )
    async with app:
        await app.deploy()
        await app.append(*(Placed(f"k{n % 7}", 0 if n == 40 else 1 + n) for n in range(70)))
        await drive(app, app.stored("shares"), 1)
        asked = 'SELECT tenant, "order", share FROM headwater_views.shares ORDER BY 2'
        parked = "SELECT keys, reason FROM headwater.parked WHERE view = 'shares'"
        with database18.admin() as admin:
            before = [admin.execute(statement).fetchall() for statement in (asked, parked)]
            assert (len(before[0]), len(before[1])) == (7, 1)
            for generation in (2, 3):
                assert (
                    await app.rebuilding("shares", share=1.0).run()
                ).summary == "equal except 1 parked"
                after = [admin.execute(statement).fetchall() for statement in (asked, parked)]
                assert after == before
                keys = admin.execute(
                    "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'u' AND conrelid = %s::regclass",
                    [f"headwater_views.shares__{generation}"],
                )
                assert keys.fetchall() == [("UNIQUE NULLS NOT DISTINCT (tenant, key_1)",)]
                await app.append(Placed("k1", 700))
                await drive(app, app.stored("shares"), generation)
                before[0] = admin.execute(asked).fetchall()
                assert before[0] != after[0]


_KILLED = """
import asyncio, os, signal
from dataclasses import replace
from tests.contract.test_rebuild import orders_app

async def main():
    app = orders_app(os.environ["HEADWATER_TEST_URL"], os.environ["HEADWATER_TEST_REDIS"], kind="{kind}")
    async with app:
        await app.database("headwater_relay").open()
        rebuild = app.rebuilding("orders", share=1.0)
        {patch}
        await rebuild.run()

asyncio.run(main())
"""

_PATCHES = {
    "in the middle": """
        rebuild.building.pace = replace(rebuild.building.pace, first_batch=1000)
        apply, left = rebuild.candidate.apply, [2]
        async def dying(batch):
            await apply(batch)
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
        rebuild.candidate.apply = dying
        """,
    "before the swap": """
        async def dying(fence):
            os.kill(os.getpid(), signal.SIGKILL)
        type(rebuild)._swap = lambda self, fence, report: dying(fence)
        """,
    "in the swap": """
        publish = rebuild.live.publish
        async def dying(connection):
            await publish(connection)
            os.kill(os.getpid(), signal.SIGKILL)
        rebuild.live.publish = dying
        """,
}


@pytest.mark.parametrize("kind", ["fold", "sql", "redis"])
@pytest.mark.parametrize("point", list(_PATCHES))
async def test_a_rebuild_that_is_killed_goes_on_where_it_was(database18, redis, kind, point):
    async with orders_app(database18.url, redis.url(), kind=kind) as app:
        await app.deploy()
        await fill(app, 3000)
        await drive(app, app.stored("orders"), 1)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _KILLED.format(kind=kind, patch=_PATCHES[point]),
            env=os.environ | {
                "HEADWATER_TEST_URL": database18.url,
                "HEADWATER_TEST_REDIS": redis.url(),
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
        )  # fmt: skip
        assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL
        assert (await app.view("orders").get("k1")).events == 429  # read as ever
        rows = {row[0]: row for row in await view_rows(app.database("headwater_operator"), {})}
        assert rows["orders~next"][2] == "building"
        assert rows["orders~next"][3] > 0
        with (
            database18.admin() as admin
        ):  # a killed process is not waited for, however long its lease
            admin.execute("UPDATE headwater.leases SET expires_at = now() + interval '1 hour'")
        rebuild = app.rebuilding("orders", share=1.0)
        async with asyncio.timeout(60):
            assert (await _once_its_session_is_gone(rebuild)).summary == "equal"
        assert (await app.stored("orders").verify()).summary == "equal"
        assert (await app.view("orders").get("k1")).events == 429


async def _once_its_session_is_gone(rebuild):
    """Postgres takes a moment to see that its client was killed."""
    while True:
        try:
            return await rebuild.run()
        except LeaseLost:
            continue


async def test_a_changed_definition_is_rebuilt_by_itself_where_the_app_says_so(made):
    async with made() as app:
        await app.deploy()
        await fill(app, 70)
        await drive(app, app.stored("orders"), 1)
    changed = made(factor=2)
    changed.rebuild_stale = True
    async with changed:
        await changed.deploy()
        async with changed.relay(), asyncio.timeout(60):
            while (await changed.view("orders").get("k1")).total != 20:
                pass  # asking the database is the pause
            written = await changed.append(Placed("k1", 1))
            row = await changed.view("orders").get("k1", at_least=written.token, timeout_seconds=60)
            assert row.total == 22
        assert (await changed.stored("orders").verify()).summary == "equal"


async def test_what_rests_on_a_view_stays_and_is_named_where_it_cannot(database18):
    async with orders_app(database18.url, kind="sql") as app:
        await app.deploy()
        await fill(app, 70)
        await drive(app, app.stored("orders"), 1)
    with database18.admin() as admin:
        admin.execute('CREATE VIEW public.mine AS SELECT total FROM headwater_views.orders WHERE "order" = \'k1\'')  # fmt: skip
        async with orders_app(database18.url, factor=2, kind="sql") as app:
            assert (await app.rebuilding("orders").run()).summary == "equal"
        assert admin.execute("SELECT total FROM public.mine").fetchone() == (20,)
        wider = App("orders", events=[Placed], tenant="main", settings=Settings(database_url=database18.url))  # fmt: skip
        wider.sql("orders", sql='SELECT "order", max(total) AS most FROM order.placed GROUP BY 1')
        async with wider:
            with pytest.raises(
                ViewInUse, match=r"view public\.mine depends on view headwater_views\.orders"
            ):
                await wider.rebuilding("orders").run()
            assert admin.execute("SELECT total FROM public.mine").fetchone() == (20,)
            admin.execute("DROP VIEW public.mine")
            assert (await wider.rebuilding("orders").run()).summary == "equal"
            assert (await wider.view("orders").get("k1")).most == 1


async def test_what_cannot_stand_beside_itself_says_so(database18, redis):
    async with orders_app(database18.url) as app:
        await app.deploy()
    moved = orders_app(database18.url, redis.url(), kind="redis")
    async with moved:
        with pytest.raises(DefinitionError, match="moves to another store"):
            await moved.rebuilding("orders").run()
    app = orders_app(database18.url)
    app.sql("over", sql="SELECT events, count(*) AS orders FROM orders GROUP BY 1")
    async with app:
        assert app.rebuilding("orders") is None
        assert app.rebuilding("over") is None


# Several who rebuild, and what was there before ------------------------------------------------------


async def filled(app):
    await app.deploy()
    await fill(app, 70)
    await drive(app, app.stored("orders"), 1)


async def test_no_generation_is_used_twice(made):
    """What a store still holds of a generation that was given up is not gone on with."""
    async with made() as app:
        await filled(app)
    async with made(factor=2) as changed:
        await changed.rebuilding("orders").run()
        await changed.rebuilding("orders").roll_back()
    async with made(factor=3) as again:
        assert (await again.rebuilding("orders").run()).summary == "equal"
        assert (await again.view("orders").get("k1")).total == 30
        await again.rebuilding("orders").roll_back()
    async with made() as app:
        await app.stored("orders").rebuild()  # in place, beside what was rolled back
        await drive(app, app.stored("orders"), 9)
        assert (await app.view("orders").get("k1")).total == 10
        assert (await app.stored("orders").verify()).summary == "equal"


async def test_a_view_that_starts_over_is_refilled_though_nothing_is_appended(made):
    async with made() as app:
        await app.deploy()
        async with app.relay():
            written = await fill(app, 70)
            await app.view("orders").list(at_least=written.token, timeout_seconds=60)
            await app.stored("orders").rebuild()
            row = await app.view("orders").get("k1", at_least=written.token, timeout_seconds=60)
            assert row.total == 10
            assert (await app.stored("orders").verify()).summary == "equal"


class Held:
    """A rebuild that waits after it was compared."""

    def __init__(self, rebuild):
        self.compared, self.go = asyncio.Event(), asyncio.Event()
        self._verify = rebuild.candidate.verify
        rebuild.candidate.verify = self._held
        self.running = asyncio.create_task(rebuild.run())

    async def _held(self):
        verified = await self._verify()
        self.compared.set()
        await self.go.wait()
        return verified

    async def finish(self):
        self.go.set()
        async with asyncio.timeout(60):
            return await self.running


async def test_who_comes_second_leaves_the_first_ones_work_alone(database18):
    """Another rebuild, by another definition, and a rollback."""
    async with orders_app(database18.url) as app, orders_app(database18.url, factor=2) as other:
        await filled(app)
        await app.rebuilding("orders").run()
        held = Held(app.rebuilding("orders"))
        await held.compared.wait()
        for second in (other.rebuilding("orders").run, other.rebuilding("orders").roll_back):
            with pytest.raises(LeaseLost, match="Another process rebuilds"):
                await second()
        assert (await held.finish()).summary == "equal"


async def test_who_lost_the_lease_swaps_nothing(database18):
    async with orders_app(database18.url) as app, orders_app(database18.url, factor=2) as other:
        await filled(app)
        held = Held(app.rebuilding("orders"))
        await held.compared.wait()
        with database18.admin() as admin:
            admin.execute(
                "UPDATE headwater.leases SET expires_at = now(), holder = 'a paused process'"
            )
        assert (await other.rebuilding("orders").run()).summary == "equal"
        with pytest.raises(LeaseLost):
            await held.finish()
        assert (await other.view("orders").get("k1")).total == 20


@pytest.mark.parametrize("kind", ["fold", "sql"])
async def test_a_long_report_delays_the_swap_and_no_reader(database18, kind, caplog):
    async with orders_app(database18.url, kind=kind) as app:
        await filled(app)
        async with app.database().transaction("main") as report:
            await report.execute("SELECT * FROM headwater_views.orders")
            running = asyncio.create_task(app.rebuilding("orders").run())
            async with asyncio.timeout(60):
                while "the swap waits" not in caplog.text:
                    assert (await app.view("orders").get("k1")).events == 10
            assert not running.done()
        assert (await running).summary == "equal"


async def test_what_was_built_wrong_is_built_anew(database18):
    async with orders_app(database18.url) as app:
        await filled(app)
        await app.rebuilding("orders").run()
        with database18.admin() as admin:
            admin.execute(
                "UPDATE headwater_views.orders__2 SET document = jsonb_set(document, '{total}', '99') WHERE key = 'k2'"
            )
        await app.rebuilding("orders").roll_back()
        assert (await app.rebuilding("orders").run()).summary == "1 differ"
        assert (await app.rebuilding("orders").run()).summary == "equal"


def fence(database):
    with database.admin() as admin:
        row = admin.execute("SELECT fence FROM headwater.leases WHERE name = 'orders'").fetchone()
    return 0 if row is None else row[0]


async def test_the_relay_goes_on_at_once_after_many_rebuilds(database18, redis):
    """A store compares fences: the relay's is not below those of the rebuilds."""
    async with orders_app(database18.url, redis.url(), kind="redis") as app:
        await filled(app)
        for _ in range(6):
            await app.rebuilding("orders", share=1.0).run()
        before = fence(database18)
        async with app.relay():
            written = await app.append(Placed("k1", 1))
            row = await app.view("orders").get("k1", at_least=written.token)
            assert row.events == 11
            assert fence(database18) == before + 1  # the first that it took was high enough


async def test_a_views_name_is_not_that_of_anothers_generation(database18):
    """Tables are named VIEW__GENERATION, and those of a generation are dropped by their names."""
    app = orders_app(database18.url)
    with pytest.raises(ViewDefinitionError, match="malformed"):
        app.sql("orders__2", sql='SELECT "order", count(*) AS events FROM order.placed GROUP BY 1')
