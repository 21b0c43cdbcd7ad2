"""SQL over a lake, by DuckDB within this process. The only importer of ``duckdb``.

DuckDB is handed Arrow datasets and opens nothing itself: its access to files and networks is off before it
sees the user's text, its settings are locked, and only one SELECT is run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headwater.errors import ExtraMissing, QueryRefused
from headwater.views.sql.relations import quote_relations, words

_SETTINGS = (
    "SET temp_directory = ''",
    "SET memory_limit = '1GB'",
    "SET TimeZone = 'UTC'",
    "SET python_enable_replacements = false",
    "SET autoload_known_extensions = false",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)
_REFUSED = frozenset({
    "python_arrow_scan", "pandas_scan", "python_map_function", "arrow_scan", "arrow_scan_dumb",
    "query", "query_table",
})  # fmt: skip
"""Functions that take addresses in memory, or other queries as text."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows of a query; ``more`` says that there are others beyond the limit."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    more: bool


async def answer(sql: str, tables: Mapping[str, Any], limit: int) -> Answer:
    """The first rows of a SELECT over datasets by event type. Raises ExtraMissing and QueryRefused."""
    try:
        import duckdb
    except ImportError as error:
        raise ExtraMissing(
            "A query needs the package duckdb.", hint="pip install 'headwater[query]'"
        ) from error
    text = quote_relations(sql, tables.keys())
    if refused := sorted(_REFUSED & words(sql)):
        raise QueryRefused(f"A query may not use {refused[0]}.")
    connection = duckdb.connect(":memory:")
    try:
        for name, dataset in tables.items():
            connection.register(name, dataset)
        for setting in _SETTINGS:
            connection.execute(setting)
        return await asyncio.to_thread(_run, connection, text, limit)
    except asyncio.CancelledError:
        connection.interrupt()
        raise
    except duckdb.Error as error:
        raise QueryRefused(
            f"The query fails: {error}",
            hint=f"The tables are {', '.join(sorted(tables)) or 'none'}.",
        ) from error
    finally:
        connection.close()


def _run(connection: Any, text: str, limit: int) -> Answer:
    statements = connection.extract_statements(text)
    if [statement.type.name for statement in statements] != ["SELECT"]:
        raise QueryRefused("A query is one SELECT.", hint="Nothing else is run over a lake.")
    result = connection.execute(statements[0])
    rows = result.fetchmany(limit + 1)
    columns = [column[0] for column in result.description]
    return Answer(columns, rows[:limit], len(rows) > limit)
