"""A view's query in an engine's SQL, or the reason why there is none."""

from __future__ import annotations

import pytest
import sqlglot
from sqlglot import exp

from headwater.errors import QueryRefused
from headwater.events.relations import COMMON_COLUMNS, Column, Relation
from headwater.stores.clickhouse.recomputing import CLICKHOUSE
from headwater.stores.lake.recomputing import DUCKDB
from headwater.views.recomputation import GroupValue, Recomputation
from headwater.views.sql import EventSource, parse_view_query
from headwater.views.sql.dialect import kind_of
from headwater.views.sql.precedence import misread
from headwater.views.sql.recomputing import RecomputingQuery

PLACED = Relation(
    "shop.placed",
    (
        *COMMON_COLUMNS,
        Column("customer", "text", ""),
        Column("total", "numeric", ""),
        Column("fee", "numeric", ""),
        Column("took", "interval", ""),
    ),
)
SIZES = {("shop.placed", "total"): (30, 20), ("shop.placed", "fee"): (2, 1)}


def asked(output, kind, sql_type, dialect, *, sizes=None, by_bytes=True):
    """The SELECT of one output of a view, as an engine is asked for it."""
    query = parse_view_query(
        f"SELECT {output} AS n FROM shop.placed", name="sales", key=(), sources={"shop.placed": EventSource(PLACED)}
    )  # fmt: skip
    value = GroupValue(kind, query.outputs[0], sql_type)
    wanted = Recomputation(query, [], [value], 100, [7, 9], by_bytes)
    return RecomputingQuery(wanted, dialect, lambda name: f'"{name}"').select(sizes)


def test_the_statement_reads_what_the_view_has_applied():
    text = asked("sum(fee)", "sum", "numeric", DUCKDB, sizes=SIZES)
    assert '"position" <= 100 AND "position" NOT IN (7, 9)' in text
    assert 'CAST("fee" AS DECIMAL(38, 1)) AS hw_c0' in text
    assert text.endswith("GROUP BY hw_t")


@pytest.mark.parametrize("dialect", [DUCKDB, CLICKHOUSE], ids=lambda d: d.engine)
def test_texts_are_put_in_order_only_where_the_database_does_so_by_bytes(dialect):
    for output, kind in (("min(customer)", "min"), ("count(*) FILTER (WHERE customer < 'b')", "count")):  # fmt: skip
        assert asked(output, kind, "text", dialect)
        with pytest.raises(QueryRefused, match="orders texts by a locale") as refused:
            asked(output, kind, "text", dialect, by_bytes=False)
        assert refused.value.hint


def test_clickhouse_overflows_without_a_word_so_what_might_is_refused():
    assert asked("sum(total)", "sum", "numeric", CLICKHOUSE, sizes=SIZES)
    assert asked("sum(total * fee)", "sum", "numeric", CLICKHOUSE, sizes=SIZES)
    for output in (
        "sum(total * total)",
        "max(total * total)",
        "sum(total * fee * fee * fee * fee)",
    ):
        with pytest.raises(QueryRefused, match=r"may have \d+ digits before the point and"):
            asked(output, output[:3], "numeric", CLICKHOUSE, sizes=SIZES)


def test_duckdb_says_when_it_overflows_so_only_its_scale_counts():
    assert asked("sum(total * fee * fee)", "sum", "numeric", DUCKDB, sizes=SIZES)
    with pytest.raises(QueryRefused, match="40 after it, and the engine holds 38"):
        asked("sum(total * total)", "sum", "numeric", DUCKDB, sizes=SIZES)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("max(upper(customer))", r"'upper\(customer\)' \(Upper\) is not computed alike: .* locale"),
        ("count(*) FILTER (WHERE customer NOT ILIKE 'a%')", r"ILike.*locale"),
        ("count(*) FILTER (WHERE total BETWEEN SYMMETRIC 1 AND 2)", "symmetric"),
        ("count(*) FILTER (WHERE occurred_at > '3 May 2026')", "'3 May 2026' is not read as time"),
        ("count(*) FILTER (WHERE total > 1e3)", "without an exponent"),
        ("count(took)", "'took' .* its type has no exact counterpart"),
        ("sum(total / 2)", "quotient"),
        ("sum(total % 2)", "remainder"),
        ("max(date_trunc('decade', occurred_at))", "of units there are"),
        ("max(occurred_at AT TIME ZONE 'Europe/Berlin')", "time zones"),
        ("max(date_part('year', occurred_at))", r"by extract\(\)"),
    ],
)
def test_a_refusal_names_the_expression_and_why(output, said):
    with pytest.raises(QueryRefused, match=said) as refused:
        asked(output, output[:3].replace("cou", "count"), "numeric", DUCKDB)
    assert refused.value.message.startswith("DuckDB does not recompute the view 'sales': ")


def test_clickhouse_has_no_dates_before_1900():
    early = "count(*) FILTER (WHERE occurred_at > '1066-10-14')"
    assert asked(early, "count", "bigint", DUCKDB)
    with pytest.raises(QueryRefused, match="no dates before 1900-01-01"):
        asked(early, "count", "bigint", CLICKHOUSE)


@pytest.mark.parametrize(
    "text",
    ["a + b * c - d", "a = b IS NULL", "NOT a = b AND c OR d", "x LIKE 'a' || 'b'", "a - b - c", "(a + b) * c", "NOT a IN (1, b + 2)"],
)  # fmt: skip
def test_operators_that_both_read_alike_need_no_parentheses(text):
    assert misread(sqlglot.parse_one(text, read="postgres")) is None


def test_a_tree_that_postgres_would_not_have_read_is_found():
    a, b, c = map(exp.column, "abc")
    for tree in (exp.Mul(this=exp.Add(this=a, expression=b), expression=c), exp.Sub(this=a, expression=exp.Sub(this=b, expression=c)),
                 exp.EQ(this=exp.EQ(this=a, expression=b), expression=c), exp.Neg(this=exp.Add(this=a, expression=b))):  # fmt: skip
        assert misread(tree) is tree


@pytest.mark.parametrize(
    ("sql_type", "kind"),
    [("numeric(12,3)", "decimal"), ("character varying(5)", "text"), ("timestamp with time zone", "time"),
     ("timestamp(3) with time zone", None), ("interval", None), ("real", None), ("jsonb", None)],
)  # fmt: skip
def test_types_that_are_translated(sql_type, kind):
    assert kind_of(sql_type) == kind
