"""A small app that tests run in processes of their own."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from headwater import App, Document, Event


class Placed(Event, type="order.placed", stream="order/{order}"):
    order: str
    total: Decimal


class Order(Document):
    total: Decimal = Decimal(0)
    events: int = 0


class Sales(msgspec.Struct):
    bucket: int
    orders: int
    total: Decimal | None


class Total(msgspec.Struct):
    orders: int


app = App("shop", events=[Placed], tenant="main")


@app.fold(key="order")
def orders(state: Order, event: Placed) -> Order | None:
    return state.but(total=state.total + event.total, events=state.events + 1)


sales = app.sql(
    "sales",
    row=Sales,
    key=("bucket",),
    sql='SELECT ("order"::bigint % 10)::int AS bucket, count(*) AS orders, sum(total) AS total '
    "FROM order.placed GROUP BY 1",
)
totals = app.sql("totals", row=Total, key=(), sql="SELECT count(*) AS orders FROM order.placed")
by_events = app.sql(
    "by_events",
    row=Sales,
    key=("bucket",),
    sql="SELECT (events % 10)::int AS bucket, count(*) AS orders, sum(total) AS total FROM orders GROUP BY 1",
)
