"""Whether the functions that a view calls answer the same at every rebuild."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from psycopg.rows import tuple_row

from headwater.errors import ViewDefinitionError
from headwater.stores.postgres.sql_view_text import template

if TYPE_CHECKING:
    from collections.abc import Iterable

    import psycopg

BUILT_IN = "pg_catalog"

PINNED_BY_THE_SESSION = frozenset(
    {
        *("age", "date_add", "date_part", "date_subtract", "date_trunc", "extract", "timezone"),
        *("date", "time", "timestamp", "timestamptz", "timetz", "interval", "isfinite"),
        *("to_char", "to_date", "to_number", "to_timestamp", "make_timestamptz"),
        *("concat", "concat_ws", "format", "array_to_string", "quote_literal", "quote_nullable"),
        *("to_json", "to_jsonb", "row_to_json", "array_to_json", "overlaps"),
        *("json_build_array", "json_build_object", "jsonb_build_array", "jsonb_build_object"),
        *("jsonb_path_exists_tz", "jsonb_path_match_tz", "jsonb_path_query_first_tz"),
    }
)
"""STABLE only because they follow the time zone or an output format, which the session that
keeps views pins."""


async def check_functions(connection: psycopg.AsyncConnection[Any], names: Iterable[str]) -> None:
    """Refuse functions that are not immutable for a view's purposes.

    Built-in ones may be IMMUTABLE or one of those that only follow pinned settings; others must
    be IMMUTABLE in every overload. Raises ``ViewDefinitionError``.
    """
    wanted = {name: _qualified(name) for name in names}
    if not wanted:
        return
    parameters = {
        "names": list(wanted),
        "schemas": [schema for schema, _ in wanted.values()],
        "functions": [function for _, function in wanted.values()],
    }
    statement = template("called_functions", file="sql_view_functions.sql")
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(statement, parameters)
        overloads: defaultdict[str, list[tuple[str, str, bool]]] = defaultdict(list)
        for name, _, volatility, kind, returns_set in await cursor.fetchall():
            if volatility is not None:
                overloads[name].append((volatility, kind, returns_set))
    for name, (schema, function) in wanted.items():
        _check(name, schema, function, overloads[name])


def _qualified(name: str) -> tuple[str, str]:
    schema, _, function = name.rpartition(".")
    return schema or BUILT_IN, function


def _check(name: str, schema: str, function: str, overloads: list[tuple[str, str, bool]]) -> None:
    volatilities = {volatility for volatility, _, _ in overloads}
    if not overloads:
        raise ViewDefinitionError(
            f"The function {name}() doesn't exist.",
            hint="Write the schema of a function of your own, as in app.rounded(x).",
        )
    if any(kind in {"a", "w"} for _, kind, _ in overloads):
        raise ViewDefinitionError(
            f"{name}() is an aggregate or window function that can't be merged with a batch.",
            hint="Use count, sum, min, max or avg, a fold, or a periodic full refresh.",
        )
    if any(returns_set for _, _, returns_set in overloads):
        raise ViewDefinitionError(
            f"{name}() returns a set of rows, and a view keeps one row per group.",
            hint="Write one event for each element, or keep a fold.",
        )
    pinned = schema == BUILT_IN and function in PINNED_BY_THE_SESSION
    if "v" in volatilities or ("s" in volatilities and not pinned):
        level = "VOLATILE" if "v" in volatilities else "STABLE"
        raise ViewDefinitionError(
            f"{name}() is {level}, so a rebuild of the view could give another answer.",
            hint="Use an immutable function, or write the value into the event."
            if schema == BUILT_IN
            else "Declare the function IMMUTABLE, if it is, or write the value into the event.",
        )
