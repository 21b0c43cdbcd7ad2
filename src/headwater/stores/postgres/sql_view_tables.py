"""The tables of one version of a view, and the readable view over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from headwater.errors import ViewDefinitionError
from headwater.stores.postgres.sql_view_sketches import SKETCHED, shown
from headwater.stores.postgres.sql_view_states import FLOATS, aggregated
from headwater.stores.postgres.sql_view_text import enclosed, listed, table_template, template
from headwater.stores.postgres.sql_view_types import typed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from headwater.stores.postgres.sql_view_types import ViewTypes
    from headwater.views.sql import IncrementalQuery, Output
    from headwater.views.sql_view import Retention

SCHEMA = "headwater_views"
LONGEST_NAME_BYTES = 63
_POLICIES = (
    "enable_row_security",
    "force_row_security",
    "tenant_policy",
    "relay_policy",
    "operator_policy",
)


@dataclass(frozen=True, slots=True)
class Storage:
    """Where one version of a view lives: the name that readers use, and its own table."""

    view: str
    table: str
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        for name in (self.view, self.distinct_name(99)):
            if len(name.encode()) > LONGEST_NAME_BYTES:
                raise ViewDefinitionError(
                    f"The view's name '{self.view}' is too long: '{name}' has more than "
                    f"{LONGEST_NAME_BYTES} bytes.",
                    hint="Choose a shorter name.",
                )

    def distinct_name(self, number: int) -> str:
        """The name of the table that holds the values of the n-th distinct count."""
        return f"{self.table}__distinct_{number}"


@dataclass(frozen=True, slots=True)
class Tables:
    """The statements that make and unmake a view's tables. They take no parameters."""

    query: IncrementalQuery
    storage: Storage
    types: ViewTypes
    retention: Retention | None = None

    @property
    def main(self) -> sql.Identifier:
        """The table of groups."""
        return sql.Identifier(self.storage.schema, self.storage.table)

    @property
    def view(self) -> sql.Identifier:
        """The view that readers use."""
        return sql.Identifier(self.storage.schema, self.storage.view)

    def distinct(self, number: int) -> sql.Identifier:
        """The table of the n-th distinct count's values, counted from 1."""
        return sql.Identifier(self.storage.schema, self.storage.distinct_name(number))

    @property
    def distincts(self) -> list[sql.Identifier]:
        """The tables of distinct values."""
        return [self.distinct(n) for n, _ in enumerate(self.types.layout.distincts, start=1)]

    def key_columns(self) -> list[sql.Composable]:
        """The tenant and the stored keys."""
        return [sql.Identifier("tenant"), *map(sql.Identifier, key_names(self.query))]

    def create(self) -> tuple[sql.Composed, ...]:
        """The tables with their row security and grants."""
        layout = self.types.layout
        keys = self._columns(
            zip(
                key_names(self.query),
                (self.types.outputs[output.name] for output in self.query.keys),
                strict=True,
            )
        )
        tenant = sql.SQL("tenant text NOT NULL")
        states = [
            sql.SQL("{} NOT NULL").format(column) if state.is_count else column
            for state, column in zip(
                layout.states, self._columns(self.types.states.items()), strict=True
            )
        ]
        statements = self._table(self.main, [tenant, *keys, *states], self.key_columns())
        for state, table in zip(layout.distincts, self.distincts, strict=True):
            value = self._columns([("value", self.types.values[state.column])])
            unique = [*self.key_columns(), sql.Identifier("value")]
            statements += self._table(table, [tenant, *keys, *value], unique)
        if self.retention is not None:
            statements += [
                table_template("index_bucket").format(table=table, bucket=self._bucket)
                for table in (self.main, *self.distincts)
            ]
        return tuple(statements)

    def key_constraint(self) -> sql.Composed:
        """Selects the name of the main table's key."""
        return table_template("key_constraint").format(table=sql.Literal(self.main.as_string()))

    def exchange_key(self, constraint: str) -> tuple[sql.Composed, sql.Composed]:
        """Take the key away, and give it back."""
        parts = {"table": self.main, "constraint": sql.Identifier(constraint)}
        return (
            table_template("drop_key").format(**parts),
            table_template("add_key").format(**parts, keys=listed(self.key_columns())),
        )

    def publish(self) -> tuple[sql.Composed, ...]:
        """The readable view, in place of one over an earlier table."""
        shown = [
            sql.SQL("{} AS {}").format(shown_value(self, output), sql.Identifier(output.name))
            for output in self.query.outputs
        ]
        creation = table_template("create_view").format(
            view=self.view, outputs=listed([sql.Identifier("tenant"), *shown]), table=self.main
        )
        grants = (table_template(name) for name in ("grant_reading", "grant_keeping"))
        return (creation, *(grant.format(relation=self.view) for grant in grants))

    @property
    def bucket(self) -> str:
        """The column of the bucket by which groups are removed."""
        assert self.retention is not None
        return key_names(self.query)[self.query.key.index(self.retention.bucket)]

    @property
    def _bucket(self) -> sql.Identifier:
        return sql.Identifier(self.bucket)

    def kept_from(self) -> sql.Composed:
        """Selects the time before which groups are too old by %(upto)s."""
        assert self.retention is not None
        bound = template("kept_from_newest").format(seconds=sql.Literal(self.retention.seconds))
        return sql.SQL("SELECT {}").format(bound)

    def forget(self) -> tuple[sql.Composed, ...]:
        """Remove the groups that are too old by %(upto)s."""
        if self.retention is None:
            return ()
        bound = template("kept_from_newest").format(seconds=sql.Literal(self.retention.seconds))
        return tuple(
            template("forget").format(table=table, bucket=self._bucket, bound=bound)
            for table in (self.main, *self.distincts)
        )

    def truncate(self) -> tuple[sql.Composed, ...]:
        """Empty the tables, for a rebuild in place."""
        tables = listed([self.main, *self.distincts])
        return (table_template("truncate").format(tables=tables),)

    def drop(self) -> tuple[sql.Composed, ...]:
        """Remove this version's tables; refused while the view that readers use is over them."""
        return tuple(
            table_template("drop_table").format(table=table)
            for table in (*self.distincts, self.main)
        )

    def unpublish(self) -> tuple[sql.Composed, ...]:
        """Remove the view that readers use."""
        return (table_template("drop_view").format(view=self.view),)

    def _columns(self, columns: Iterable[tuple[str, str]]) -> list[sql.Composable]:
        return [
            sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(type_name))
            for name, type_name in columns
        ]

    def _table(
        self,
        table: sql.Identifier,
        columns: Sequence[sql.Composable],
        keys: Sequence[sql.Composable],
    ) -> list[sql.Composed]:
        create = table_template("create_table").format(
            table=table, columns=sql.SQL(",\n    ").join(columns), keys=listed(keys)
        )
        policies = [table_template(policy).format(table=table) for policy in _POLICIES]
        grants = [
            table_template(grant).format(relation=table)
            for grant in ("grant_reading", "grant_keeping")
        ]
        return [create, *policies, *grants]


def key_names(query: IncrementalQuery) -> list[str]:
    """The stored keys' columns, in the order of the declared key."""
    return [f"key_{index}" for index, _ in enumerate(query.key, start=1)]


def shown_value(tables: Tables, output: Output) -> sql.Composable:
    """The output as readers see it, over the stored columns."""
    query, layout = tables.query, tables.types.layout
    if output.kind == "key":
        return sql.Identifier(key_names(query)[query.key.index(output.name)])
    value, counter = layout.shown[output.name]
    column: sql.Composable = sql.Identifier(value)
    if (state := layout.state(value)).kind in SKETCHED:
        return typed(shown(state.kind, column, output.level), tables.types.outputs[output.name])
    if counter is not None:
        count = sql.Identifier(counter)
        if output.kind == "avg":
            column = _average(column, count, tables.types.states[value], query.over_documents)
        else:
            column = sql.SQL("CASE WHEN {} > 0 THEN {} END").format(count, column)
    return typed(column, tables.types.outputs[output.name])


def written_value(types: ViewTypes, output: Output) -> sql.Composable:
    """The output as the user wrote it, over the rows of a group; ours by the state over all rows."""
    if (
        output.kind == "key"
        or (state := types.layout.state(types.layout.shown[output.name][0])).kind not in SKETCHED
    ):
        return enclosed(output.text)
    return shown(state.kind, aggregated(state, signed=False), output.level)


def _average(
    total: sql.Composable, count: sql.Composable, total_type: str, taken_back: bool
) -> sql.Composable:
    """Postgres's own average of the values behind the total.

    The scale of a numeric quotient follows the scale of the total, which keeps the digits of
    documents taken back: without trailing zeros it depends on the values alone.
    """
    if total_type not in FLOATS and total_type != "interval":
        total = sql.SQL("{}::numeric").format(total)
        total = sql.SQL("trim_scale({})").format(total) if taken_back else total
    return sql.SQL("{} / nullif({}, 0)").format(total, count)
