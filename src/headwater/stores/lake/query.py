"""SQL over a lake, by DuckDB within this process. The only importer of ``duckdb``.

DuckDB is handed Arrow datasets and opens nothing itself: its access to files and networks is off before it
sees the user's text, its settings are locked, and only one SELECT is run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

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
    async with Session(tables) as session:
        text = quote_relations(sql, tables.keys())
        if refused := sorted(_REFUSED & words(sql)):
            raise QueryRefused(f"A query may not use {refused[0]}.")
        return await asyncio.to_thread(_run, session.connection, text, limit)


class Session:
    """DuckDB over datasets by event type, for one task. Its faults become QueryRefused; cancelled, it stops.

    ``said`` is what a fault says before DuckDB's own words, ``hint`` what to do.
    """

    def __init__(
        self, tables: Mapping[str, Any], said: str = "The query fails", hint: str | None = None
    ) -> None:
        try:
            import duckdb
        except ImportError as error:
            raise ExtraMissing(
                "A query needs the package duckdb.", hint="pip install 'headwater[query]'"
            ) from error
        self._error: type[Exception] = duckdb.Error
        self._tables = tables
        self._said = said
        self._hint = hint or f"The tables are {', '.join(sorted(tables)) or 'none'}."
        self.connection: Any = duckdb.connect(":memory:")

    async def __aenter__(self) -> Self:
        for name, dataset in self._tables.items():
            self.connection.register(name, dataset)
        for setting in _SETTINGS:
            self.connection.execute(setting)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, asyncio.CancelledError):
            self.connection.interrupt()
        self.connection.close()
        if isinstance(error, self._error):
            raise QueryRefused(f"{self._said}: {error}", hint=self._hint) from error

    async def table(self, sql: str) -> Any:
        """The rows of a SELECT as an Arrow table. Headwater's own text, not a user's."""
        return await asyncio.to_thread(lambda: self.connection.sql(sql).to_arrow_table())


def _run(connection: Any, text: str, limit: int) -> Answer:
    statements = connection.extract_statements(text)
    if [statement.type.name for statement in statements] != ["SELECT"]:
        raise QueryRefused("A query is one SELECT.", hint="Nothing else is run over a lake.")
    result = connection.execute(statements[0])
    rows = result.fetchmany(limit + 1)
    columns = [column[0] for column in result.description]
    return Answer(columns, rows[:limit], len(rows) > limit)
