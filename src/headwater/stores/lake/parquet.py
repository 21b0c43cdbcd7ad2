"""CSV from Postgres as Arrow and Parquet. With engine.py the only importer of ``pyarrow``."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pyarrow import csv
from pyarrow import parquet as pq

from headwater.events import Column
from headwater.views.batches import Part

_TYPES = {
    "bigint": pa.int64(),
    "integer": pa.int32(),
    "double precision": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
}
_TIME = pa.timestamp("us", tz="UTC")


def table_of(part: Part) -> Any:
    """A part's rows as a table. Exact numbers, ids and nested values are text."""
    names = [column.name for column in part.columns]
    schema = schema_of(part.columns)
    if not part.data:
        return schema.empty_table()
    read = csv.read_csv(
        io.BytesIO(part.data),
        read_options=csv.ReadOptions(column_names=names, block_size=max(len(part.data), 1 << 20)),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types={column.name: _read_as(column) for column in part.columns},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    return read.cast(schema)


def schema_of(columns: Sequence[Column]) -> Any:
    """What a file of these columns holds."""
    return pa.schema([(column.name, _final(column)) for column in columns])


def parquet_of(table: Any) -> bytes:
    """A table as one Parquet file."""
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", write_statistics=True)
    return out.getvalue()


def read(data: bytes) -> Any:
    """A Parquet file's table."""
    return pq.read_table(io.BytesIO(data))


def differing(data: bytes, part: Part) -> list[int] | None:
    """The positions at which a file and a part differ; None where the rows do not tell theirs."""
    stored, expected = read(data), table_of(part)
    if stored.equals(expected):
        return []
    names = [column.name for column in part.columns if column.expression == "e.position"]
    if not names or stored.schema != expected.schema:
        return None
    sides: list[Counter[tuple[int, str]]] = [
        Counter((row[names[0]], repr(row)) for row in table.to_pylist())
        for table in (stored, expected)
    ]
    return sorted({row[0] for row in (sides[0] - sides[1]) + (sides[1] - sides[0])})


def merged(files: Sequence[bytes]) -> tuple[int, bytes]:
    """Files' rows, in their order, as one: how many, and the file."""
    table = pa.concat_tables([read(data) for data in files]).combine_chunks()
    return table.num_rows, parquet_of(table)


def _read_as(column: Column) -> Any:
    if column.sql_type == "timestamp with time zone":
        return pa.int64()
    return _TYPES.get(column.sql_type, pa.string())


def _final(column: Column) -> Any:
    return _TIME if column.sql_type == "timestamp with time zone" else _read_as(column)


__all__: Sequence[str] = ["differing", "merged", "parquet_of", "read", "schema_of", "table_of"]
