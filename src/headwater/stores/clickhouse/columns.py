"""Postgres's types as ClickHouse's: how a column arrives in CSV, and as what it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headwater.errors import ViewDefinitionError
from headwater.events import Column
from headwater.stores.clickhouse.text import listed, literal, quoted
from headwater.views.batches import Limits

LIMITS = Limits(digits=38, decimals=38, first_date="1900-01-01", last_date="2299-12-31")
"""What Decimal(76, 38), Date32 and DateTime64(6) hold in every version that is supported."""

DECIMAL = "Decimal(76, 38)"
TIME = "DateTime64(6, 'UTC')"
_TYPES = {
    "bigint": "Int64",
    "integer": "Int32",
    "smallint": "Int16",
    "double precision": "Float64",
    "real": "Float64",
    "boolean": "Bool",
    "numeric": DECIMAL,
    "date": "Date32",
    "timestamp with time zone": TIME,
    "timestamp without time zone": TIME,
    "uuid": "UUID",
    "text": "String",
    "character varying": "String",
    "jsonb": "String",
}
_ALWAYS = {"e.position", "e.tenant", "e.stream", "e.version", "e.type", "e.id", "e.recorded_at", "e.schema_version", "e.metadata"}  # fmt: skip
_FEW_VALUES = {"e.tenant", "e.type"}
_TIMES = ("timestamp with time zone", "timestamp without time zone")


@dataclass(frozen=True, slots=True)
class Kept:
    """One column as it is kept."""

    name: str
    type: str
    arrives: str
    value: str


def base_type(sql_type: str) -> str:
    """The type of values, NULL aside. Raises ViewDefinitionError for one that has no counterpart."""
    plain = sql_type.partition("(")[0].strip() if not sql_type.startswith("timestamp") else sql_type
    if sql_type.startswith("timestamp("):
        plain = f"timestamp {sql_type.partition(') ')[2]}"
    if (found := _TYPES.get(plain)) is None:
        raise ViewDefinitionError(
            f"ClickHouse keeps no values of the type {sql_type}.",
            hint="Cast to text, numeric, bigint, double precision, boolean, date, timestamptz or uuid.",
        )
    return found


def kept(column: Column) -> Kept:
    """A column of a feed. Fields are jsonb as text where they are nested."""
    name, plain = quoted(column.name), base_type(column.sql_type)
    is_time = column.sql_type in _TIMES
    arriving = "Int64" if is_time else plain
    if column.expression == "e.position":
        plain = arriving = "UInt64"
    wrapped, arrives = f"Nullable({plain})", f"Nullable({arriving})"
    if column.expression in _FEW_VALUES:
        wrapped, arrives = f"LowCardinality({plain})", arriving
    elif column.expression in _ALWAYS:
        wrapped, arrives = plain, arriving
    value = f"fromUnixTimestamp64Micro({name}, 'UTC')" if is_time else name
    return Kept(column.name, wrapped, arrives, value)


def structure(columns: Sequence[Kept]) -> str:
    """The columns as they arrive, for input()."""
    return literal(listed(f"{quoted(c.name)} {c.arrives}" for c in columns))
