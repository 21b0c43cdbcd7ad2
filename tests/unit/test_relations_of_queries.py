"""Event types in a query's text."""

from __future__ import annotations

import pytest

from headwater.views.sql.relations import quote_relations

TYPES = {"order.placed", "a.b.c"}


@pytest.mark.parametrize(
    ("sql", "written"),
    [
        ("SELECT 1 FROM order.placed", 'SELECT 1 FROM "order.placed" AS "placed"'),
        ('SELECT 1 FROM "order"."placed" p', 'SELECT 1 FROM "order.placed" p'),
        ("SELECT 1 FROM Order . Placed AS p", 'SELECT 1 FROM "order.placed" AS p'),
        (
            "SELECT x FROM a.b.c JOIN order.placed USING (y) WHERE z",
            'SELECT x FROM "a.b.c" AS "c" JOIN "order.placed" AS "placed" USING (y) WHERE z',
        ),
        ("SELECT 'FROM order.placed' -- FROM order.placed", None),
        ("SELECT order.placed FROM other", None),
        ("SELECT a IS DISTINCT FROM b", None),
        ("SELECT 1 FROM", None),
    ],
)
def test_types_are_quoted_where_tables_are_read(sql, written):
    assert quote_relations(sql, TYPES) == (written or sql)
