"""Statements that compare a view with its query over the whole log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from headwater.stores.postgres.sql_view_states import FLOATS, aggregated
from headwater.stores.postgres.sql_view_tables import shown_value, written_value
from headwater.stores.postgres.sql_view_text import (
    clause,
    enclosed,
    listed,
    name,
    template,
    unmatched,
)
from headwater.stores.postgres.sql_view_types import typed

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.stores.postgres.sql_view_source import Sources
    from headwater.stores.postgres.sql_view_tables import Tables
    from headwater.views.sql import Output


@dataclass(frozen=True, slots=True)
class Comparison:
    """Compares the stored rows, as readers see them, with the user's query run from scratch."""

    sources: Sources
    tables: Tables
    float_tolerance: float | None
    is_trimmed: bool
    """Whether stored totals have no trailing zeros, on which an average's digits depend."""

    @property
    def _outputs(self) -> list[tuple[sql.Identifier, Output]]:
        """The outputs under names that can't clash with the statement's own."""
        return [
            (name("_".join(("output", str(index)))), output)
            for index, output in enumerate(self.sources.query.outputs, start=1)
        ]

    def rows(self, *, sampled: bool = False) -> sql.Composed:
        """The rows on one side only, of a slice of the groups or of all: side, tenant, row."""
        shown = listed(
            sql.SQL("differing.{} AS {}").format(column, name(output.name))
            for column, output in self._outputs
        )
        return template("verify").format(
            compared=self._compared(sampled), shown=shown, keys=self._keys()
        )

    def count(self, *, sampled: bool = False) -> sql.Composed:
        """How many groups were expected, and how many rows are on one side only."""
        return template("verify_count").format(compared=self._compared(sampled), keys=self._keys())

    def _keys(self) -> sql.Composed:
        """The tenant and the keys, in the declared key's order."""
        columns = {output.name: column for column, output in self._outputs}
        keys = [columns[key] for key in self.sources.query.key]
        return listed([name("tenant"), *keys])

    def _compared(self, sampled: bool) -> sql.Composed:
        columns = [column for column, _ in self._outputs]
        inexact = [column for column, output in self._outputs if self._is_inexact(output)]
        window = sql.SQL("WINDOW same_group AS (PARTITION BY {})").format(self._keys())
        ordinals = [
            sql.SQL(str(place))
            for place, (_, output) in enumerate(self._outputs, start=2)
            if output.kind == "key"
        ]
        return template("compared").format(
            expected=self._side(name("headwater_tenant"), self._expected),
            source=self.sources.rows("up_to"),
            where=self.sources.where(
                self._in_slice(name("headwater_tenant"), self._expected) if sampled else None
            ),
            group_by=listed([sql.SQL("1"), *ordinals]),
            stored=self._side(name("tenant"), lambda output: shown_value(self.tables, output)),
            table=self.tables.main,
            having=clause("HAVING", self._kept(lambda output: enclosed(output.text))),
            kept=self._stored_where(sampled),
            compared=listed(
                [
                    name("tenant"),
                    *(self._near(column) if column in inexact else column for column in columns),
                ]
            ),
            window=clause("", window) if inexact else sql.SQL(""),
            unmatched=unmatched([name("tenant"), *columns]),
        )

    def _stored_where(self, sampled: bool) -> sql.Composable:
        def shown(output: Output) -> sql.Composable:
            return shown_value(self.tables, output)

        conditions = [
            self._kept(shown),
            self._in_slice(name("tenant"), shown) if sampled else None,
        ]
        given = [condition for condition in conditions if condition is not None]
        return clause("WHERE", sql.SQL(" AND ").join(given) if given else None)

    def _in_slice(
        self, tenant: sql.Composable, value: Callable[[Output], sql.Composable]
    ) -> sql.Composed:
        """Whether a row's group is in the slice: by a hash that follows the types' own equality."""
        types = self.tables.types.outputs
        keys = [typed(value(output), types[output.name]) for output in self.sources.query.keys]
        return template("in_slice").format(keys=listed([tenant, *keys]))

    def _kept(self, value: Callable[[Output], sql.Composable]) -> sql.Composable | None:
        """Whether a group is not yet to be removed; those that are do not count on either side."""
        if (retention := self.tables.retention) is None:
            return None
        (bucket,) = (o for o in self.sources.query.keys if o.name == retention.bucket)
        bound = template("kept_from_any").format(seconds=sql.Literal(retention.seconds))
        return sql.SQL("{} >= {}").format(value(bucket), bound)

    def _side(
        self, tenant: sql.Composable, value: Callable[[Output], sql.Composable]
    ) -> sql.Composed:
        outputs = (
            sql.SQL("{} AS {}").format(value(output), column) for column, output in self._outputs
        )
        return listed([sql.SQL("{} AS tenant").format(tenant), *outputs])

    def _expected(self, output: Output) -> sql.Composable:
        """The output as the user wrote it, in the stored type."""
        types = self.tables.types
        text = written_value(types, output)
        if output.kind == "avg" and self.is_trimmed:
            total, counter = types.layout.shown[output.name]
            if types.states[total] in {"bigint", "numeric"} and counter is not None:
                text = self._trimmed_average(total, counter)
        return typed(text, types.outputs[output.name])

    def _trimmed_average(self, total: str, counter: str) -> sql.Composable:
        layout = self.tables.types.layout
        sum_state, count_state = layout.state(total), layout.state(counter)
        return sql.SQL("trim_scale({}::numeric) / nullif({}, 0)").format(
            aggregated(sum_state, signed=False), aggregated(count_state, signed=False)
        )

    def _is_inexact(self, output: Output) -> bool:
        return (
            self.float_tolerance is not None
            and output.kind in {"sum", "avg"}
            and self.tables.types.outputs[output.name] in FLOATS
        )

    def _near(self, column: sql.Identifier) -> sql.Composable:
        return template("within_tolerance").format(
            column=column, tolerance=sql.Literal(self.float_tolerance)
        )
