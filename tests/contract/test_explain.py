"""Promise 4: the events behind a row, and how it changed at each."""

from __future__ import annotations

import msgspec
import pytest

from headwater import App, Document, Event, Settings
from headwater.errors import DefinitionError
from headwater.testing.driving import drive, publish

pytestmark = pytest.mark.postgres


class Placed(Event, type="order.placed", stream="order/{order}"):
    order: str
    customer: str | None
    total: int


class Voided(Event, type="order.voided", stream="order/{order}"):
    order: str


class Order(Document):
    total: int = 0


def shop(database, *, poisonous=True) -> App:
    app = App(
        "shop", events=[Placed, Voided], tenant="main", settings=Settings(database_url=database.url)
    )

    @app.fold(key="order")
    def orders(state: Order, event: Placed | Voided) -> Order | None:
        if isinstance(event, Voided):
            return None
        if event.total == 13:
            raise ValueError("unlucky")
        return state.but(total=state.total + event.total)

    app.sql(
        "sales",
        sql="SELECT customer, total > 10 AS large, count(*) AS orders, sum(100 / (total - 7)) AS parts "
        "FROM order.placed WHERE total > 0 GROUP BY 1, 2",
    )
    app.sql(
        "moves",
        sql='SELECT "order", sum(n) AS n FROM (SELECT "order", total AS n FROM order.placed '
        'UNION ALL SELECT "order", 1 AS n FROM order.voided) AS x GROUP BY 1',
    )
    app.sql("over", sql="SELECT total, count(*) AS orders FROM orders GROUP BY 1")
    return app


@pytest.fixture
async def app(database):
    async with shop(database) as app:
        await app.deploy()
        await app.append(Placed("1", "ada", 5), Placed("2", "ada", 20))
        await app.append(Placed("1", "ada", 30), Voided("1"), Placed("1", None, 2))
        await app.append(Placed("1", "eve", 5), tenant="other")
        await app.append(Placed("1", "ada", 13), Placed("1", "bob", 7), Placed("1", "ada", -4))
        await publish(app)
        for name in ("orders", "sales", "moves"):
            await drive(app, app.stored(name), 1)
        yield app


async def told(app, view, *key, tenant="main", **options):
    found = await app.stored(view).explain(key, tenant=tenant, **options)
    return found.events, [(msgspec.json.decode(c.data), c.row, c.left_out) for c in found.changes]


def data(order, customer, total):
    return {"order": order, "customer": customer, "total": total}


async def test_a_document(app):
    events, changes = await told(app, "orders", "1")
    assert events == 7
    assert [row for _, row, _ in changes] == [
        {"total": 5}, {"total": 35}, None, {"total": 2}, {"total": 2}, {"total": 2}, {"total": 2},
    ]  # fmt: skip
    assert [why for *_, why in changes] == [None] * 4 + ["parked"] * 3
    assert changes[0][0] == data("1", "ada", 5)
    assert await told(app, "orders", "1", limit=1) == (7, changes[-1:])
    assert await told(app, "orders", "1", tenant="other") == (
        1,
        [(data("1", "eve", 5), {"total": 5}, None)],
    )
    assert await told(app, "orders", "9") == (0, [])


async def test_a_row_of_a_sql_view(app):
    events, changes = await told(app, "sales", "ada", "true")
    assert events == 3
    assert changes == [
        (data("2", "ada", 20), {"customer": "ada", "large": True, "orders": 1, "parts": 7}, None),
        (data("1", "ada", 30), {"customer": "ada", "large": True, "orders": 2, "parts": 11}, None),
        (data("1", "ada", 13), {"customer": "ada", "large": True, "orders": 3, "parts": 27}, None),
    ]
    assert await told(app, "sales", None, "false") == (
        1,
        [(data("1", None, 2), {"customer": None, "large": False, "orders": 1, "parts": -20}, None)],
    )
    # Total 7 divides by zero: the event is parked, and has no part in its row.
    assert await told(app, "sales", "bob", "false") == (1, [(data("1", "bob", 7), None, "parked")])


async def test_a_row_over_several_types_equals_the_view(app):
    events, changes = await told(app, "moves", "1")
    assert events == 7
    assert changes[2][1] == {"order": "1", "n": 36}
    stored = await app.view("moves").get("1")
    assert changes[-1][1]["n"] == stored.n


async def test_what_cannot_be_explained_says_so(app):
    for view, key in (("orders", ()), ("orders", (None,)), ("sales", ("ada",)), ("over", ("5",))):
        with pytest.raises(DefinitionError):
            await told(app, view, *key)
