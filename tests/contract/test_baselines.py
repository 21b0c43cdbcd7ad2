"""A baseline is a view as it was at a position, compared with the log, and a rebuild may begin there."""

from __future__ import annotations

import pytest
from redis_server import RedisServer
from test_opening import Signed, make
from test_rebuild import Placed, fill, orders_app

from headwater import App, Document, Settings
from headwater.errors import DefinitionError, LeaseLost, ViewStale
from headwater.operations.health import view_rows
from headwater.testing.driving import drive

pytestmark = pytest.mark.postgres


async def kept_at(app: App, view: str = "orders") -> int:
    """Keeps a baseline of the view as it is; where that is."""
    assert (await app.baselines(view).keep()).equal
    return (await app.baselines(view).kept()).position


def rows_of(database, like: str) -> list[str]:
    with database.admin() as admin:
        asked = "SELECT view FROM headwater.views WHERE view LIKE %s ORDER BY 1"
        return [row[0] for row in admin.execute(asked, [like])]


@pytest.mark.parametrize("kind", ["fold", "sql"])
async def test_a_rebuild_begins_at_the_baseline_and_reads_the_log_from_there(database18, kind):
    async with orders_app(database18.url, kind=kind) as app:
        await app.deploy()
        await fill(app, 700)
        await drive(app, app.stored("orders"), 1)
        position = await kept_at(app)
        await fill(app, 70)
        await drive(app, app.stored("orders"), 2)
        rebuild = app.rebuilding("orders", share=1.0)
        batches: list[int] = []
        apply = rebuild.candidate.apply

        async def applied(batch):
            batches.append(batch.after)
            await apply(batch)

        rebuild.candidate.apply = applied
        assert (await rebuild.run()).summary == "equal"
        assert rebuild.began_at == position
        assert min(batches) >= position
        assert (await app.view("orders").get("k1")).events == 110
        # The baseline is a copy: it is there for the next one too.
        again = app.rebuilding("orders", share=1.0, processes=1)
        assert (await again.run()).summary == "equal"
        assert again.began_at == position
        anew = app.rebuilding("orders", share=1.0, from_baseline=False)
        assert (await anew.run()).summary == "equal"
        assert anew.began_at == 0
        assert rows_of(database18, "orders%") == ["orders", "orders~base", "orders~last"]
        shown = [row[0] for row in await view_rows(app.database("headwater_operator"), {})]
        assert shown == ["orders"]


@pytest.mark.parametrize("kind", ["fold", "sql"])
async def test_a_baseline_that_was_damaged_is_found_and_nothing_is_swapped(database18, kind):
    async with orders_app(database18.url, kind=kind) as app:
        await app.deploy()
        await fill(app, 70)
        await drive(app, app.stored("orders"), 1)
        await kept_at(app)
        generation = 2
        damage = {
            "fold": "UPDATE headwater_views.orders__{} SET document = jsonb_set(document, '{{total}}', '99') WHERE key = 'k2'",
            "sql": "UPDATE headwater_views.orders__{} SET state_1 = 99 WHERE key_1 = 'k2'",
        }[kind]
        with database18.admin() as admin:
            admin.execute(damage.format(generation))
        verified = await app.rebuilding("orders", share=1.0).run()
        assert not verified.equal
        assert {difference.key.removeprefix("order=") for difference in verified.differences} == {
            "k2"
        }
        assert (await app.stored("orders").verify()).summary == "equal"
        rebuilt = app.rebuilding("orders", share=1.0, from_baseline=False)
        assert (await rebuilt.run()).summary == "equal"


async def test_a_view_that_differs_from_the_log_is_not_kept_and_the_baseline_before_stays(
    database18,
):
    async with orders_app(database18.url) as app:
        await app.deploy()
        await fill(app, 70)
        await drive(app, app.stored("orders"), 1)
        position = await kept_at(app)
        await fill(app, 7)
        await drive(app, app.stored("orders"), 2)
        with database18.admin() as admin:
            admin.execute(
                "UPDATE headwater_views.orders__1 SET document = jsonb_set(document, '{total}', '99') WHERE key = 'k2'"
            )
        assert (await app.baselines("orders").keep()).differing == 1
        assert (await app.baselines("orders").kept()).position == position
        assert rows_of(database18, "orders%") == ["orders", "orders~base"]
        rebuild = app.rebuilding("orders", share=1.0)
        assert (await rebuild.run()).summary == "equal"  # mended from the one that is kept
        assert rebuild.began_at == position
        await app.baselines("orders").drop()
        assert await app.baselines("orders").kept() is None
        with database18.admin() as admin:
            tables = admin.execute(
                "SELECT count(*) FROM pg_class WHERE relname LIKE 'orders\\_\\_%' AND relkind = 'r' AND relname <> 'orders__changes'"
            )
            assert tables.fetchone() == (2,)  # the one that is read, and the one before it


async def test_what_is_parked_at_the_baseline_is_parked_in_what_begins_there(database18):
    class Order(Document):
        total: int = 0

    app = App(
        "orders", events=[Placed], tenant="main", settings=Settings(database_url=database18.url)
    )

    def orders(state: Order, event: Placed) -> Order:
        if event.total < 0:
            raise ValueError("no order is worth less than nothing")
        return state.but(total=state.total + event.total)

    app.fold(key="order", name="orders")(_annotated(orders, Order, Placed))
    async with app:
        await app.deploy()
        await app.append(Placed("a", 1), Placed("b", 1), Placed("a", -1), Placed("a", 5))
        await drive(app, app.stored("orders"), 1)
        await kept_at(app)
        await app.append(Placed("a", 7), Placed("b", 7))
        await drive(app, app.stored("orders"), 2)
        parked = (
            "SELECT position, keys, culprit FROM headwater.parked WHERE view = 'orders' ORDER BY 1"
        )
        with database18.admin() as admin:
            before = admin.execute(parked).fetchall()
            assert [row[2] for row in before] == [True, False, False]
            rebuild = app.rebuilding("orders", share=1.0)
            assert (await rebuild.run()).summary == "equal except 1 parked"
            assert rebuild.began_at > 0
            assert admin.execute(parked).fetchall() == before
        assert (await app.view("orders").get("b")).total == 8


def _annotated(function, state, event):
    """Types that are the test's own, which annotations as text would not find."""
    function.__annotations__ = {"state": state, "event": event, "return": state}
    return function


async def test_only_a_baseline_of_the_definition_of_now_is_begun_from(database18):
    async with orders_app(database18.url) as app:
        await app.deploy()
        await fill(app, 70)
        await drive(app, app.stored("orders"), 1)
        await kept_at(app)
    async with orders_app(database18.url, factor=2) as changed:
        await changed.deploy()
        assert (await changed.baselines("orders").kept()).fits is False
        with pytest.raises(ViewStale, match="no baseline of its definition"):
            await changed.baselines("orders").keep()
        rebuild = changed.rebuilding("orders", share=1.0)
        assert (await rebuild.run()).summary == "equal"
        assert rebuild.began_at == 0
        assert (await changed.view("orders").get("k1")).total == 20


@pytest.mark.parametrize("after", ["_make_room", "_fill"])
async def test_a_baseline_left_half_done_is_made_anew(database18, after):
    async with orders_app(database18.url) as app:
        await app.deploy()
        await fill(app, 70)
        await drive(app, app.stored("orders"), 1)
        half = app.baselines("orders")
        async with half.building.lease():
            await half._make_room()
            if after == "_fill":
                await half._fill()
            with pytest.raises(LeaseLost):
                await app.baselines("orders").keep()
        assert await half.kept() is None
        assert await kept_at(app) > 0
        assert rows_of(database18, "orders%") == ["orders", "orders~base"]


async def test_what_can_have_no_baseline_says_so(database18, tmp_path):
    redis = RedisServer()
    try:
        async with orders_app(database18.url, redis.url(), kind="redis") as app:
            await app.deploy()
            with pytest.raises(DefinitionError, match="can have no baseline"):
                await app.baselines("orders").keep()
    finally:
        redis.close()
    app = make(database18, tmp_path)

    class Mail(Document):
        mail: str = ""

    def mails(state: Mail, event: Signed) -> Mail:
        return state.but(mail=event.mail)

    app.fold(key="customer", name="mails", opens=["mail"])(_annotated(mails, Mail, Signed))
    async with app:
        await app.deploy()
        with pytest.raises(DefinitionError, match="opens personal fields"):
            await app.baselines("mails").keep()
