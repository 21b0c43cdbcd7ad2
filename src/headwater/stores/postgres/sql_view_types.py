"""The types of a view's columns, as Postgres describes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors, sql
from psycopg.rows import tuple_row

from headwater.errors import ViewDefinitionError
from headwater.stores.postgres.sql_view_sketches import described
from headwater.stores.postgres.sql_view_states import FLOATS, aggregated, layout_of
from headwater.stores.postgres.sql_view_text import clause, enclosed, fragment, listed, template

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.stores.postgres.sql_view_source import Sources
    from headwater.stores.postgres.sql_view_states import Layout
    from headwater.views.sql import IncrementalQuery, Output

_NOT_THE_QUERYS_FAULT = (errors.InsufficientPrivilege, errors.UndefinedTable)
_NO_ROWS: dict[str, object] = {"after": 0, "upto": 0, "parked": []}


@dataclass(frozen=True, slots=True)
class ViewTypes:
    """The stored columns with their types, by name."""

    layout: Layout
    outputs: dict[str, str]
    states: dict[str, str]
    values: dict[str, str]
    """Per distinct count, the type of its values."""


async def describe(
    connection: psycopg.AsyncConnection[Any], sources: Sources, *, float_tolerance: float | None
) -> ViewTypes:
    """Ask Postgres for the types, without reading a row.

    Raises ``ViewDefinitionError`` for what Postgres refuses, and for sums of floats without a
    tolerance.
    """
    query = sources.query
    layout = layout_of(query)
    grouped = [_described(output) for output in query.outputs]
    grouped += [aggregated(state, signed=query.over_documents) for state in layout.states]
    values = [state.value() for state in layout.distincts]
    types = await _types(connection, sources, grouped, group_by_of(query))
    value_types = await _types(connection, sources, values, None) if values else []
    outputs = [output.name for output in query.outputs]
    states = dict(zip([s.column for s in layout.states], types[len(outputs) :], strict=True))
    _refuse_inexact(query, layout, states, float_tolerance)
    for state in layout.states:
        if state.kind == "avg_sum" and states[state.column] == "real":
            states[state.column] = "double precision"
            layout = _widened(layout, state.column)
    return ViewTypes(
        layout=layout,
        outputs=dict(zip(outputs, types, strict=False)),
        states=states,
        values=dict(zip([s.column for s in layout.distincts], value_types, strict=True)),
    )


def _described(output: Output) -> sql.Composable:
    if output.kind in {"first", "last", "quantile", "about_distinct"}:
        assert output.argument is not None
        return described(output.kind, output.argument)
    return enclosed(output.text)


def group_by_of(query: IncrementalQuery) -> sql.Composable:
    """The grouping as written: the tenant and the key expressions."""
    ordinals = [
        sql.SQL(str(index))
        for index, output in enumerate(query.outputs, start=1)
        if output.kind == "key"
    ]
    return listed([sql.SQL("headwater_tenant"), *ordinals])


def _widened(layout: Layout, column: str) -> Layout:
    states = tuple(
        replace(state, widened=True) if state.column == column else state for state in layout.states
    )
    return replace(layout, states=states)


def _refuse_inexact(
    query: IncrementalQuery, layout: Layout, states: dict[str, str], tolerance: float | None
) -> None:
    if tolerance is not None:
        return
    for output in query.aggregates:
        if output.kind in {"sum", "avg"} and states[layout.shown[output.name][0]] in FLOATS:
            raise ViewDefinitionError(
                f"View '{query.name}': '{output.name}' sums floats, whose sum depends on the "
                "order and so on how the log is cut into batches.",
                hint=f"Cast to an exact type, as in {output.kind}({output.argument}::numeric), or "
                "declare float_tolerance.",
            )


async def _types(
    connection: psycopg.AsyncConnection[Any],
    sources: Sources,
    columns: Sequence[sql.Composable],
    group_by: sql.Composable | None,
) -> list[str]:
    statement = template("describe").format(
        columns=listed(columns),
        source=sources.rows("none"),
        where=sources.where(),
        group_by=clause("GROUP BY", group_by),
    )
    try:
        async with connection.transaction(), connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(statement, _NO_ROWS)
            result = cursor.pgresult
            assert result is not None
            places = range(result.nfields)
            described = {
                "types": [result.ftype(place) for place in places],
                "modifiers": [result.fmod(place) for place in places],
            }
            await cursor.execute(template("type_names"), described)
            return [str(row[0]) for row in await cursor.fetchall()]
    except _NOT_THE_QUERYS_FAULT:
        raise
    except (errors.ProgrammingError, errors.DataError, errors.NotSupportedError) as error:
        reason = error.diag.message_primary or str(error)
        advice = error.diag.message_hint
        raise ViewDefinitionError(
            f"View '{sources.query.name}': Postgres refuses the query: {reason}.",
            hint=advice or "Correct the expression, or cast to a type that can be compared.",
        ) from error


def typed(value: sql.Composable, type_name: str) -> sql.Composable:
    """The value cast to a type that Postgres named."""
    return sql.SQL("({})::{}").format(value, fragment(type_name))
