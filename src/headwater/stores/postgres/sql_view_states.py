"""What a view's table stores for each aggregate, and how a batch merges into it.

A batch of events only adds, so NULL merges as 'nothing yet'. Documents are also taken back: each
change brings the old document with sign -1 and the new one with sign +1, so a sum needs the
number of its values that are not NULL beside it, to become NULL again, and every group needs the
number of its documents, to vanish with the last one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from psycopg import sql

from headwater.stores.postgres.sql_view_sketches import (
    OUTPUTS,
    SKETCHED,
    entry_of,
    sketch_of,
    sketch_text,
)
from headwater.stores.postgres.sql_view_text import enclosed, name

if TYPE_CHECKING:
    from headwater.views.sql import IncrementalQuery, Output

StateKind = Literal[
    "count", "sum", "avg_sum", "min", "max", "count_distinct", "first", "last", "tally", "registers"
]

FLOATS = frozenset({"real", "double precision"})

_KINDS: dict[str, Any] = {"key": "count"} | OUTPUTS
_ADDED = "coalesce(stored.{state} + excluded.{state}, stored.{state}, excluded.{state})"
_MERGES: dict[StateKind, str] = {
    "count": "stored.{state} + excluded.{state}",
    "count_distinct": "stored.{state} + excluded.{state}",
    "sum": _ADDED,
    "avg_sum": _ADDED,
    "min": "least(stored.{state}, excluded.{state})",
    "max": "greatest(stored.{state}, excluded.{state})",
    "first": 'least(stored.{state} COLLATE "C", excluded.{state} COLLATE "C")',
    "last": 'greatest(stored.{state} COLLATE "C", excluded.{state} COLLATE "C")',
    "tally": sketch_text("tally").replace("{entries}", "stored.{state} || excluded.{state}"),
    "registers": sketch_text("registers").replace(
        "{entries}", "stored.{state} || excluded.{state}"
    ),
}
_TAKEN_BACK = (
    "CASE WHEN stored.{counter} + excluded.{counter} = 0 THEN NULL ELSE " + _ADDED + " END"
)


@dataclass(frozen=True, slots=True)
class State:
    """One stored column: an aggregate over ``argument`` where ``condition`` holds."""

    column: str
    kind: StateKind
    argument: str | None
    condition: str | None
    counter: str | None = None
    """The column that counts a sum's values, where the sum can become NULL again."""
    widened: bool = False
    """Whether real values are summed in double precision, as Postgres's avg does."""
    order: str | None = None
    """What first and last go by, before the position."""
    position: str | None = None

    @property
    def is_count(self) -> bool:
        """Whether the state is a number that is never NULL."""
        return self.kind in {"count", "count_distinct"}

    def value(self) -> sql.Composable:
        """The argument of one row."""
        if self.argument is None:
            raise AssertionError(self)
        text = enclosed(self.argument)
        if self.kind in SKETCHED:
            return entry_of(self.kind, text, self.order, self.position)
        return sql.SQL("{}::double precision").format(text) if self.widened else text

    def merged(self) -> sql.Composed:
        """The assignment that merges a batch's value into the stored one."""
        text = _TAKEN_BACK if self.counter is not None else _MERGES[self.kind]
        merge = sql.SQL(text).format(state=name(self.column), counter=name(self.counter or ""))
        return sql.SQL("{} = {}").format(name(self.column), merge)


@dataclass(frozen=True, slots=True)
class Layout:
    """The stored columns of a view, and which of them each output shows."""

    states: tuple[State, ...]
    shown: dict[str, tuple[str, str | None]]
    """Per output: the column of its value and of its counter."""
    rows: str | None
    """Over documents, the column that counts the documents of a group."""

    def state(self, column: str) -> State:
        """The state stored in that column."""
        return next(state for state in self.states if state.column == column)

    @property
    def distincts(self) -> tuple[State, ...]:
        """The states that count distinct values."""
        return tuple(state for state in self.states if state.kind == "count_distinct")


def layout_of(query: IncrementalQuery) -> Layout:
    """The columns that keep the query's aggregates, like ones stored once."""
    states: list[State] = []

    def stored(
        kind: StateKind, output: Output | None, counter: str | None = None, *, rows: bool = False
    ) -> str:
        argument = None if output is None or rows else output.argument
        condition = None if output is None else output.condition
        wanted = State("", kind, argument, condition, counter)
        if output is not None and kind in {"first", "last"}:
            wanted = replace(wanted, order=output.order, position=output.position)
        for state in states:
            if replace(state, column="") == wanted:
                return state.column
        states.append(replace(wanted, column="_".join(("state", str(len(states) + 1)))))
        return states[-1].column

    rows = stored("count", None) if query.over_documents else None
    shown: dict[str, tuple[str, str | None]] = {}
    for output in query.aggregates:
        if output.kind == "avg":
            counter = stored("count", output)
            taken_back = counter if query.over_documents else None
            shown[output.name] = (stored("avg_sum", output, taken_back), counter)
        elif output.kind == "sum" and query.over_documents:
            counter = stored("count", output)
            shown[output.name] = (stored("sum", output, counter), counter)
        else:
            kind: StateKind = _KINDS.get(output.kind, output.kind)
            shown[output.name] = (stored(kind, output), None)
    return Layout(states=tuple(states), shown=shown, rows=rows)


def aggregated(state: State, *, signed: bool) -> sql.Composable:
    """The state's value over the rows of one group of a batch."""
    conditions: list[sql.Composable] = []
    if state.condition is not None:
        conditions.append(enclosed(state.condition))
    if state.kind in {"tally", "registers"}:
        entries = _filtered(sql.SQL("array_agg({})").format(state.value()), conditions)
        return sketch_of(state.kind, entries)
    if not signed:
        call = _call(state.kind, None if state.argument is None else state.value())
        return _filtered(call, conditions)
    if not state.is_count:
        product = sql.SQL("headwater_sign * {}").format(state.value())
        return _filtered(_call(state.kind, product), conditions)
    if state.argument is not None:
        # Unlike IS NOT NULL, this counts a row value whose fields are all NULL, as count does.
        conditions.append(sql.SQL("{} IS DISTINCT FROM NULL").format(state.value()))
    total = _filtered(sql.SQL("sum(headwater_sign)"), conditions)
    return sql.SQL("coalesce({}, 0)").format(total)


def _call(kind: StateKind, value: sql.Composable | None) -> sql.Composable:
    if value is None:
        return sql.SQL("count(*)")
    function = {"avg_sum": "sum", "first": "min", "last": "max"}.get(kind, kind)
    if kind == "count_distinct":
        return sql.SQL("count(DISTINCT {})").format(value)
    return sql.SQL("{}({})").format(sql.SQL(function), value)


def _filtered(call: sql.Composable, conditions: list[sql.Composable]) -> sql.Composable:
    if not conditions:
        return call
    return sql.SQL("{} FILTER (WHERE {})").format(call, sql.SQL(" AND ").join(conditions))


def evaluated(state: State) -> sql.Composable | None:
    """The state's value of one row, where rows are evaluated before they are grouped."""
    if state.argument is None:
        return None if state.condition is None else enclosed(state.condition)
    if state.condition is None:
        return state.value()
    return sql.SQL("CASE WHEN {} THEN {} END").format(enclosed(state.condition), state.value())


def collected(state: State, origin: int) -> sql.Composable:
    """The state's value over rows evaluated by ``evaluated``.

    ``origin`` marks the rows that stand for a distinct value not seen before; the batch's own
    rows have origin 0.
    """
    column = name(state.column)
    if state.kind == "count_distinct":
        return sql.SQL("count(*) FILTER (WHERE origin = {})").format(sql.Literal(origin))
    if state.argument is None and state.condition is None:
        return sql.SQL("count(*) FILTER (WHERE origin = 0)")
    if state.argument is None:
        return sql.SQL("count(*) FILTER (WHERE {})").format(column)
    if state.kind in {"tally", "registers"}:
        return sketch_of(state.kind, sql.SQL("array_agg({})").format(column))
    return _call(state.kind, column)
