"""What the translation of a query needs to know of an engine: how it writes each operation.

An operation that an engine has no words for is refused. What is here by default is written alike everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "integer", "decimal", "float", "boolean", "text", "uuid", "date", "time", "null", "unknown"
]
"""What a value is. A time is with or without a zone, which is UTC; unknown is a text of no type yet."""

NUMBERS: tuple[Kind, ...] = ("integer", "decimal", "float")
"""From the narrowest to the widest."""

KINDS: Mapping[str, Kind] = {
    "smallint": "integer", "integer": "integer", "bigint": "integer", "numeric": "decimal",
    "double precision": "float", "boolean": "boolean", "text": "text", "character varying": "text",
    "uuid": "uuid", "date": "date", "timestamp with time zone": "time",
    "timestamp without time zone": "time",
}  # fmt: skip
"""Postgres's types that are translated."""


def kind_of(sql_type: str) -> Kind | None:
    """The kind of a Postgres type, its limits aside, or None where it is not translated."""
    plain = sql_type.partition("(")[0].strip()
    if sql_type.startswith("timestamp("):
        return None  # rounds
    return KINDS.get(plain)


@dataclass(frozen=True, slots=True)
class Value:
    """An expression in the engine's SQL. ``digits`` before the point and ``scale`` after it are a decimal's at most.

    ``literal`` is the text of a literal. A float with digits is a column: they are those of its values as decimals.
    """

    sql: str
    kind: Kind
    digits: int = 0
    scale: int = 0
    literal: str | None = None


STANDARD: Mapping[str, str] = {
    "add": "({0} + {1})", "subtract": "({0} - {1})", "multiply": "({0} * {1})",
    "divide_floats": "({0} / {1})", "negate": "(- {0})", "abs": "abs({0})",
    "=": "({0} = {1})", "<>": "({0} <> {1})", "<": "({0} < {1})", "<=": "({0} <= {1})",
    ">": "({0} > {1})", ">=": "({0} >= {1})",
    "and": "({0} AND {1})", "or": "({0} OR {1})", "not": "(NOT {0})",
    "is_null": "({0} IS NULL)", "is_not_null": "({0} IS NOT NULL)",
    "is_true": "(CASE WHEN {0} THEN 1 = 1 ELSE 1 = 0 END)",
    "is_false": "(CASE WHEN {0} THEN 1 = 0 WHEN NOT {0} THEN 1 = 1 ELSE 1 = 0 END)",
    "distinct": "(CASE WHEN {0} IS NULL OR {1} IS NULL THEN ({0} IS NULL) <> ({1} IS NULL) ELSE {0} <> {1} END)",
    "concat": "({0} || {1})", "like": "({0} LIKE {1})",
    "count": "count({0})", "sum": "sum({0})", "min": "min({0})", "max": "max({0})",
    "count_distinct": "count(DISTINCT {0})",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dialect:
    """One engine's SQL. ``engine`` is its name for people, ``sqlglot`` the one that sqlglot has for its dialect.

    ``columns`` says how a column becomes a value, ``digits_of`` and ``decimals_of`` how the digits of decimals, and of floats as
    decimals, are counted before the point and after it.
    ``capacity`` is how many digits a decimal has at most; where overflow ``is_noticed``, the engine fails by
    itself, and else nothing is translated that might exceed it. ``refused`` says why the engine has no words for
    an operation that others have.
    """

    engine: str
    sqlglot: str
    capacity: int
    is_noticed: bool
    columns: Mapping[Kind, str]
    digits_of: Mapping[Kind, str]
    decimals_of: Mapping[Kind, str]
    operations: Mapping[str, str]
    refused: Mapping[str, str] = field(default_factory=dict)
    first_date: str = "0001-01-01"
    last_date: str = "9999-12-31"

    def words(self, operation: str) -> str | None:
        """How the operation is written, with {0} and so on for its operands."""
        return self.operations.get(operation, STANDARD.get(operation))
