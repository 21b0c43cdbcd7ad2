"""Relations, queries and random data that the tests of SQL views share."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import dataclass

from psycopg import sql

from headwater.events.relations import COMMON_COLUMNS, Column, Relation
from headwater.views.sql import DocumentSource, EventSource

SETUP = """
CREATE SCHEMA headwater; CREATE SCHEMA headwater_views; CREATE SCHEMA shop;
CREATE TABLE headwater.events (
    position bigint PRIMARY KEY, tenant text NOT NULL, stream text, version int, type text,
    schema_version int, id uuid, recorded_at timestamptz, occurred_at timestamptz, data jsonb,
    metadata jsonb, keys text[]);
GRANT USAGE ON SCHEMA headwater, headwater_views, shop
    TO headwater_app, headwater_relay, headwater_operator;
GRANT SELECT ON headwater.events TO headwater_relay;
CREATE FUNCTION shop.rounded(numeric) RETURNS numeric IMMUTABLE LANGUAGE sql RETURN round($1);
CREATE FUNCTION shop.fickle(numeric) RETURNS numeric VOLATILE LANGUAGE sql RETURN $1;
CREATE TABLE shop.documents (tenant text, key text, data jsonb, PRIMARY KEY (tenant, key));
CREATE TABLE shop.changes (after_position bigint, tenant text, key text, old jsonb, new jsonb);
GRANT SELECT ON shop.documents, shop.changes TO headwater_relay;
"""


def field(name: str, sql_type: str, **named: str) -> Column:
    return Column(named.get("column", name), sql_type, f"(e.data ->> '{name}')::{sql_type}")


PLACED = Relation(
    "shop.placed",
    (
        *COMMON_COLUMNS,
        field("total", "numeric"),
        field("customer", "text"),
        field("quantity", "integer"),
        field("big", "bigint"),
        field("weight", "double precision"),
        field("light", "real"),
        field("took", "interval"),
        field("customer", "text", column='Buyer "x" 100%'),
        Column("data", "jsonb", "e.data"),
    ),
)
REFUNDED = Relation("shop.refunded", (*COMMON_COLUMNS, field("amount", "numeric")))
ORDERS = DocumentSource(
    "orders",
    (
        Column("key", "text", "e.key"),
        field("status", "text"),
        field("total", "numeric"),
        field("took", "interval"),
    ),
)
SOURCES = {
    "shop.placed": EventSource(PLACED),
    "shop.refunded": EventSource(REFUNDED),
    "orders": ORDERS,
}


def readable(relation: Relation) -> sql.Composed:
    """The relation as a table of one tenant, so that the user's SQL runs as it is written."""
    columns = sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(sql.SQL(column.expression), sql.Identifier(column.name))
        for column in relation.columns
    )
    return sql.SQL(
        "CREATE VIEW {} AS SELECT {} FROM headwater.events AS e "
        "WHERE e.type = {} AND e.tenant = current_setting('test.tenant')"
    ).format(sql.Identifier(*relation.name.split(".")), columns, sql.Literal(relation.name))


TENANTS = ("a", "b", "it's 100%")


@dataclass(frozen=True)
class Case:
    sql: str
    key: tuple[str, ...] = ()
    tolerance: float | None = None


CASES = {
    "daily": Case(
        "SELECT date_trunc('day', occurred_at) AS day, count(*) AS orders, sum(total) AS total, "
        "avg(total) AS mean, count(DISTINCT customer) AS customers "
        "FROM shop.placed WHERE total > 0 GROUP BY 1",
        ("day",),
    ),
    "null keys": Case(
        "SELECT customer, quantity % 3 AS third, count(*) AS n, count(total) AS totals, "
        "sum(total) AS total, min(total) AS least, max(occurred_at) AS latest, avg(quantity) AS q, "
        "avg(big) AS big_mean, sum(big) AS big, avg(took) AS took, sum(took) AS all_took, "
        "max(customer) AS c, avg(total)::numeric(12, 3) AS rounded, sum(quantity)::int AS whole "
        "FROM shop.placed GROUP BY 1, 2",
        ("third", "customer"),
    ),
    "no keys": Case(
        "SELECT count(*) AS n, sum(total) AS total, count(DISTINCT quantity) AS quantities, "
        "count(DISTINCT lower(customer)) AS customers, min(customer) AS first FROM shop.placed"
    ),
    "filters": Case(
        "SELECT stream, count(*) FILTER (WHERE total > 50) AS large, "
        "sum(total) FILTER (WHERE customer = 'c1') AS c1, avg(total) FILTER (WHERE total < 0) AS neg, "
        "min(total) FILTER (WHERE customer IS NULL) AS anonymous, "
        "count(DISTINCT customer) FILTER (WHERE quantity > 2) AS keen, "
        "count(*) FILTER (WHERE quantity > 2) AS often, "
        "count(DISTINCT quantity) AS quantities, sum(total + 1)::numeric(20, 1) AS more "
        "FROM shop.placed AS p WHERE p.quantity IS NOT NULL GROUP BY stream",
        ("stream",),
    ),
    "all null": Case(
        "SELECT customer, sum(nullif(total, total)) AS nothing, avg(nullif(total, total)) AS mean, "
        "max(nullif(total, total)) AS most, count(DISTINCT nullif(customer, customer)) AS none "
        "FROM shop.placed GROUP BY customer",
        ("customer",),
    ),
    "union all": Case(
        "SELECT day, kind, sum(amount) AS amount, count(*) AS n, count(DISTINCT amount) AS amounts "
        "FROM (SELECT occurred_at::date AS day, total AS amount, 'placed' AS kind FROM shop.placed "
        "WHERE total > 0 UNION ALL SELECT r.occurred_at::date, -r.amount, 'refunded' "
        "FROM shop.refunded AS r WHERE r.amount <> 0) AS u GROUP BY day, kind",
        ("kind", "day"),
    ),
    "two sources": Case(
        "SELECT stream, sum(plus) AS plus, sum(minus) AS minus FROM (SELECT stream, total AS plus, "
        "0 AS minus FROM shop.placed UNION ALL SELECT stream, 0, amount FROM shop.refunded) AS u "
        "WHERE stream LIKE '%1' OR stream LIKE '%2' GROUP BY 1",
        ("stream",),
    ),
    "odd names": Case(
        'SELECT "Buyer ""x"" 100%" AS "Key 100% ""q""", count(*) AS "select", '
        'sum(quantity) AS "Sum%s", count(DISTINCT total) AS "{d}" '
        'FROM shop.placed AS "P 1%" WHERE "P 1%".customer LIKE \'c%\' GROUP BY 1',
        ('Key 100% "q"',),
    ),
    "only keys": Case(
        "SELECT customer, quantity FROM shop.placed GROUP BY 1, 2", ("customer", "quantity")
    ),
    "expressions": Case(
        "SELECT extract(dow FROM occurred_at AT TIME ZONE 'Europe/Berlin') AS dow, "
        "-quantity ^ 2 AS power, quantity / 2 AS half, customer !~ '^c1' = true AS other, "
        "CASE WHEN total BETWEEN 10 AND 20 THEN E'x\\ny' ELSE coalesce(customer, '%') END AS band, "
        "date_bin('15 minutes', occurred_at, '2001-01-01') AS bin, "
        "data ->> 'customer' || '-' || 'x' AS joined, to_char(occurred_at, 'IW') AS week, "
        "sum(shop.rounded(total)) AS rounded, count(*) FILTER (WHERE data ? 'total') AS has, "
        "sum(quantity / 2) AS halves, count(*) FILTER (WHERE customer ILIKE 'C%') AS liked, "
        "max(occurred_at + interval '1 month') AS later, count(nullif(quantity, 1)) AS others "
        "FROM shop.placed WHERE quantity NOT IN (1, 4) -- not 'these'\n"
        "GROUP BY 1, 2, 3, 4, 5, 6, 7, week",
        ("dow", "power", "half", "other", "band", "bin", "joined", "week"),
    ),
    "floats": Case(
        "SELECT customer, sum(weight) AS weight, avg(weight) AS mean, avg(light) AS light, "
        "max(weight) AS most, count(*) AS n FROM shop.placed GROUP BY 1",
        ("customer",),
        tolerance=1e-4,
    ),
}


def random_events(chosen: random.Random, count: int) -> list[tuple]:
    """Random events with gaps in their positions and NULLs everywhere."""
    events, position = [], 0
    for _ in range(count):
        position += chosen.choice([1, 1, 1, 7])
        maybe = lambda value: None if chosen.random() < 0.25 else value  # noqa: E731
        data = {
            "total": maybe(str(chosen.randint(-2000, 10_000) / 100)),
            "customer": maybe(f"c{chosen.randint(1, 5)}"),
            "quantity": maybe(chosen.randint(1, 6)),
            "big": maybe(chosen.randint(-(2**40), 2**40)),
            "weight": maybe(chosen.random() * 1000),
            "light": maybe(chosen.random()),
            "took": maybe(f"{chosen.randint(1, 90)} minutes"),
            "amount": maybe(str(chosen.randint(0, 30))),
        }
        kind = chosen.choice(["shop.placed", "shop.placed", "shop.refunded", "shop.other"])
        day, minute = chosen.randint(1, 5), chosen.randint(0, 59)
        events.append(
            (position, chosen.choice(TENANTS), f"order/{chosen.randint(1, 12)}", kind,
             f"2026-03-{day:02} 23:{minute:02}:00+00", json.dumps(data))
        )  # fmt: skip
    return events


DOCUMENT_CASES = {
    "by status": Case(
        "SELECT status, count(*) AS n, count(total) AS totals, sum(total) AS total, "
        "avg(total) AS mean, sum(total) FILTER (WHERE total > 20) AS large, "
        "count(*) FILTER (WHERE total > 20) AS larger, avg(took) AS took "
        "FROM orders GROUP BY status",
        ("status",),
    ),
    "total": Case("SELECT sum(total) AS total, count(*) AS n FROM orders"),
    "thirds": Case("SELECT status, avg(total / 3) AS third FROM orders GROUP BY 1", ("status",)),
    "derived": Case(
        "SELECT s, count(*) AS n FROM (SELECT status AS s FROM orders WHERE total > 10 "
        "UNION ALL SELECT 'all' FROM orders) AS u GROUP BY s",
        ("s",),
    ),
}


def random_document(chosen: random.Random) -> dict | None:
    if chosen.random() < 0.4:
        return None
    return {
        "status": chosen.choice(["new", "open", None]),
        "total": chosen.choice([None, None, str(chosen.randint(0, 5000) / 100)]),
        "took": chosen.choice([None, f"{chosen.randint(1, 99)} seconds"]),
    }


async def write_events(connection, events: list[tuple]) -> None:
    async with connection.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO headwater.events (position, tenant, stream, type, occurred_at, data) "
            "VALUES (%s, %s, %s, %s, %s, %s)",
            events,
        )


def random_batches(chosen: random.Random, end: int) -> list[tuple[int, int]]:
    cuts = sorted({0, end, *(chosen.randint(0, end) for _ in range(chosen.randint(0, 12)))})
    return list(itertools.pairwise(cuts))


async def change_document(connection, documents: dict, position: int, place: tuple, new) -> None:
    dumped = lambda value: None if value is None else json.dumps(value)  # noqa: E731
    await connection.execute(
        "INSERT INTO shop.changes VALUES (%s, %s, %s, %s, %s)",
        [position, *place, dumped(documents.get(place)), dumped(new)],
    )
    await connection.execute("DELETE FROM shop.documents WHERE (tenant, key) = (%s, %s)", place)
    documents.pop(place, None)
    if new is not None:
        await connection.execute(
            "INSERT INTO shop.documents VALUES (%s, %s, %s)", [*place, dumped(new)]
        )
        documents[place] = new
