"""Events of earlier versions are read in the newest shape, by Python and by SQL alike."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater import App, Document, Event, Settings
from headwater.errors import EventDefinitionError, ViewDefinitionError
from headwater.events import Cast, Computed, Default, EventType, Remove, Rename
from headwater.events.expressions import compiled
from headwater.testing.driving import drive, publish

pytestmark = pytest.mark.postgres


class Line(msgspec.Struct, frozen=True):
    sku: str


class PlacedOnce(Event, type="order.placed", stream="order/{order}"):
    order: str
    sum: str
    net: Decimal
    tax: Decimal
    note: str | None
    lines: list[Line]


class PlacedThen(Event, type="order.placed", stream="order/{order}", version=2, upcasts={
    1: [Rename("sum", "total"), Cast("total", Decimal), Remove("note")],
}):  # fmt: skip
    order: str
    total: Decimal
    net: Decimal
    tax: Decimal
    lines: list[Line]


class Placed(Event, type="order.placed", stream="order/{id}", version=3, upcasts={
    1: [Rename("sum", "total"), Cast("total", Decimal), Remove("note")],
    2: [
        Rename("order", "id"),
        Computed("gross", "net + tax", {"net": Decimal, "tax": Decimal}),
        Computed("kind", "CASE WHEN net > 100 THEN 'large' ELSE 'small' END", {"net": Decimal}),
        Default("currency", "EUR"),
    ],
}):  # fmt: skip
    id: str
    total: Decimal
    net: Decimal
    tax: Decimal
    gross: Decimal
    kind: str
    currency: str
    lines: list[Line]
    paid: bool = False


OLD = PlacedOnce("a", "12.50", Decimal("10.50"), Decimal("2.00"), "-", [Line("x")])
THEN = PlacedThen("a", Decimal("120.00"), Decimal(101), Decimal("19.00"), [])
NEW = Placed(
    "b", Decimal(7), Decimal(6), Decimal(1), Decimal(7), "small", "USD", [Line("y")], paid=True
)
READ = [
    Placed("a", Decimal("12.50"), Decimal("10.50"), Decimal("2.00"), Decimal("12.50"), "small", "EUR", [Line("x")]),
    Placed("a", Decimal("120.00"), Decimal(101), Decimal("19.00"), Decimal("120.00"), "large", "EUR", []),
    NEW,
]  # fmt: skip


class Order(Document):
    total: Decimal = Decimal(0)
    gross: Decimal = Decimal(0)
    events: int = 0
    currency: str = ""


class Total(Document):
    total: Decimal = Decimal(0)


def app_of(database, placed):
    app = App("orders", events=[placed], tenant="main", settings=Settings(database_url=database.url))  # fmt: skip
    if placed is Placed:

        @app.fold(key="id")
        def orders(state: Order, event: Placed) -> Order:
            return state.but(
                total=state.total + event.total, gross=state.gross + event.gross,
                events=state.events + 1, currency=event.currency,
            )  # fmt: skip

        app.sql(
            "sales",
            sql="SELECT id, currency, kind, paid, sum(total) AS total, sum(gross) AS gross, count(*) AS orders, "
            "sum(jsonb_array_length(lines)) AS lines FROM order.placed GROUP BY 1, 2, 3, 4",
        )
    return app


async def written(database):
    """Three versions of an app, one after the other, each writing its own."""
    for placed, event in ((PlacedOnce, OLD), (PlacedThen, THEN), (Placed, NEW)):
        async with app_of(database, placed) as app:
            await app.deploy()
            await app.append(event)


async def test_every_entrance_reads_old_events_in_the_newest_shape(database):
    await written(database)
    async with app_of(database, Placed) as app:
        await publish(app)
        await app.deploy()
        assert [each.event for each in await app.log.read(tenant="main")] == READ
        assert [each.event for each in await app.log.stream("order/a", tenant="main")] == READ[:2]
        for view in app.views:
            await drive(app, app.stored(view), 1)
            assert (await app.stored(view).verify()).summary == "equal", view
        order = await app.view("orders").get("a")
        assert (order.total, order.gross, order.events) == (Decimal("132.50"), Decimal("132.50"), 2)
        rows = {(r.id, r.kind): r for r in await app.view("sales").list()}
        small, large = rows["a", "small"], rows["a", "large"]
        assert (small.total, small.gross, small.currency, small.paid) == (Decimal("12.50"), Decimal("12.50"), "EUR", False)  # fmt: skip
        assert (large.total, large.lines) == (Decimal("120.00"), 0)
        assert rows["b", "small"].paid is True
        explained = await app.stored("orders").explain(("a",), tenant="main", limit=10)
        assert [change.version for change in explained.changes] == [1, 2]
    with database.admin() as admin:
        (told,) = admin.execute(
            "SELECT upcasts FROM headwater.event_types WHERE schema_version = 3"
        ).fetchone()
    assert told["1"][0] == {"step": "rename", "field": "sum", "to": "total"}
    assert told["2"][1]["inputs"] == {"net": "Decimal", "tax": "Decimal"}


async def test_old_code_passes_by_what_is_new_and_parks_what_it_cannot_read(database18):
    """Readers of version 2 meet events of version 3: the new fields aside, a renamed one is missing."""
    await written(database18)
    app = App("orders", events=[PlacedThen], tenant="main", settings=Settings(database_url=database18.url))  # fmt: skip

    @app.fold(key="order")
    def totals(state: Total, event: PlacedThen) -> Total:
        return state.but(total=state.total + event.total)

    app.sql("by_order", sql='SELECT "order", sum(total) AS total FROM order.placed GROUP BY 1')
    app.sql("whole", sql="SELECT count(*) AS orders, sum(total) AS total FROM order.placed")
    async with app:
        await app.deploy()
        await publish(app)
        for view, parked in (
            ("totals", "equal except 1 parked"),
            ("by_order", "equal except 1 parked"),
            ("whole", "equal"),
        ):
            await drive(app, app.stored(view), 1)
            found = await app.stored(view).verify()
            assert found.summary == parked, view
        # What it does not read of an event cannot trouble it.
        (whole,) = await app.view("whole").list()
        assert (whole.orders, whole.total) == (3, Decimal("139.50"))


async def test_a_new_field_makes_no_view_stale_and_other_steps_make_those_that_read_them(
    database18,
):
    class Begun(Event, type="trip.begun", stream="trip/{trip}"):
        trip: str
        miles: int

    class BegunToo(Event, type="trip.begun", stream="trip/{trip}", version=2,
                   upcasts={1: [Default("driver", "nobody")]}):  # fmt: skip
        trip: str
        miles: int
        driver: str

    class BegunLast(Event, type="trip.begun", stream="trip/{trip}", version=3,
                    upcasts={1: [Default("driver", "nobody")],
                             2: [Computed("miles", "miles * 2", {"miles": int})]}):  # fmt: skip
        trip: str
        miles: int
        driver: str

    def made(begun):
        app = App("trips", events=[begun], tenant="main", settings=Settings(database_url=database18.url))  # fmt: skip
        app.sql("miles", sql="SELECT trip, sum(miles) AS miles FROM trip.begun GROUP BY 1")
        app.sql("trips", sql="SELECT trip, count(*) AS trips FROM trip.begun GROUP BY 1")
        return app

    async with made(Begun) as app:
        assert await app.deploy() == {"miles": "missing", "trips": "missing"}
        await app.append(Begun("t", 3))
    async with made(BegunToo) as app:
        assert await app.deploy() == {"miles": "current", "trips": "current"}
        await app.append(BegunToo("t", 4, "me"))
    async with made(BegunLast) as app:
        assert await app.deploy() == {"miles": "stale", "trips": "current"}
        await app.append(BegunLast("t", 5, "me"))
        await publish(app)
        assert (await app.rebuilding("miles").run()).summary == "equal"
        assert [row.miles for row in await app.view("miles").list()] == [19]


async def test_a_python_step_confines_a_type_to_folds(database18):
    def halved(data: dict[str, Any]) -> dict[str, Any]:
        return data | {"miles": data["miles"] / 2}

    class Ended(Event, type="trip.ended", stream="trip/{trip}", version=2, upcasts={1: [halved]}):
        trip: str
        miles: float

    app = App("trips", events=[Ended], tenant="main")
    with pytest.raises(ViewDefinitionError, match="Python function"):
        app.sql("miles", sql="SELECT sum(miles) AS miles FROM trip.ended")
    assert EventType.of(Ended).decode(b'{"trip": "t", "miles": 3}', 1) == Ended("t", 1.5)


def test_steps_that_lead_nowhere_or_cannot_be_computed_alike_are_refused():
    class Bad(Event, type="a.b", stream="a/{x}", upcasts={1: []}):
        x: str

    with pytest.raises(EventDefinitionError, match="version 1 and says how to upcast from 1"):
        EventType.of(Bad)
    for expression in (
        "a / b",
        "now()",
        "a + 'x'",
        "c",
        "a ->> 'x'",
        "(SELECT 1)",
        "round(a, b)",
        "1 +",
    ):
        with pytest.raises(EventDefinitionError, match="cannot be computed alike"):
            Computed("x", expression, {"a": Decimal, "b": Decimal})
    with pytest.raises(EventDefinitionError, match="cannot be cast"):
        Cast("x", list)


EXPRESSIONS = [
    "n + i", "n - m * n", "i * i - 3", "f + 1", "f * n", "round(n * m, 2)", "round(n)", "abs(n) + abs(f)",
    "t || '|' || s", "upper(t) || lower(s)", "length(t)", "trim(t)", "replace(t, s, '-')", "t < s", "t = s AND i > 3",
    "NOT (b OR t IS NULL)", "coalesce(t, s, 'none')", "nullif(t, 'a')", "nullif(i, 0)",
    "CASE WHEN b THEN t WHEN i = 0 THEN s ELSE 'other' END", "CASE WHEN n > m THEN n ELSE i END", "-n", "i >= n",
    "b = (i > 0)", "CASE WHEN i IS NOT NULL THEN i END", "n <> m OR t >= s",
]  # fmt: skip
FIELDS = {"n": Decimal, "m": Decimal, "i": int, "f": float, "t": str, "s": str, "b": bool}
_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
_decimals = st.decimals(-(10**9), 10**9, places=4, allow_nan=False)
VALUES = st.fixed_dictionaries({
    "n": st.none() | _decimals, "m": st.none() | _decimals, "i": st.none() | st.integers(-(2**30), 2**30),
    "f": st.none() | st.floats(-1e9, 1e9).map(lambda x: x + 0.0), "t": st.none() | _text | st.sampled_from(["a", " Ä b ", "ß"]),
    "s": st.none() | _text, "b": st.none() | st.booleans(),
})  # fmt: skip


@given(VALUES)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_an_expression_is_the_same_in_python_and_in_postgres(connection, values):
    fields = {name: (kind, f"(%({name})s::{SQL[kind]})") for name, kind in FIELDS.items()}
    expressions = [compiled(text, fields) for text in EXPRESSIONS]
    row = connection.execute("SELECT " + ", ".join(e.sql for e in expressions), values).fetchone()
    for text, expression, found in zip(EXPRESSIONS, expressions, row, strict=True):
        mine = expression.value(values)
        assert mine == found, (text, values)
        assert mine is None or type(mine) is expression.type, text


SQL = {str: "text", int: "bigint", float: "float8", Decimal: "numeric", bool: "boolean"}


@pytest.fixture
def connection(server):
    with psycopg.connect(server.postgres.url(server.template), autocommit=True) as connection:
        yield connection


_json = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | _decimals | _text | st.sampled_from(
    ["12", "-3.50", "+4", "1e3", "NaN", " 7", "7.0", "true", "false", "1_000", "٣"]
) | st.lists(st.integers(), max_size=2)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), _json),
    st.sampled_from([str, int, float, Decimal, bool]),
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # fmt: skip
def test_steps_are_the_same_in_python_and_in_postgres(connection, data, kind):
    steps = [
        Cast("a", kind),
        Rename("a", "x"),
        Default("b", {"y": [1, "ü'"]}),
        Rename("c", "a"),
        Remove("b"),
        Default("b", None),
        Cast("x", str),
    ]
    shape: dict[str, str] = {}
    text = json.dumps(data, default=float)
    (read,) = connection.execute("SELECT %s::jsonb::text", [text]).fetchone()
    mine = json.loads(read, parse_float=Decimal)
    for step in steps:
        step.apply(mine)
        step.shape(shape)
    columns = ", ".join(f"({shape[name]})::text" for name in ("a", "b", "x"))
    row = connection.execute(
        f"SELECT {columns} FROM (SELECT %s::jsonb AS data) AS e", [text]
    ).fetchone()
    for name, found in zip(("a", "b", "x"), row, strict=True):
        if found is None:
            assert name not in mine, (name, mine)
        else:
            assert json.loads(found, parse_float=Decimal) == mine[name], (name, found)
