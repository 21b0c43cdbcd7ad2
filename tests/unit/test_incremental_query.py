"""Which queries an incremental view accepts, and how it refuses the others."""

from __future__ import annotations

import pytest

from headwater.errors import HeadwaterError, ViewDefinitionError
from headwater.events.relations import COMMON_COLUMNS, Column, Relation
from headwater.views.sql import DocumentSource, EventSource, IncrementalQuery, parse_view_query


def _field(name: str, sql_type: str) -> Column:
    return Column(name, sql_type, f"(e.data ->> '{name}')::{sql_type}")


PLACED = Relation(
    "order.placed",
    (
        *COMMON_COLUMNS,
        _field("total", "numeric"),
        _field("customer", "text"),
        _field("quantity", "integer"),
        _field("user", "text"),
        Column("data", "jsonb", "e.data"),
        _field("Ship To", "text"),
    ),
)
REFUNDED = Relation("order.refunded", (*COMMON_COLUMNS, _field("amount", "numeric")))
LINE = Relation("order.line.added", (*COMMON_COLUMNS, _field("sku", "text")))
SOURCES = {
    "order.placed": EventSource(PLACED),
    "order.refunded": EventSource(REFUNDED),
    "order.line.added": EventSource(LINE),
    "orders": DocumentSource("orders", (_field("status", "text"), _field("total", "numeric"))),
}


def parse(sql: str, key: tuple[str, ...] = ()) -> IncrementalQuery:
    return parse_view_query(sql, name="sales", key=key, sources=SOURCES)


def refusal(sql: str, key: tuple[str, ...] = ()) -> ViewDefinitionError:
    with pytest.raises(ViewDefinitionError) as refused:
        parse(sql, key)
    return refused.value


def test_a_daily_view_is_understood() -> None:
    query = parse(
        "SELECT date_trunc('day', occurred_at) AS day, count(*) AS orders, sum(total) AS total, "
        "avg(total) AS mean, count(DISTINCT customer) AS customers "
        "FROM order.placed WHERE total > 0 GROUP BY 1",
        ("day",),
    )
    assert [(output.name, output.kind) for output in query.outputs] == [
        ("day", "key"),
        ("orders", "count"),
        ("total", "sum"),
        ("mean", "avg"),
        ("customers", "count_distinct"),
    ]
    assert query.reads == ("order.placed",)
    assert query.functions == ("date_trunc",)
    assert query.condition == "total > 0"


def test_only_the_columns_used_are_read() -> None:
    query = parse("SELECT sum(total) AS total FROM order.placed WHERE customer = 'a'")
    assert [column.name for column in query.readings[0].columns] == ["total", "customer"]


@pytest.mark.parametrize(
    ("origin", "name", "alias"),
    [
        ("order.placed", "order.placed", "placed"),
        ("order.placed AS p", "order.placed", "p"),
        ("order.placed p", "order.placed", "p"),
        ("ORDER.Placed", "order.placed", "placed"),
        ('"order.placed"', "order.placed", "order.placed"),
        ('"order.placed" AS "P q"', "order.placed", "P q"),
        ("order.line.added", "order.line.added", "added"),
        ("orders", "orders", "orders"),
    ],
)
def test_sources_are_named_like_tables(origin: str, name: str, alias: str) -> None:
    query = parse(f"SELECT count(*) AS n FROM {origin}")
    assert (query.reads, query.readings[0].alias) == ((name,), alias)


@pytest.mark.parametrize(
    "group",
    ["1", "day", "date_trunc('day', occurred_at)", "(date_trunc('day', placed.occurred_at))"],
)
def test_keys_are_grouped_by_ordinal_alias_or_expression(group: str) -> None:
    query = parse(
        f"SELECT date_trunc('day', occurred_at) AS day, count(*) AS n FROM order.placed GROUP BY {group}",
        ("day",),
    )
    assert [key.name for key in query.keys] == ["day"]


def test_an_input_column_wins_over_an_alias_in_group_by() -> None:
    error = refusal(
        "SELECT lower(customer) AS customer, count(*) AS n FROM order.placed GROUP BY customer",
        ("customer",),
    )
    assert "isn't among the outputs" in error.message


@pytest.mark.parametrize(
    ("text", "kind", "argument", "condition"),
    [
        ("count(*)", "count", None, None),
        ("COUNT (*)", "count", None, None),
        ("count(customer)", "count", "customer", None),
        ("count(ALL customer)", "count", "customer", None),
        ("sum(total * 2)", "sum", "total * 2", None),
        ("min(occurred_at)", "min", "occurred_at", None),
        ("max(total - 1)", "max", "total - 1", None),
        ("avg(quantity / 2)", "avg", "quantity / 2", None),
        ("count(DISTINCT lower(customer))", "count_distinct", "lower(customer)", None),
        ("sum(total) FILTER (WHERE customer = 'a')", "sum", "total", "customer = 'a'"),
        ("count(*) FILTER (WHERE total > 0)", "count", None, "total > 0"),
        ("sum(total)::numeric(12, 2)", "sum", "total", None),
        ("(sum(total))::int", "sum", "total", None),
        ("CAST(count(*) AS integer)", "count", None, None),
        ("sum(total) FILTER (WHERE total > 0)::int", "sum", "total", "total > 0"),
    ],
)
def test_aggregates_are_cut_out_as_written(
    text: str, kind: str, argument: str | None, condition: str | None
) -> None:
    (output,) = parse(f"SELECT {text} AS x FROM order.placed").outputs
    assert (output.kind, output.argument, output.condition) == (kind, argument, condition)
    assert output.text == text


SCALARS = [
    "date_trunc('week', occurred_at AT TIME ZONE 'Europe/Berlin')",
    "(occurred_at AT TIME ZONE 'UTC')::date",
    "occurred_at + interval '1 day 2 hours'",
    "occurred_at - INTERVAL '90' MINUTE",
    "data ->> 'a'",
    "data -> 'a' #>> '{b,c}'",
    "data @> '{\"a\": 1}'",
    "data ? 'a'",
    "customer ILIKE '100%'",
    r"customer LIKE 'x\_%' ESCAPE '\'",
    "customer !~ '^a' = true",
    "customer ~* '^a'",
    "CASE WHEN total > 0 THEN 'a' ELSE E'b\\nc' END",
    "COALESCE(customer, 'none')",
    "total BETWEEN 1 AND 2",
    "total NOT IN (1, 2)",
    "NULLIF(customer, '')",
    "extract(dow FROM occurred_at)",
    "quantity / 2",
    "7 / 2",
    "mod(quantity + 1, 3) * 2",
    "-quantity ^ 2",
    "quantity % 7",
    "customer || ' at ' || stream",
    "date_bin('15 minutes', occurred_at, '2001-01-01')",
    "total::numeric(10,2)",
    "customer IS DISTINCT FROM stream",
    "customer IS NOT DISTINCT FROM stream",
    '"Ship To"',
    'placed."user"',
    "placed.user",
    "substring(customer FROM 1 FOR 2)",
    "trim(BOTH 'x' FROM customer)",
    "make_interval(days => quantity)",
    "app.rounded(total)",
    "age(occurred_at, recorded_at)",
    "'today'::text",
    "$$it's$$",
    "greatest(total, 0) /* not -- 50% */ + 1",
    "(quantity, customer)::text",
    "string_to_array(customer, ',')[1]",
    "customer = ANY (ARRAY['a', 'b'])",
]


@pytest.mark.parametrize("text", SCALARS)
def test_an_expression_is_handed_on_as_written(text: str) -> None:
    query = parse(f"SELECT {text} AS k, count(*) AS n FROM order.placed GROUP BY 1", ("k",))
    assert query.outputs[0].text == text
    assert parse(f"SELECT max({text}) AS m FROM order.placed").outputs[0].argument == text
    assert parse(f"SELECT count(*) AS n FROM order.placed WHERE {text}").condition == text


def test_called_functions_are_listed_for_the_database_to_judge() -> None:
    query = parse(
        'SELECT app.Rounded(total::numeric(9, 2)) AS k, max(lower(customer)) AS m, sum("F"(total)) '
        "AS s FROM order.placed WHERE coalesce(customer, '') IN ('a') GROUP BY 1",
        ("k",),
    )
    assert set(query.functions) == {"app.rounded", "lower", "F"}


def test_union_all_of_event_types_is_read_as_one_relation() -> None:
    query = parse(
        "SELECT day, sum(amount) AS amount FROM (SELECT occurred_at::date AS day, total AS amount "
        "FROM order.placed WHERE total > 0 UNION ALL SELECT r.occurred_at::date, -amount "
        "FROM order.refunded AS r) AS u GROUP BY day",
        ("day",),
    )
    assert query.reads == ("order.placed", "order.refunded")
    assert query.derived == "u"
    first, second = query.readings
    assert [p.name for p in second.projections] == ["day", "amount"]
    assert second.projections[1].text == "-amount"
    assert (first.condition, second.condition) == ("total > 0", None)


def test_the_key_keeps_its_declared_order() -> None:
    query = parse(
        "SELECT customer, stream, count(*) AS n FROM order.placed GROUP BY 1, 2",
        ("stream", "customer"),
    )
    assert [key.name for key in query.keys] == ["stream", "customer"]


FROM = " FROM order.placed"
REFUSED = [
    ("SELECT count(*) AS n FROM order.placed, order.refunded", "join", "fold"),
    ("SELECT count(*) AS n FROM order.placed p JOIN order.refunded r USING (stream)", "join", "two views"),
    ("SELECT count(*) AS n FROM order.placed p CROSS JOIN LATERAL (SELECT 1) AS x", "join", "fold"),
    ("SELECT rank() OVER (ORDER BY total) AS r" + FROM, "window", "when reading"),
    ("SELECT sum(total) OVER () AS r" + FROM, "window", "when reading"),
    ("SELECT sum(sum(total)) OVER w AS r FROM order.placed WINDOW w AS ()", "window", "when reading"),
    ("SELECT DISTINCT customer AS c, count(*) AS n FROM order.placed GROUP BY 1", "DISTINCT", "GROUP BY"),
    ("SELECT DISTINCT ON (customer) customer" + FROM, "DISTINCT", "GROUP BY"),
    ("SELECT count(*) AS n FROM order.placed HAVING count(*) > 1", "HAVING", "when reading"),
    ("SELECT count(*) AS n FROM order.placed ORDER BY 1", "ORDER BY", "when reading"),
    ("SELECT count(*) AS n FROM order.placed LIMIT 1", "LIMIT", "when reading"),
    ("SELECT count(*) AS n FROM order.placed FETCH FIRST 1 ROWS ONLY", "LIMIT", "when reading"),
    ("SELECT count(*) AS n FROM order.placed OFFSET 1", "OFFSET", "when reading"),
    ("SELECT count(*) AS n FROM order.placed WHERE total > (SELECT 1)", "subquery", "fold"),
    ("SELECT count(*) AS n FROM order.placed WHERE EXISTS (SELECT 1)", "subquery", "fold"),
    ("SELECT count(*) AS n FROM order.placed WHERE total IN (SELECT 1)", "subquery", "fold"),
    ("SELECT sum((SELECT 1)) AS n" + FROM, "subquery", "fold"),
    ("WITH p AS (SELECT 1) SELECT count(*) AS n FROM p", "WITH", "one SELECT"),
    ("SELECT count(*) AS n FROM order.placed UNION SELECT 1", "UNION without ALL", "UNION ALL"),
    ("SELECT count(*) AS n FROM order.placed INTERSECT SELECT 1", "INTERSECT", "UNION ALL"),
    ("SELECT count(*) AS n FROM order.placed EXCEPT ALL SELECT 1", "EXCEPT", "UNION ALL"),
    ("SELECT count(*) AS n FROM order.placed UNION ALL SELECT 1", "whole results", "FROM (SELECT"),
    ("SELECT count(*) AS n FROM (SELECT total FROM order.placed UNION SELECT amount FROM order.refunded) AS u", "UNION without ALL", "UNION ALL"),
    ("SELECT count(*) AS n FROM (SELECT total FROM order.placed UNION ALL SELECT amount, 1 FROM order.refunded) AS u", "1 and 2 columns", "same columns"),
    ("SELECT count(*) AS n FROM (SELECT total FROM order.placed UNION ALL SELECT total FROM orders) AS u", "either events or one fold", "two views"),
    ("SELECT count(*) AS n FROM (SELECT count(*) AS c FROM order.placed) AS u", "aggregate", "each output"),
    ("SELECT count(*) AS n FROM (SELECT stream FROM order.placed GROUP BY 1) AS u", "GROUP BY", "outer SELECT"),
    ("SELECT count(*) AS n FROM (SELECT total FROM order.placed LIMIT 1) AS u", "LIMIT", "when reading"),
    ("SELECT count(*) AS n FROM (SELECT t FROM (SELECT total AS t FROM order.placed) AS i) AS u", "one relation", "without nesting"),
    ("SELECT count(*) AS n FROM (SELECT total + 1 FROM order.placed) AS u", "name of its own", "AS"),
    ("SELECT count(*) AS n FROM (SELECT tenant AS t FROM order.placed) AS u", "tenant", "Leave"),
    ("SELECT count(*) AS n FROM (VALUES (1)) AS v (a)", "neither an event type", "FROM order.placed"),
    ("SELECT count(*) AS n FROM generate_series(1, 2) AS g", "neither an event type", "FROM order.placed"),
    ("SELECT count(*) AS n FROM ONLY order.placed", "ONLY has no meaning", "Write FROM"),
    ("SELECT count(*) AS n FROM order.placed TABLESAMPLE SYSTEM (10)", "isn't understood", "alias"),
    ("SELECT count(*) AS n FROM order.placed AS p (a, b)", "isn't understood", "alias"),
    ("SELECT count(*) AS n", "no FROM", "event type"),
    ("SELECT unnest(ARRAY[1]) AS u, count(*) AS n FROM order.placed GROUP BY 1", "set of rows", "fold"),
    ("SELECT max(jsonb_array_elements(data)) AS u" + FROM, "set of rows", "fold"),
    ("SELECT array_agg(total) AS a" + FROM, "array_agg", "periodic"),
    ("SELECT string_agg(customer, ',') AS a" + FROM, "string_agg", "fold"),
    ("SELECT bool_and(total > 0) AS a" + FROM, "bool_and", "fold"),
    ("SELECT stddev(total) AS a" + FROM, "stddev", "fold"),
    ("SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY total) AS a" + FROM, "every row of its group", "refresh"),
    ("SELECT sum(DISTINCT total) AS a" + FROM, "sum(DISTINCT", "count(DISTINCT x)"),
    ("SELECT sum(total ORDER BY total) AS a" + FROM, "ORDER BY", "Leave it out"),
    ("SELECT count(DISTINCT total, customer) AS a" + FROM, "exactly one argument", "row value"),
    ("SELECT max(total, quantity) AS a" + FROM, "exactly one argument", "row value"),
    ("SELECT customer, count(*) AS n FROM order.placed GROUP BY ROLLUP (customer)", "ROLLUP", "one view for each"),
    ("SELECT customer, count(*) AS n FROM order.placed GROUP BY CUBE (customer)", "CUBE", "one view for each"),
    ("SELECT customer, count(*) AS n FROM order.placed GROUP BY GROUPING SETS ((customer), ())", "GROUPING SETS", "one view for each"),
    ("SELECT customer, count(*) AS n FROM order.placed GROUP BY ALL", "GROUP BY ALL", "Name"),
    ("SELECT customer, count(*) AS n FROM order.placed GROUP BY DISTINCT customer", "GROUP BY DISTINCT", "Name"),
    ("SELECT sum(total) / count(*) AS a" + FROM, "calculates with aggregates", "when reading"),
    ("SELECT coalesce(sum(total), 0) AS a" + FROM, "calculates with aggregates", "when reading"),
    ("SELECT sum(total)::float::int AS a" + FROM, "calculates with aggregates", "when reading"),
    ("SELECT sum(total) + 1 AS a" + FROM, "calculates with aggregates", "when reading"),
    ("SELECT sum(total)::int + 1 AS a" + FROM, "calculates with aggregates", "when reading"),
    ("SELECT CAST(sum(total) AS int) + 1 AS a" + FROM, "calculates with aggregates", "when reading"),
    ("SELECT -sum(total) AS a" + FROM, "calculates with aggregates", "when reading"),
    ("SELECT count(*) + 1 AS a" + FROM, "calculates with aggregates", "when reading"),
    ("SELECT sum(total) AT TIME ZONE 'UTC' AS a" + FROM, "calculates with aggregates", "when reading"),
    ("SELECT sum(avg(total)) AS a" + FROM, "aggregate", "each output"),
    ("SELECT count(*)" + FROM, "no name", "AS"),
    ("SELECT count(*) AS a, sum(total) AS a" + FROM, "Two outputs", "of its own"),
    ("SELECT customer, count(*) AS n" + FROM, "neither an aggregate nor in GROUP BY", "max(x)"),
    ("SELECT customer, stream, count(*) AS n FROM order.placed GROUP BY 1", "neither an aggregate nor in GROUP BY", "max(x)"),
    ("SELECT customer" + FROM, "one row per event", "GROUP BY"),
    ("SELECT count(*) AS n FROM order.placed GROUP BY customer", "isn't among the outputs", "Select it"),
    ("SELECT count(*) AS n FROM order.placed GROUP BY 1", "is an aggregate", "not aggregates"),
    ("SELECT count(*) AS n FROM order.placed GROUP BY 7", "is no output", "Count"),
    ("SELECT tenant, count(*) AS n FROM order.placed GROUP BY 1", "tenant", "Leave"),
    ("SELECT upper(tenant) AS t, count(*) AS n FROM order.placed GROUP BY 1", "tenant", "Leave"),
    ("SELECT count(*) AS n FROM order.placed GROUP BY tenant", "tenant", "Leave"),
    ("SELECT count(*) AS tenant" + FROM, "tenant", "Leave"),
    ("SELECT max(random()) AS r" + FROM, "moment or the session", "occurred_at"),
    ("SELECT count(*) AS n FROM order.placed WHERE occurred_at > now()", "moment or the session", "occurred_at"),
    ("SELECT max(current_date) AS r" + FROM, "moment or the session", "occurred_at"),
    ("SELECT max(clock_timestamp()) AS r" + FROM, "moment or the session", "occurred_at"),
    ("SELECT max(pg_catalog.now()) AS r" + FROM, "moment or the session", "occurred_at"),
    ("SELECT max(nextval('s')) AS r" + FROM, "moment or the session", "occurred_at"),
    ("SELECT max(current_user::text) AS r" + FROM, "moment or the session", "occurred_at"),
    ("SELECT max(user) AS r" + FROM, "moment or the session", "quotes"),
    ("SELECT max(current_setting('x')) AS r" + FROM, "moment or the session", "occurred_at"),
    ("SELECT count(DISTINCT gen_random_uuid()) AS r" + FROM, "moment or the session", "occurred_at"),
    ("SELECT max(txid_current()) AS r" + FROM, "moment or the session", "occurred_at"),
    ("SELECT max(pg_backend_pid()) AS r" + FROM, "moment or the session", "occurred_at"),
    ("SELECT max(age(occurred_at)) AS r" + FROM, "moment or the session", "occurred_at"),
    ("SELECT count(*) AS n FROM order.placed WHERE occurred_at > 'yesterday'", "moment or the session", "cast"),
    ("SELECT max('now'::timestamptz) AS n" + FROM, "moment or the session", "occurred_at"),
    ("SELECT max(customer::regclass::text) AS n" + FROM, "catalog", "into the event"),
    ('SELECT max(customer COLLATE "C") AS n' + FROM, "COLLATE", "when reading"),
    ("SELECT max(total OPERATOR(pg_catalog.+) 1) AS n" + FROM, "OPERATOR", "plain form"),
    ("SELECT count(*) AS n FROM order.placed; SELECT 1", "more than one statement", "one view for each"),
    ("DELETE FROM order.placed", "a view is a SELECT", "one SELECT"),
    ("INSERT INTO x SELECT 1", "a view is a SELECT", "one SELECT"),
    ("CREATE TABLE x AS SELECT 1", "a view is a SELECT", "one SELECT"),
    ("VALUES (1)", "a view is a SELECT", "one SELECT"),
    ("TABLE order.placed", "a view is a SELECT", "one SELECT"),
    ("", "empty", "SELECT"),
    ("-- nothing", "empty", "SELECT"),
    ("SELECT count(*) AS n FROM order.placed FOR UPDATE", "lock", "Leave"),
    ("SELECT count(*) AS n INTO t FROM order.placed", "INTO", "Leave"),
    ("SELECT count(*) AS n FROM order.placed WHERE total = $1", "parameters", "value itself"),
    ("SELECT count(*) AS n FROM order.placed WHERE total = :x", "parameters", "value itself"),
    ("SELECT count(*) AS n FROM order.placed WHERE total = ?", "parameters", "value itself"),
    ("SELECT count(*) AS n FROM order.placed WHERE total = %s", "parameters", "value itself"),
    ("SELECT count(*) AS n FROM order.placed WHERE total = %(x)s", "parameters", "value itself"),
    ("SELECT count(*) AS n FROM order.plaecd", "no event type or fold", "Did you mean order.placed"),
    ("SELECT sum(totl) AS n" + FROM, "no column 'totl'", "Did you mean total"),
    ("SELECT sum(x.total) AS n" + FROM, "no relation named 'x'", "There are: placed"),
    ("SELECT sum(order.placed.total) AS n" + FROM, "more than one name", "placed.total"),
    ('SELECT sum("Total") AS n' + FROM, "no column 'Total'", "Did you mean total"),
    ("SELECT *" + FROM, "star", "Name the columns"),
    ("SELECT placed.*, count(*) AS n" + FROM, "star", "Name the columns"),
    ("SELECT max(placed.*) AS n" + FROM, "star", "Name the columns"),
    ("SELECT count(*) AS n, FROM order.placed", "empty item", "comma"),
    ("SELECT min(total) AS n FROM orders", "min can't be taken back", "events"),
    ("SELECT max(total) AS n FROM orders", "max can't be taken back", "events"),
    ("SELECT count(DISTINCT status) AS n FROM orders", "count(DISTINCT x) can't be taken back", "events"),
    ("SELECT count(*) AS " + "n" * 64 + FROM, "63 bytes", "shorter"),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "reason", "way_out"), REFUSED)
def test_what_batches_cannot_keep_is_refused(sql: str, reason: str, way_out: str) -> None:
    error = refusal(sql)
    assert reason.lower() in error.message.lower()
    assert error.hint
    assert way_out.lower() in error.hint.lower()
    assert error.message.startswith("View 'sales': ")


@pytest.mark.parametrize(
    ("sql", "place"),
    [
        ("SELECT count(*) AS n\nFROM order.placed\nWHERE", "line 3, column 5"),
        ("selct a from order.placed", "line 1, column 12"),
    ],
)
def test_a_syntax_error_names_its_place(sql: str, place: str) -> None:
    error = refusal(sql)
    assert "syntax error" in error.message
    assert place in error.message


def test_an_unfinished_text_is_a_syntax_error() -> None:
    assert (
        "syntax error"
        in refusal("SELECT count(*) AS n FROM order.placed WHERE customer = 'a").message
    )


@pytest.mark.parametrize("key", [(), ("other",), ("customer", "n"), ("customer", "customer")])
def test_the_key_must_be_the_grouped_outputs(key: tuple[str, ...]) -> None:
    error = refusal("SELECT customer, count(*) AS n FROM order.placed GROUP BY 1", key)
    assert "groups by ('customer',)" in error.message
    assert "tenant is implied" in (error.hint or "")


def test_the_error_is_one_of_headwaters() -> None:
    assert issubclass(ViewDefinitionError, HeadwaterError)
    assert ViewDefinitionError.code == "view_definition"
    assert ViewDefinitionError().message
