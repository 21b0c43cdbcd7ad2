"""The values that a SQL view's aggregates are over, row by row, for a store that brings them together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from headwater.errors import ViewDefinitionError
from headwater.events import Column
from headwater.stores.postgres.sql_view_sketches import SKETCHED
from headwater.stores.postgres.sql_view_states import FLOATS, State, evaluated
from headwater.stores.postgres.sql_view_tables import key_names
from headwater.stores.postgres.sql_view_text import enclosed, fragment, name, template
from headwater.views.batches import Limits, StateColumn, TableShape
from headwater.views.driving.batches import csv_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.stores.postgres.sql_view import SqlViewPlan
    from headwater.stores.postgres.sql_view_source import Sources

_WHOLE = ("smallint", "integer", "bigint", "numeric")


@dataclass(frozen=True, slots=True)
class Values:
    """A view's rows before they are grouped: the tenant, the keys, a value for each state."""

    plan: SqlViewPlan
    sources: Sources

    @property
    def columns(self) -> tuple[Column, ...]:
        """What a row holds, in order. Expressions stay here: they are the user's."""
        types, query = self.plan.types, self.plan.query
        keys = zip(key_names(query), query.keys, strict=True)
        return (
            Column("tenant", "text", "e.tenant"),
            *(Column(column, types.outputs[key.name], "") for column, key in keys),
            *(Column(state.column, self._type(state), "") for state in types.layout.states),
        )

    def _type(self, state: State) -> str:
        types = self.plan.types
        if state.kind == "count":
            return "boolean"
        if state.kind == "count_distinct":
            return types.values[state.column]
        found = types.states[state.column]
        if found == "bigint[]":  # a sketch: rows bring entries of it
            return "bigint"
        return "double precision" if found in FLOATS else found

    def shape(self) -> TableShape:
        """The view as a table of groups. Raises ViewDefinitionError for a cast around an aggregate."""
        layout, query = self.plan.types.layout, self.plan.query
        columns = {column.name: column for column in self.columns}
        keys = [columns["tenant"], *(columns[key] for key in key_names(query))]
        states = [
            StateColumn(columns[s.column], "sum" if s.kind == "avg_sum" else s.kind)
            for s in layout.states
        ]
        outputs: list[tuple[str, str, str | None]] = [("tenant", "tenant", None)]
        for output in query.outputs:
            if output.kind == "key":
                place = key_names(query)[query.key.index(output.name)]
                outputs.append((output.name, place, None))
                continue
            if layout.state(layout.shown[output.name][0]).kind not in SKETCHED:
                self._refuse_cast(output.name, output.kind)
            outputs.append((output.name, *layout.shown[output.name]))
        shown = self.plan.types.outputs
        levels = {o.name: o.level for o in query.outputs if o.level is not None}
        return TableShape(keys, states, outputs, shown, levels)

    def _refuse_cast(self, output: str, kind: str) -> None:
        types = self.plan.types
        shown, kept = types.outputs[output], types.states[types.layout.shown[output][0]]
        if kind == "avg" or shown == kept or (shown in _WHOLE and kept in _WHOLE[:3]):
            return
        raise ViewDefinitionError(
            f"The output {output!r} is cast from {kept} to {shown}, which other stores do by other rules.",
            hint="Leave the cast out and apply it when reading.",
        )

    def copy(self, limits: Limits | None) -> sql.Composed:
        """The statement that gives a batch's rows as CSV, with the batch's parameters."""
        query = self.plan.query
        typed = {column.name: column.sql_type for column in self.columns}
        values: list[tuple[sql.Composable, str]] = [(name("headwater_tenant"), "text")]
        for column, key in zip(key_names(query), query.keys, strict=True):
            values.append((enclosed(key.text), typed[column]))
        for state in self.plan.types.layout.states:
            value = sql.SQL("({})::{}").format(_value(state), fragment(typed[state.column]))
            values.append((value, typed[state.column]))
        return template("values").format(
            **csv_rows(values, limits),
            source=self.sources.rows("in_batch"),
            where=self.sources.where(),
        )


def _value(state: State) -> sql.Composable:
    """What one row adds to a state; for a count, whether it does."""
    if state.kind != "count" or state.argument is None:
        return evaluated(state) or sql.SQL("true")
    value = sql.SQL("{} IS DISTINCT FROM NULL").format(state.value())
    if state.condition is None:
        return value
    return sql.SQL("{} AND {}").format(enclosed(state.condition), value)


def table_columns(plan: SqlViewPlan, columns: Sequence[Column]) -> list[tuple[str, str]]:
    """The columns of a copy of the store's groups, with their types in Postgres."""
    types = plan.types
    states = {s.column: types.states[s.column] for s in types.layout.states}
    return [
        *((c.name, states.get(c.name, c.sql_type)) for c in columns),
        ("headwater_upto", "bigint"),
    ]
