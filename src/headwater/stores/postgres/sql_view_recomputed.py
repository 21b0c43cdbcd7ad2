"""Statements that compare a view's groups with those that another engine has recomputed.

Both sides are compared by what is kept of a group, as the view's table has it: an average by its sum and its
count, so that it is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from psycopg import sql

from headwater.stores.postgres.sql_view_states import FLOATS
from headwater.stores.postgres.sql_view_tables import key_names, shown_value
from headwater.stores.postgres.sql_view_text import (
    clause,
    fragment,
    listed,
    name,
    template,
    unmatched,
)
from headwater.stores.postgres.sql_view_types import typed
from headwater.views.recomputation import APPROXIMATIONS, GroupValue, Recomputation

if TYPE_CHECKING:
    from headwater.stores.postgres.sql_view import SqlViewPlan
    from headwater.stores.postgres.sql_view_states import StateKind
    from headwater.views.recomputation import ValueKind
    from headwater.views.sql import Output

_KINDS: dict[StateKind, ValueKind] = {
    "count": "count", "count_distinct": "count_distinct", "sum": "sum", "avg_sum": "sum",
    "min": "min", "max": "max", "first": "first", "last": "last",
}  # fmt: skip
_TABLE = name("pg_temp", "headwater_recomputed")


@dataclass(frozen=True, slots=True)
class _Compared:
    """One value of a group: what the engine computes, and the stored side's expression."""

    column: sql.Identifier
    wanted: GroupValue
    stored: sql.Composable


@dataclass(frozen=True)
class RecomputedComparison:
    """Compares the plan's table with a temporary table of what was recomputed."""

    plan: SqlViewPlan

    @cached_property
    def excluded(self) -> tuple[str, ...]:
        """The outputs that are not compared: approximations."""
        return tuple(o.name for o in self.plan.query.outputs if o.kind in APPROXIMATIONS)

    def wanted(self, upto: int, aside: Sequence[int], *, orders_by_bytes: bool) -> Recomputation:
        """What an engine is asked for."""
        query, types = self.plan.query, self.plan.types
        keys = [types.outputs[key] for key in query.key]
        values = [value.wanted for value in self._values]
        return Recomputation(query, keys, values, upto, aside, orders_by_bytes)

    def create(self) -> tuple[sql.Composed, ...]:
        """The empty temporary table, in place of one that was left."""
        types = self.plan.types.outputs
        columns = [
            sql.SQL("tenant text"),
            *(
                _column(n, types[key])
                for n, key in zip(self._keys, self.plan.query.key, strict=True)
            ),
            *(_column(value.column, value.wanted.sql_type) for value in self._values),
        ]
        return (
            template("drop_compared").format(table=_TABLE),
            template("create_compared").format(table=name("headwater_recomputed"), columns=listed(columns)),
        )  # fmt: skip

    def fill(self) -> sql.Composed:
        """Takes the groups as CSV."""
        return template("fill_recomputed").format(table=_TABLE)

    def drop(self) -> sql.Composed:
        """Removes the temporary table."""
        return template("drop_compared").format(table=_TABLE)

    def count(self) -> sql.Composed:
        """How many groups were recomputed."""
        kept = self._kept()
        return template("count_recomputed").format(
            recomputed=_TABLE, keys=self._grouping, kept=sql.SQL("") if kept is None else sql.SQL(" AND {}").format(kept),
        )  # fmt: skip

    def differing(self) -> sql.Composed:
        """The tenant, the rows of both sides and how many there are, by key, of groups that differ."""
        values = [value for value in self._values if value.wanted.kind != "magnitude"]
        sums = {value.wanted.output.name: value for value in self._values if value.wanted.kind == "magnitude"}  # fmt: skip
        plain = [name("tenant"), *self._keys, *(value.column for value in self._values)]
        stored = [
            name("tenant"),
            *self._keys,
            *(sql.SQL("{} AS {}").format(v.stored, v.column) for v in self._values),
        ]
        compared: list[sql.Composable] = [name("tenant"), *self._keys]
        for value in values:
            magnitude = sums.get(value.wanted.output.name)
            is_near = magnitude is not None and value.wanted.kind == "sum"
            compared.append(
                template("near").format(column=value.column, magnitude=magnitude.column)
                if is_near and magnitude is not None
                else value.column
            )
        window = sql.SQL("WINDOW same_group AS (PARTITION BY {})").format(self._grouping)
        kept = clause("WHERE", self._kept())
        return template("recomputed").format(
            expected=listed(plain), recomputed=_TABLE, expected_kept=kept,
            stored=listed(stored), table=self.plan.tables.main, stored_kept=kept,
            compared=listed(compared), window=clause("", window) if sums else sql.SQL(""),
            unmatched=unmatched([name("tenant"), *self._keys, *(value.column for value in values)]),
            keys=self._grouping, shown=self._shown(),
        )  # fmt: skip

    # Columns -------------------------------------------------------------------------------------

    @property
    def _keys(self) -> list[sql.Identifier]:
        return [name(key) for key in key_names(self.plan.query)]

    @property
    def _grouping(self) -> sql.Composed:
        return listed([name("tenant"), *self._keys])

    @cached_property
    def _values(self) -> tuple[_Compared, ...]:
        found: list[_Compared] = []

        def add(kind: ValueKind, output: Output, sql_type: str, stored: sql.Composable) -> None:
            column = name("_".join(("value", str(len(found) + 1))))
            found.append(_Compared(column, GroupValue(kind, output, sql_type), stored))

        types = self.plan.types
        for output in self.plan.query.aggregates:
            if output.name in self.excluded:
                continue
            value, counter = types.layout.shown[output.name]
            kind = _KINDS[types.layout.state(value).kind]
            if kind in {"first", "last"}:
                shown = shown_value(self.plan.tables, output)
                add(kind, output, types.outputs[output.name], shown)
                continue
            add(kind, output, types.states[value], name(value))
            if kind == "sum" and types.states[value] in FLOATS:
                add("magnitude", output, "double precision", sql.SQL("NULL::double precision"))
            if counter is not None:
                add("count", output, "bigint", name(counter))
        return tuple(found)

    def _shown(self) -> sql.Composed:
        """A differing row as readers see it, approximations aside."""
        query, types = self.plan.query, self.plan.types
        keys = dict(zip(query.key, self._keys, strict=True))
        shown: list[sql.Composable] = []
        for output in query.outputs:
            if output.name in self.excluded:
                continue
            if output.kind == "key":
                value: sql.Composable = keys[output.name]
            else:
                value, *counts = [
                    v.column
                    for v in self._values
                    if v.wanted.output is output and v.wanted.kind != "magnitude"
                ]
                if counts:
                    total = sql.SQL("{}") if types.states[types.layout.shown[output.name][0]] in FLOATS else sql.SQL("{}::numeric")  # fmt: skip
                    value = sql.SQL("{} / nullif({}, 0)").format(total.format(value), counts[0])
                value = typed(value, types.outputs[output.name])
            shown.append(sql.SQL("{} AS {}").format(value, name(output.name)))
        return listed(shown)

    def _kept(self) -> sql.Composable | None:
        """Whether a group is not yet to be removed; its bucket has the same name on both sides."""
        retention = self.plan.tables.retention
        if retention is None:
            return None
        bound = template("kept_from_any").format(seconds=sql.Literal(retention.seconds))
        return sql.SQL("{} >= {}").format(name(self.plan.tables.bucket), bound)


def _column(column: sql.Identifier, sql_type: str) -> sql.Composed:
    return sql.SQL("{} {}").format(column, fragment(sql_type))
