"""Folds and SQL views end to end on a real Postgres: relay, readers, parking, verify, rebuild."""

from __future__ import annotations

import time
from decimal import Decimal

import msgspec
import pytest

from headwater import App, Document, Event, Settings
from headwater.errors import KeyParked, NotCaughtUp, ViewDefinitionError

pytestmark = pytest.mark.postgres


class Placed(Event, type="order.placed", stream="order/{order}"):
    order: str
    total: Decimal
    customer: str | None = None


class Voided(Event, type="order.voided", stream="order/{order}"):
    order: str


class Order(Document):
    status: str = "new"
    total: Decimal = Decimal(0)
    events: int = 0


class Sales(msgspec.Struct):
    customer: str | None
    orders: int
    total: Decimal | None
    mean: Decimal | None
    customers: int


class ByStatus(msgspec.Struct):
    status: str
    orders: int
    total: Decimal | None


def shop(database, divisor="1"):
    app = App(
        "shop", events=[Placed, Voided], tenant="main", settings=Settings(database_url=database.url)
    )

    @app.fold(key="order")
    def orders(state: Order, event: Placed | Voided) -> Order | None:
        if isinstance(event, Voided):
            return None if state.total == 0 else state.but(status="void", events=state.events + 1)
        if event.total == 666:
            raise ValueError("the beast")
        return state.but(status="open", total=state.total + event.total, events=state.events + 1)

    sales = app.sql(
        "sales",
        row=Sales,
        key=("customer",),
        sql=f"""SELECT customer, count(*) AS orders, sum(total / {divisor}) AS total, avg(total) AS mean,
                count(DISTINCT "order") AS customers FROM order.placed GROUP BY customer""",
    )
    by_status = app.sql(
        "by_status",
        row=ByStatus,
        key=("status",),
        sql="SELECT status, count(*) AS orders, sum(total) AS total FROM orders GROUP BY status",
    )
    return app, orders, sales, by_status


async def test_views_follow_the_log_and_are_verified(database):
    """Promises 3, 4 and 5: exactly once in effect, verified, readable at a token."""
    app, orders, sales, by_status = shop(database)
    async with app:
        assert set((await app.deploy()).values()) == {"missing"}
        async with app.relay():
            for n in range(300):
                await app.append(Placed(str(n % 50), Decimal(n), f"c{n % 7}" if n % 5 else None))
            written = await app.append(*(Voided(str(n)) for n in range(0, 50, 5)))
            document = await orders.get("5", at_least=written.token)
            assert document.status == "void"
            assert (await orders.get("6", at_least=written.token)).events == 6
            row = await sales.get(None, at_least=written.token)
            assert row.orders == 60
            assert sum(row.orders for row in await sales.list(at_least=written.token)) == 300
            counts = {r.status: r.orders for r in await by_status.list(at_least=written.token)}
            assert counts == {"open": 40, "void": 10}
            for view in app.views:
                verified = await app.stored(view).verify()
                assert verified.equal, verified
                assert verified.summary == "equal"
            rows = await app.query(
                "SELECT sum(orders)::int AS orders FROM headwater_views.sales",
                views=[sales],
                at_least=written.token,
            )
            assert rows == [{"orders": 300}]


async def test_a_token_of_now_waits_for_what_others_wrote(database18):
    """Whoever wrote nothing asks for as much as readers may see by now."""
    app, orders, _, _ = shop(database18)
    async with app:
        await app.deploy()
        async with app.relay():
            written = await app.append(Placed("1", Decimal(1)))
            await orders.get("1", at_least=written.token)
            now = await app.log.token()
            assert now == written.token
            assert await orders.get("1", at_least=now)


async def test_a_fold_whose_function_takes_long_is_verified_all_the_same(database18):
    """The snapshot that it is compared in waits for the function: longer than a relay's idle transaction may be."""
    app = App("shop", events=[Placed], tenant="main", settings=Settings(database_url=database18.url))  # fmt: skip
    seconds = 0.0

    @app.fold(key="order")
    def orders(state: Order, event: Placed) -> Order:
        time.sleep(seconds)
        return state.but(events=state.events + 1)

    async with app:
        await app.deploy()
        written = await app.append(Placed("1", Decimal(1)))
        async with app.relay():
            await orders.get("1", at_least=written.token)
        seconds = 5.5
        assert (await app.stored("orders").verify()).summary == "equal"


async def test_verify_finds_what_was_tampered_with(database):
    """Promise 4: a check that can fail."""
    app, orders, sales, by_status = shop(database)
    async with app:
        await app.deploy()
        async with app.relay():
            written = await app.append(*(Placed(str(n), Decimal(n)) for n in range(20)))
            for view in (orders, sales, by_status):
                await view.list(at_least=written.token)
        with database.admin() as admin:
            admin.execute(
                """UPDATE headwater_views.orders__1 SET document = jsonb_set(document, '{total}', '"1000"') WHERE key = '3'"""
            )
            admin.execute("DELETE FROM headwater_views.orders__1 WHERE key = '4'")
            columns = admin.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_name = 'sales__1' AND data_type = 'bigint'"
            ).fetchall()
            admin.execute(
                f"UPDATE headwater_views.sales__1 SET {columns[0][0]} = {columns[0][0]} + 1"
            )
        verified = await app.stored("orders").verify()
        assert {(d.key, d.stored is None) for d in verified.differences} == {
            ("3", False),
            ("4", True),
        }
        assert not (await app.stored("sales").verify()).equal


async def test_a_fold_parks_the_key_and_replays_it(database):
    """Promise 6: a poisoned key delays no other; a read with a token names it."""
    app, orders, *_ = shop(database)
    async with app:
        await app.deploy()
        async with app.relay():
            await app.append(Placed("1", Decimal(1)), Placed("2", Decimal(1)))
            culprit = await app.append(Placed("1", Decimal(666)))
            written = await app.append(Placed("1", Decimal(1)), Placed("2", Decimal(1)))
            assert (await orders.get("2", at_least=written.token, timeout_seconds=60)).total == 2
            with pytest.raises(KeyParked) as parked:
                await orders.get("1", at_least=written.token)
            assert parked.value.position == culprit.position
            assert (await orders.get("1")).total == 1
            verified = await app.stored("orders").verify()
            assert (verified.equal, verified.summary) == (True, "equal except 1 parked")
            assert await app.stored("orders").replay() == 0
            assert await app.stored("orders").discard([culprit.position]) == 1
            later = await app.append(Placed("1", Decimal(1)))
            assert (await orders.get("1", at_least=later.token, timeout_seconds=60)).total == 3
            assert (await app.stored("orders").verify()).summary == "equal"


async def test_a_replay_reaches_the_views_over_the_documents(database18):
    """Promise 3: what a replay changes is a change like others."""
    app, orders, _, by_status = shop(database18)
    async with app:
        await app.deploy()
        async with app.relay():
            culprit = await app.append(Placed("1", Decimal(666)))
            written = await app.append(Placed("1", Decimal(1)), Placed("2", Decimal(1)))
            await orders.get("2", at_least=written.token, timeout_seconds=60)
            await app.stored("orders").discard([culprit.position])
            later = await app.append(Placed("2", Decimal(1)))
            rows = await by_status.list(at_least=later.token, timeout_seconds=60)
            assert [(r.orders, r.total) for r in rows] == [(2, Decimal(3))]
            assert (await app.stored("by_status").verify()).summary == "equal"


async def test_a_sql_view_halves_to_the_event_at_fault(database):
    """Promise 6, for SQL views."""
    app, _, sales, _ = shop(database, divisor="(CASE WHEN total = 13 THEN 0 ELSE 1 END)")
    async with app:
        await app.deploy()
        await app.append(*(Placed(str(n), Decimal(n), f"c{n % 3}") for n in range(100)))
        written = await app.append(Placed("x", Decimal(1), "c2"))
        async with app.relay():
            assert (await sales.get("c2", at_least=written.token, timeout_seconds=60)).orders == 34
            with pytest.raises(KeyParked):
                await sales.get("c1", at_least=written.token)
            assert (await sales.get("c1")).orders == 32
            assert (await app.stored("sales").verify()).summary == "equal except 1 parked"


async def test_a_changed_definition_is_stale_until_rebuilt(database):
    """Promise 4: rebuildable, with one verb."""
    app, *_ = shop(database)
    async with app:
        await app.deploy()
        written = await app.append(*(Placed(str(n), Decimal(n)) for n in range(50)))
        async with app.relay():
            await app._rows["sales"].list(at_least=written.token)
    changed, _, sales, _ = shop(database, divisor="2")
    async with changed:
        assert (await changed.deploy())["sales"] == "stale"
        async with changed.relay():
            assert (await sales.list(limit=1))[0].total == 1225
            await changed.stored("sales").rebuild()
            assert (
                await sales.get(None, at_least=written.token, timeout_seconds=60)
            ).total == Decimal("612.5")
            await changed.stored("orders").rebuild()
            await sales.list(at_least=written.token, timeout_seconds=60)
            late = await changed.append(Placed("1", Decimal(1)))
            rows = await changed._rows["by_status"].list(at_least=late.token, timeout_seconds=60)
            assert [(r.status, r.orders) for r in rows] == [("open", 50)]
            for view in changed.views:
                assert (await changed.stored(view).verify()).summary == "equal"


async def test_a_read_before_its_time_fails_clearly(database):
    """Promise 5: never from before the token."""
    app, orders, *_ = shop(database)
    async with app:
        await app.deploy()
        written = await app.append(Placed("1", Decimal(1)))
        with pytest.raises(NotCaughtUp, match="did not reach"):
            await orders.get("1", at_least=written.token, timeout_seconds=0.2)


async def test_tenants_do_not_see_each_other(database):
    """Promise 7, in views."""
    app, orders, sales, _ = shop(database)
    async with app:
        await app.deploy()
        async with app.relay():
            await app.append(Placed("1", Decimal(1), "c"), tenant="a")
            written = await app.append(Placed("1", Decimal(2), "c"), tenant="b")
            assert (await orders.get("1", tenant="a", at_least=written.token)).total == 1
            assert (await orders.get("1", tenant="b", at_least=written.token)).total == 2
            assert (await sales.get("c", tenant="b", at_least=written.token)).total == 2
            rows = await app.query(
                "SELECT tenant FROM headwater_views.sales", views=[sales], tenant="a"
            )
            assert rows == [{"tenant": "a"}]


def test_a_view_that_cannot_be_kept_is_refused_when_the_app_is_built():
    app = App("shop", events=[Placed], tenant="main")
    with pytest.raises(ViewDefinitionError, match="window"):
        app.sql(
            "ranks",
            row=Sales,
            key=("customer",),
            sql="SELECT customer, rank() OVER (ORDER BY total) AS orders FROM order.placed GROUP BY customer",
        )
