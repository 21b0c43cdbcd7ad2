"""SQL views recomputed over a lake by DuckDB: its words for what Postgres computes, where both compute alike.

Integers are HUGEINT, so that what a row of Postgres holds never overflows; decimals are DECIMAL(38), of as many
decimals as the values have, and overflow is an error. Times are TIMESTAMP in UTC.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from headwater.events import Column
from headwater.stores.lake.query import Session
from headwater.views.batches import Queryable
from headwater.views.recomputation import Recomputation, Recomputed
from headwater.views.sql.dialect import Dialect
from headwater.views.sql.recomputing import RecomputingQuery, Sizes
from headwater.views.storage import Place

DUCKDB = Dialect(
    engine="DuckDB",
    sqlglot="duckdb",
    capacity=38,
    is_noticed=True,
    columns={
        "integer": "CAST({0} AS HUGEINT)", "decimal": "CAST({0} AS DECIMAL(38, {scale}))",
        "float": "{0}", "boolean": "{0}", "text": "{0}", "uuid": "{0}", "date": "{0}",
        "time": "CAST({0} AS TIMESTAMP)",
    },
    digits_of={
        "decimal": "length(ltrim(split_part({0}, '.', 1), '-0'))",
        "float": "CASE WHEN {0} = 0 THEN 1 ELSE greatest(CAST(floor(log10(abs({0}))) AS BIGINT) + 2, 1) END",
    },
    decimals_of={
        "decimal": "length(rtrim(split_part({0}, '.', 2), '0'))",
        "float": "CASE WHEN contains(printf('%.15g', {0}), 'e') THEN greatest(CAST(ceil(15 - log10(abs({0}))) AS BIGINT), 0)"
                 " ELSE length(split_part(printf('%.15g', {0}), '.', 2)) END",
    },
    operations={
        "integer": "CAST({0} AS HUGEINT)", "decimal_literal": "CAST('{0}' AS DECIMAL(38, {scale}))",
        "float_literal": "CAST('{0}' AS DOUBLE)",
        "date_literal": "DATE '{0}'", "time_literal": "TIMESTAMP '{0}'",
        "decimal": "CAST({0} AS DECIMAL(38, {scale}))",
        "integer_to_decimal": "CAST({0} AS DECIMAL(38, 0))", "integer_to_float": "CAST({0} AS DOUBLE)",
        "decimal_to_float": "CAST(CAST({0} AS VARCHAR) AS DOUBLE)",
        "float_to_decimal": "CAST(printf('%.15g', {0}) AS DECIMAL(38, {scale}))",
        "to_integer": "CAST({0} AS HUGEINT)", "date_to_time": "CAST({0} AS TIMESTAMP)",
        "time_to_date": "CAST({0} AS DATE)",
        "integer_to_text": "CAST({0} AS VARCHAR)", "date_to_text": "CAST({0} AS VARCHAR)",
        "boolean_to_text": "CAST({0} AS VARCHAR)", "uuid_to_text": "{0}",
        "divide_integers": "({0} // nullif({1}, 0))", "modulo": "({0} % nullif({1}, 0))",
        "round": "CAST({0} AS DECIMAL(38, {scale}))", "ceil": "ceil({0})", "floor": "floor({0})",
        "trunc": "trunc({0})",
        "length": "length({0})", "substring": "substring({0}, {1}, {2})",
        "substring_from": "substring({0}, {1})", "replace": "replace({0}, {1}, {2})", "trim": "trim({0}, ' ')",
        "truncate": "CAST(date_trunc('{unit}', {0}) AS TIMESTAMP)", "extract": "extract({unit} FROM {0})",
        "first": "arg_min({0}, {1})", "last": "arg_max({0}, {1})",
        "moment_and_position": "(CAST(epoch_us({0}) AS HUGEINT) * 9223372036854775808 + {1})",
        "output": "CAST({0} AS VARCHAR)",
    },
)  # fmt: skip


_HINT = (
    "It holds 38 digits, and takes 1 GB of memory at most. Verify the view against the log, without --by, or "
    "recompute it by ClickHouse."
)


def recomputed(
    rows: Queryable, place: Place, columns: Mapping[str, Sequence[Column]], wanted: Recomputation
) -> Recomputed:
    """See Recomputes."""
    query = RecomputingQuery(wanted, DUCKDB, lambda name: f'"{name}"')
    query.select()  # tells what is refused

    async def run() -> tuple[int, bytes]:
        position, files = await rows.files(place)
        if position < wanted.upto:
            return position, b""
        tables = {
            name: rows.table(place, [f for f in files if f.type == name], columns[name], None)
            for name in wanted.query.reads
        }
        said = f"DuckDB does not recompute the view {wanted.query.name!r}"
        async with Session(tables, said, _HINT) as session:
            sizes: Sizes = {}
            if (measuring := query.measure()) is not None:
                found = (await session.table(measuring)).to_pydict().values()
                sizes = {(t, c): (d or 0, s or 0) for t, c, d, s in zip(*found, strict=True)}
            return position, _csv(await session.table(query.select(sizes)))

    return run


def _csv(table: Any) -> bytes:
    """Texts, all quoted, and NULL empty."""
    from pyarrow import csv

    out = io.BytesIO()
    csv.write_csv(table, out, csv.WriteOptions(include_header=False))
    return out.getvalue()
