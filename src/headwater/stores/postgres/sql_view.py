"""Incremental SQL views in Postgres: the statements that keep one, batch by batch.

A batch never leaves Postgres: one INSERT ... SELECT ... GROUP BY ... ON CONFLICT merges it into
the view's table. The statements expect a session with time zone UTC and the search path
pg_catalog, under READ COMMITTED, and one writer per view.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from psycopg import sql
from psycopg.rows import tuple_row

from headwater.errors import ViewDefinitionError
from headwater.stores.postgres.sql_view_compare import Comparison
from headwater.stores.postgres.sql_view_functions import check_functions
from headwater.stores.postgres.sql_view_source import Sources
from headwater.stores.postgres.sql_view_states import aggregated, collected, evaluated
from headwater.stores.postgres.sql_view_tables import Storage, Tables, key_names
from headwater.stores.postgres.sql_view_text import (
    appended,
    enclosed,
    fragment,
    listed,
    name,
    template,
)
from headwater.stores.postgres.sql_view_types import describe
from headwater.views.driving.record import SQL as RECORD

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import psycopg

    from headwater.stores.postgres.sql_view_states import Layout
    from headwater.stores.postgres.sql_view_types import ViewTypes
    from headwater.views.sql import IncrementalQuery
    from headwater.views.sql_view import Retention

__all__ = ["SqlViewPlan", "Storage", "ViewColumn", "check_functions", "plan_sql_view"]


@dataclass(frozen=True, slots=True)
class ViewColumn:
    """One column that readers see, with its Postgres type."""

    name: str
    sql_type: str
    is_key: bool


async def plan_sql_view(
    connection: psycopg.AsyncConnection[Any],
    query: IncrementalQuery,
    storage: Storage,
    *,
    changes: sql.Composable | None = None,
    documents: sql.Composable | None = None,
    float_tolerance: float | None = None,
    is_elsewhere: bool = False,
    retention: Retention | None = None,
) -> SqlViewPlan:
    """Plan a view's statements, once Postgres has described its columns.

    Over a fold's documents, ``changes`` is the relation (after_position, tenant, key, old, new)
    that a batch of the fold leaves behind, and ``documents`` the relation (tenant, key, data) of
    what it holds now. With ``is_elsewhere`` the table is a copy of groups that another store keeps.

    Raises ``ViewDefinitionError`` for functions that aren't repeatable, for what Postgres
    refuses, and for sums of floats without ``float_tolerance`` (relative above 1, absolute
    below).
    """
    await check_functions(connection, query.functions)
    sources = Sources(query, changes=changes, documents=documents)
    types = await describe(connection, sources, float_tolerance=float_tolerance)
    if retention is not None and not types.outputs[retention.bucket].startswith(
        ("timestamp", "date")
    ):
        raise ViewDefinitionError(
            f"View '{query.name}': its bucket '{retention.bucket}' is {types.outputs[retention.bucket]}.",
            hint="Group by a time, as in date_trunc('hour', occurred_at).",
        )
    tables = Tables(query, storage, types, retention)
    return SqlViewPlan(sources, tables, float_tolerance, is_elsewhere=is_elsewhere)


class SqlViewPlan:
    """The statements of one version of a view.

    Those about tables run without parameters; the others take the parameters they name.
    """

    def __init__(
        self,
        sources: Sources,
        tables: Tables,
        float_tolerance: float | None,
        *,
        is_elsewhere: bool = False,
    ) -> None:
        self._sources = sources
        is_trimmed = is_elsewhere or sources.query.over_documents
        self._comparison = Comparison(sources, tables, float_tolerance, is_trimmed)
        self.query: IncrementalQuery = sources.query
        self.tables = tables
        self.types: ViewTypes = tables.types

    @cached_property
    def columns(self) -> tuple[ViewColumn, ...]:
        """What readers see after the tenant, in the declared order."""
        return tuple(
            ViewColumn(output.name, self.types.outputs[output.name], output.kind == "key")
            for output in self.query.outputs
        )

    @cached_property
    def merge(self) -> sql.Composed:
        """Merge the batch (%(after)s, %(upto)s] without %(parked)s into the table.

        Over documents it returns one row: the places of the groups left without a document, for
        ``remove_emptied`` in the same transaction, or NULL.
        """
        return self._merge(at_once=False)

    @cached_property
    def merge_at_once(self) -> sql.Composed | None:
        """``merge`` and the move of the checkpoint in one statement, with the parameters of both.

        None over documents and with a retention, where a batch takes several statements.
        """
        if self.query.over_documents or self.tables.retention is not None:
            return None
        return self._merge(at_once=True)

    @property
    def fills(self) -> bool:
        """Whether ``fill`` is possible: distinct values and documents are merged from the first batch on."""
        return not self._layout.distincts and not self.query.over_documents

    async def fill(
        self, connection: psycopg.AsyncConnection[Any], *, after: int, upto: int
    ) -> None:
        """Merges the first batch into tables that are empty and that nobody reads, inside the caller's transaction.

        There are no rows to look for, and the key's index is made once they are there, in half the time.
        """
        row = await (await connection.execute(self.tables.key_constraint())).fetchone()
        assert row is not None
        drop, add = self.tables.exchange_key(row[0])
        await connection.execute(template("roomy"))
        await connection.execute(drop)
        batch: dict[str, object] = {"after": after, "upto": upto, "parked": []}
        await connection.execute(self._merge(at_once=False, is_empty=True), batch)
        await connection.execute(add)
        for statement in self.tables.forget():
            await connection.execute(statement, {"upto": upto})

    def _merge(self, *, at_once: bool, is_empty: bool = False) -> sql.Composed:
        if self._layout.distincts:
            return self._merge_distinct(at_once=at_once)
        selected = [
            name("headwater_tenant"),
            *(enclosed(key.text) for key in self.query.keys),
            *(aggregated(s, signed=self.query.over_documents) for s in self._layout.states),
        ]
        merge = template("merge").format(
            opening=sql.SQL("WITH {}\n").format(_moved()) if at_once else sql.SQL(""),
            table=self.tables.main,
            columns=self._stored(),
            selected=listed(selected),
            source=self._sources.rows("in_batch"),
            where=self._sources.where(template("has_moved") if at_once else None),
            group_by=self._ordinals(),
            merged=sql.SQL("") if is_empty else self._merged(),
        )
        if self._layout.rows is None:
            return merge
        return template("merge_documents").format(merge=merge, rows=name(self._layout.rows))

    @cached_property
    def remove_emptied(self) -> sql.Composed | None:
        """Over documents: remove the groups at %(emptied)s, as ``merge`` returned them."""
        if self._layout.rows is None:
            return None
        return template("remove_emptied").format(
            table=self.tables.main, rows=name(self._layout.rows)
        )

    async def apply(
        self,
        connection: psycopg.AsyncConnection[Any],
        *,
        after: int,
        upto: int,
        parked: Sequence[int] = (),
    ) -> None:
        """Merge one batch, inside the caller's transaction."""
        batch = {"after": after, "upto": upto, "parked": list(parked)}
        async with connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(self.merge, batch)
            for statement in self.tables.forget():
                await cursor.execute(statement, {"upto": upto})
            if self.remove_emptied is None:
                return
            row = await cursor.fetchone()
            if row is not None and row[0] is not None:
                await cursor.execute(self.remove_emptied, {"emptied": row[0]})

    @cached_property
    def keys_of(self) -> sql.Composed:
        """The group keys of the event at %(position)s: jsonb arrays as text, the tenant first.

        The query's conditions are left out, since evaluating one may be what fails: the answer
        may name a group that the event wouldn't have reached.
        """
        keys = [name("headwater_tenant"), *(enclosed(key.text) for key in self.query.keys)]
        return template("keys_of").format(
            keys=listed(keys), source=self._sources.rows("at_position", conditions=False)
        )

    @cached_property
    def touched(self) -> sql.Composed:
        """The group keys of the batch (%(after)s, %(upto)s] without %(parked)s, as ``keys_of`` gives them."""
        keys = [name("headwater_tenant"), *(enclosed(key.text) for key in self.query.keys)]
        return template("keys_of").format(
            keys=listed(keys), source=self._sources.rows("in_batch", conditions=False)
        )

    @cached_property
    def verify(self) -> sql.Composed:
        """The rows that differ from the query over all events up to %(upto)s.

        Each as side ('expected' or 'stored'), tenant and row (jsonb), at most %(limit)s, without
        %(parked)s positions and %(parked_keys)s groups (jsonb arrays as ``keys_of`` gives them).
        """
        return self._comparison.rows()

    @cached_property
    def verify_count(self) -> sql.Composed:
        """How many groups the query gives, and how many rows differ.

        It takes the parameters of ``verify``, without the limit.
        """
        return self._comparison.count()

    @cached_property
    def verify_sample(self) -> sql.Composed:
        """``verify`` of the groups in %(slice)s of %(slices)s."""
        return self._comparison.rows(sampled=True)

    @cached_property
    def verify_sample_count(self) -> sql.Composed:
        """``verify_count`` of the groups in %(slice)s of %(slices)s."""
        return self._comparison.count(sampled=True)

    def read_one(self, null_keys: Collection[str] = ()) -> sql.Composed:
        """Read the row of %(tenant)s and %(key_1)s, %(key_2)s ... in the order of the key.

        ``null_keys`` names the keys that are NULL, which take no parameter: so the index serves.
        """
        conditions: list[sql.Composable] = [
            sql.SQL("tenant = {}").format(sql.Placeholder("tenant"))
        ]
        for column, key in zip(key_names(self.query), self.query.keys, strict=True):
            if key.name in null_keys:
                conditions.append(sql.SQL("{} IS NULL").format(name(key.name)))
                continue
            conditions.append(
                sql.SQL("{} = {}::{}").format(
                    name(key.name),
                    sql.Placeholder(column),
                    fragment(self.types.outputs[key.name]),
                )
            )
        return template("read_one").format(
            outputs=listed([name("tenant"), *(name(column.name) for column in self.columns)]),
            view=name(self.tables.storage.schema, self.tables.storage.view),
            condition=sql.SQL(" AND ").join(conditions),
        )

    @property
    def _layout(self) -> Layout:
        return self.types.layout

    def _keys(self) -> sql.Composed:
        return listed(self.tables.key_columns())

    def _stored(self) -> sql.Composed:
        states = [name(state.column) for state in self._layout.states]
        return listed([*self.tables.key_columns(), *states])

    def _ordinals(self) -> sql.Composed:
        return listed(sql.SQL(str(place)) for place in range(1, len(self.query.key) + 2))

    def _merged(self) -> sql.Composed:
        merged = template("merged").format(keys=self._keys(), resolution=self._resolution())
        return sql.SQL("\n{}").format(merged)

    def _resolution(self) -> sql.Composable:
        if not self._layout.states:
            return sql.SQL("NOTHING")
        merges = (state.merged() for state in self._layout.states)
        return sql.SQL("UPDATE SET {}").format(listed(merges))

    def _merge_distinct(self, *, at_once: bool) -> sql.Composed:
        states = self._layout.states
        values = {s.column: value for s in states if (value := evaluated(s)) is not None}
        carried = [s for s in states if s.column in values and s.kind != "count_distinct"]
        keys = zip(key_names(self.query), self.query.keys, strict=True)
        rows = [
            sql.SQL("{} AS tenant").format(name("headwater_tenant")),
            *(
                sql.SQL("{} AS {}").format(enclosed(key.text), name(key_name))
                for key_name, key in keys
            ),
            *(sql.SQL("{} AS {}").format(value, name(column)) for column, value in values.items()),
        ]
        origins = {state.column: n for n, state in enumerate(self._layout.distincts, start=1)}
        selected = [collected(state, origins.get(state.column, 0)) for state in states]
        batch = [*self.tables.key_columns(), *(name(state.column) for state in carried)]
        return template("merge_distinct").format(
            opening=sql.SQL("{}, ").format(_moved()) if at_once else sql.SQL(""),
            evaluated=listed(rows),
            source=self._sources.rows("in_batch"),
            where=self._sources.where(template("has_moved") if at_once else None),
            fresh=sql.Composed([self._fresh(column, n) for column, n in origins.items()]),
            table=self.tables.main,
            columns=self._stored(),
            selected=listed([*self.tables.key_columns(), *selected]),
            batch_columns=listed(batch),
            fresh_rows=sql.Composed([self._fresh_rows(n, len(carried)) for n in origins.values()]),
            group_by=self._ordinals(),
            keys=self._keys(),
            resolution=self._resolution(),
        )

    def _fresh(self, column: str, number: int) -> sql.Composed:
        return template("fresh").format(
            name=_fresh_name(number),
            table=self.tables.distinct(number),
            columns=self._keys(),
            value=name(column),
        )

    def _fresh_rows(self, number: int, carried: int) -> sql.Composed:
        return template("fresh_rows").format(
            columns=self._keys(),
            nulls=appended([sql.SQL("NULL")] * carried),
            origin=sql.Literal(number),
            name=_fresh_name(number),
        )


def _moved() -> sql.Composed:
    return template("moved").format(advance=sql.SQL(RECORD["record.advance"]))


def _fresh_name(number: int) -> sql.Identifier:
    return sql.Identifier("_".join(("fresh", str(number))))
