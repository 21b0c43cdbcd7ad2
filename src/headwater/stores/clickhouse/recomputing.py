"""SQL views recomputed over a feed in ClickHouse: its words for what Postgres computes, where both compute alike.

ClickHouse's wide numbers overflow without a word. Integers are Int128, so that what a row of Postgres holds never
does; of decimals nothing is translated that might exceed 76 digits, by how many digits the values have and how many rows there may be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from headwater.stores.clickhouse.columns import LIMITS
from headwater.stores.clickhouse.text import statement
from headwater.views.recomputation import Recomputation, Recomputed
from headwater.views.sql.dialect import Dialect
from headwater.views.sql.recomputing import RecomputingQuery, Sizes
from headwater.views.storage import Place

if TYPE_CHECKING:
    from headwater.stores.clickhouse.engine import ClickHouseEngine

_INTEGER = "CAST({0} AS Nullable(Int128))"
_DECIMAL = "CAST({0} AS Nullable(Decimal(76, {scale})))"
_TIME = "CAST({0} AS Nullable(DateTime64(6, 'UTC')))"
_DATE = "CAST({0} AS Nullable(Date32))"
_TEXT = "CAST({0} AS Nullable(String))"
_INEXACT = "ClickHouse's float is not the one next to the decimal"

CLICKHOUSE = Dialect(
    engine="ClickHouse",
    sqlglot="clickhouse",
    capacity=76,
    is_noticed=False,
    columns={
        "integer": _INTEGER, "decimal": _DECIMAL, "float": "CAST({0} AS Nullable(Float64))",
        "boolean": "CAST({0} AS Nullable(Bool))", "text": _TEXT, "uuid": _TEXT, "date": _DATE, "time": _TIME,
    },
    digits_of={
        "decimal": "length(trimLeft(splitByChar('.', ifNull(toString({0}), ''))[1], '-0'))",
        "float": "if(ifNull({0}, 0) = 0, 1, greatest(toInt64(floor(log10(abs(ifNull({0}, 1))))) + 2, 1))",
    },
    decimals_of={
        "decimal": "length(splitByChar('.', ifNull(toString({0}), ''))[2])",
        "float": "if(position(printf('%.15g', ifNull({0}, 0)), 'e') > 0, greatest(toInt64(ceil(15 - log10(abs(ifNull({0}, 1))))), 0),"
                 " toInt64(length(splitByChar('.', printf('%.15g', ifNull({0}, 0)))[2])))",
    },
    operations={
        "integer": _INTEGER, "decimal_literal": "CAST('{0}' AS Nullable(Decimal(76, {scale})))",
        "float_literal": "CAST({0} AS Nullable(Float64))",
        "date_literal": "CAST('{0}' AS Nullable(Date32))",
        "time_literal": "CAST('{0}' AS Nullable(DateTime64(6, 'UTC')))",
        "decimal": _DECIMAL,
        "integer_to_decimal": "CAST(CAST({0} AS Nullable(Int64)) AS Nullable(Decimal(76, 0)))",
        "integer_to_float": "CAST(CAST({0} AS Nullable(Int64)) AS Nullable(Float64))",
        "float_to_decimal": "CAST(printf('%.15g', {0}) AS Nullable(Decimal(76, {scale})))",
        "to_integer": _INTEGER, "date_to_time": _TIME, "time_to_date": _DATE,
        "integer_to_text": _TEXT, "date_to_text": _TEXT, "uuid_to_text": "{0}",
        "boolean_to_text": "(CASE WHEN {0} THEN 'true' WHEN NOT {0} THEN 'false' END)",
        "divide_integers": "intDiv({0}, nullif({1}, 0))", "modulo": "({0} % nullif({1}, 0))",
        "round": "CAST(round({0}, {scale}) AS Nullable(Decimal(76, {scale})))",
        "ceil": "CAST(ceil({0}) AS Nullable(Decimal(76, 0)))",
        "floor": "CAST(floor({0}) AS Nullable(Decimal(76, 0)))",
        "trunc": "CAST(trunc({0}) AS Nullable(Decimal(76, 0)))",
        "length": "CAST(lengthUTF8({0}) AS Nullable(Int128))",
        "substring": "substringUTF8({0}, {1}, {2})", "substring_from": "substringUTF8({0}, {1})",
        "replace": "replaceAll({0}, {1}, {2})", "trim": "trimBoth({0})",
        "truncate": "CAST(dateTrunc('{unit}', {0}) AS Nullable(DateTime64(6, 'UTC')))",
        "extract_minute": "toMinute({0})", "extract_hour": "toHour({0})",
        "extract_day": "toDayOfMonth({0})", "extract_month": "toMonth({0})",
        "extract_quarter": "toQuarter({0})", "extract_year": "toYear({0})",
        "extract_doy": "toDayOfYear({0})", "extract_week": "toISOWeek({0})",
        "extract_isodow": "toDayOfWeek({0})", "extract_dow": "(toDayOfWeek({0}) % 7)",
        "first": "argMin({0}, {1})", "last": "argMax({0}, {1})", "count_distinct": "uniqExact({0})",
        "moment_and_position": "(toInt128(toUnixTimestamp64Micro({0})) * toInt128('9223372036854775808') + {1})",
    },
    refused={"decimal_to_float": _INEXACT},
    first_date=LIMITS.first_date,
    last_date=LIMITS.last_date,
)  # fmt: skip


class Rows(Protocol):
    """A feed's rows in ClickHouse."""

    async def position(self, place: Place) -> int:
        """The checkpoint's position."""
        ...

    def table(self, place: Place, type_name: str) -> str:
        """The table of an event type."""
        ...


def recomputed(
    engine: ClickHouseEngine, rows: Rows, place: Place, wanted: Recomputation
) -> Recomputed:
    """See Recomputes."""
    query = RecomputingQuery(wanted, CLICKHOUSE, lambda type_name: rows.table(place, type_name))
    query.select()  # tells what is refused

    async def run() -> tuple[int, bytes]:
        position = await rows.position(place)
        if position < wanted.upto:
            return position, b""
        sizes: Sizes = {}
        if (measuring := query.measure()) is not None:
            found = await engine.query(measuring)
            sizes = {(kind, name): (digits, scale) for kind, name, digits, scale in found}
        reading = ", select_sequential_consistency = 1" if engine.store.cluster else ""
        text = statement("rows.recompute", select=query.select(sizes), reading=reading)
        return position, await engine.raw(text)

    return run


__all__: Sequence[str] = ["CLICKHOUSE", "recomputed"]
