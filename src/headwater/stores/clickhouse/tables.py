"""SQL views in ClickHouse: a materialized view brings the values of each batch together.

They go into a table that keeps nothing, and from there into a table of aggregate states. The values are evaluated by Postgres as the batch is read, by the expressions as they were written. A batch
is one insert, whose only lasting effect is one block in the table of states. Each row of it carries where
its batch ends, which is the evidence that the batch is there, through all merges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Context, Decimal
from typing import Any

from headwater.errors import ViewDefinitionError, ViewStale
from headwater.stores.clickhouse.batches import SHOWN, ClickHouseBatches
from headwater.stores.clickhouse.columns import base_type
from headwater.stores.clickhouse.shown import output_of
from headwater.stores.clickhouse.text import listed, quoted, statement
from headwater.views.batches import Part, StateColumn, TableShape, Within
from headwater.views.storage import Hold, Place

_UPTO = "headwater_upto"
_INBOX, _MATERIALIZED, _GROUPS = "values", "view", "groups"
_EXACT = Context(prec=80)
_SKETCHES = {"tally", "registers"}
_SKETCH = "Map(Int64, UInt64)"
_FUNCTIONS = {
    "count": "sum", "count_distinct": "uniqExactMerge", "first": "min", "last": "max",
    "tally": "sumMap", "registers": "maxMap",
}  # fmt: skip
"""What brings states together, where it is not named like them."""


class ClickHouseTables(ClickHouseBatches):
    """See OutsideTables."""

    # Room ----------------------------------------------------------------------------------------

    def check(self, shape: TableShape) -> None:
        """Refuses what would not mean the same in ClickHouse. Raises ViewDefinitionError."""
        check(shape)

    async def prepare(self, place: Place, shape: TableShape) -> None:
        """Creates the inbox, the table of groups, the view between them and what readers see."""
        engine = self._engine
        check(shape)
        for text in self.statements(place, shape):
            await engine.run(text)

    def statements(self, place: Place, shape: TableShape) -> list[str]:
        """What creates a view's tables, in order."""
        engine = self._engine
        clause = {"on_cluster": engine.on_cluster}
        keys = listed(quoted(column.name) for column in shape.keys)
        columns = [f"{quoted(c.name)} {_key_type(c.name, c.sql_type)}" for c in shape.keys]
        values = [f"{quoted(s.column.name)} Nullable({_value_type(s)})" for s in shape.states]
        states = [f"{quoted(s.column.name)} {_state_type(s)}" for s in shape.states]
        groups, inbox = self._table(place, _GROUPS), self._table(place, _INBOX)
        shown = {
            "outputs": listed(output_of(shape, *output) for output in shape.outputs),
            "keys": keys,
            "merged": _merged(shape),
            "table": groups,
        }
        return [
            statement(
                "tables.create", table=groups, layout=engine.layout, order=keys,
                columns=",\n  ".join([*columns, *states, f"{_UPTO} SimpleAggregateFunction(max, UInt64)"]),
                engine=engine.kind("AggregatingMergeTree"), **clause,
            ),
            statement(
                "tables.create_inbox", inbox=inbox,
                columns=",\n  ".join([*columns, *values, f"{_UPTO} UInt64"]), **clause,
            ),
            statement(
                "tables.create_materialized", materialized=self._table(place, _MATERIALIZED),
                table=groups, inbox=inbox, keys=keys,
                states=listed(f"{_initial(s)} AS {quoted(s.column.name)}" for s in shape.states) or "1",
                **clause,
            ),
            statement("tables.show", name=self._shown(place), **shown, **clause),
        ]  # fmt: skip

    def _table(self, place: Place, what: str) -> str:
        return quoted(self._engine.database, self._name(place, what))

    # Driving -------------------------------------------------------------------------------------

    async def trim(self, hold: Hold, upto: int) -> None:
        """Raises ViewStale where the groups hold a batch beyond: it cannot be taken out again."""
        written = await self._written(hold.place)
        if written > upto:
            raise ViewStale(
                f"The data of {hold.place.view!r} holds events up to position {written}, and this log "
                f"knows of none that were written beyond {upto}: the log was restored.",
                hint=f"Run headwater rebuild {hold.place.view}.",
            )

    async def _is_written(self, place: Place, part: Part) -> bool:
        return await self._written(place) >= part.upto

    async def _written(self, place: Place) -> int:
        text = statement(
            "tables.written", table=self._table(place, _GROUPS), reading=self._engine.reading
        )
        written: int = (await self._engine.query(text))[0][0]
        return written

    def _insert(self, place: Place, part: Part) -> tuple[str, dict[str, Any]]:
        return self._table(place, _INBOX), {_UPTO: part.upto}

    async def forget(self, place: Place, bucket: str, before: datetime) -> None:
        """Removes old groups, where there are any.

        The evidence of a batch may go with them, but not while it is needed: a batch that is not yet at
        the checkpoint and has left no other group would only bring back groups that are to be removed.
        """
        engine = self._engine
        old = {"table": self._table(place, _GROUPS), "bucket": quoted(bucket)}
        bound = {"before": before}
        text = statement("tables.old", reading=engine.reading, **old)
        if (await engine.query(text, bound))[0][0]:
            await engine.run(statement("tables.forget", on_cluster=engine.on_cluster, **old), bound)

    # Reading -------------------------------------------------------------------------------------

    async def read(
        self,
        place: Place,
        tenant: str,
        outputs: Sequence[str],
        key: Mapping[str, object],
        limit: int,
    ) -> tuple[int, list[Sequence[Any]]]:
        """The checkpoint, then the rows, which are therefore no older; see OutsideTables."""
        engine = self._engine
        position = await self.position(place)
        if position < 0:
            return position, []
        described = await engine.query(
            statement("tables.describe"),
            {"database": engine.database, "table": self._name(place, SHOWN)},
        )
        types: dict[str, str] = {row[0]: row[1] for row in described}
        conditions, parameters = (
            [f"{quoted('tenant')} = {{tenant:String}}"],
            {"tenant": tenant, "limit": limit},
        )
        order = listed(map(quoted, key)) or "tuple()"
        for number, (name, value) in enumerate(key.items(), start=1):
            if value is ...:
                continue
            if value is None:
                conditions.append(f"{quoted(name)} IS NULL")
                continue
            if isinstance(value, Within):
                bounds = {"end": ("<", value.end), "start": (">=", value.start)}
                for bound, (operator, at) in bounds.items():
                    if at is not None:
                        conditions.append(f"{quoted(name)} {operator} {{{bound}:{types[name]}}}")
                        parameters[bound] = at
                if value.start is None:
                    order = f"{quoted(name)} DESC"
                continue
            conditions.append(f"{quoted(name)} = {{key_{number}:{types[name]}}}")
            parameters[f"key_{number}"] = str(value) if isinstance(value, Decimal) else value
        text = statement(
            "tables.read", shown=self._shown(place), reading=engine.reading,
            outputs=listed(map(quoted, outputs)), condition=" AND ".join(conditions),
            order=order,
        )  # fmt: skip
        rows = await engine.query(text, parameters)
        return position, [tuple(_shortened(value) for value in row) for row in rows]

    async def export(self, place: Place, shape: TableShape) -> tuple[int, bytes]:
        """The checkpoint, then all groups as CSV; see OutsideTables."""
        position = await self.position(place)
        if position < 0:
            return position, b""
        text = statement(
            "tables.export", table=self._table(place, _GROUPS), reading=self._engine.reading,
            keys=listed(quoted(column.name) for column in shape.keys), merged=_merged(shape),
            exported=listed([*(quoted(c.name) for c in shape.keys), *map(_exported, shape.states)]),
        )  # fmt: skip
        return position, await self._engine.raw(text)


def check(shape: TableShape) -> None:
    """Refuses what would not mean the same in ClickHouse. Raises ViewDefinitionError."""
    for column in shape.keys:
        if column.sql_type in {"jsonb", "real", "double precision"}:
            raise ViewDefinitionError(
                f"ClickHouse does not group by {column.sql_type} as Postgres does.",
                hint="Cast the key to text, numeric or bigint.",
            )
    for state in shape.states:
        sql_type = state.column.sql_type
        is_text = sql_type in {"text", "jsonb"} or sql_type.startswith("character")
        if state.kind in {"min", "max"} and (is_text or sql_type == "uuid"):
            raise ViewDefinitionError(
                f"ClickHouse does not order {sql_type} as Postgres does, so {state.kind}() would differ.",
                hint="Take it of a number or a time, or leave store= out.",
            )
        if state.kind == "count_distinct" and sql_type in {"jsonb", "real", "double precision"}:
            raise ViewDefinitionError(
                f"ClickHouse does not tell values of {sql_type} apart as Postgres does.",
                hint="Cast the argument to text or numeric.",
            )
        if state.kind != "count":
            base_type(sql_type)


def _key_type(name: str, sql_type: str) -> str:
    return "LowCardinality(String)" if name == "tenant" else f"Nullable({base_type(sql_type)})"


def _value_type(state: StateColumn) -> str:
    return "Bool" if state.kind == "count" else base_type(state.column.sql_type)


def _sum_type(state: StateColumn) -> str:
    """What a sum is kept as: wide enough for any, as Postgres's sum of bigint is numeric."""
    return {"Int16": "Int64", "Int32": "Int64"}.get(_value_type(state), _value_type(state))


def _state_type(state: StateColumn) -> str:
    match state.kind:
        case "count":
            return "SimpleAggregateFunction(sum, Int64)"
        case "sum":
            return f"SimpleAggregateFunction(sum, Nullable({_sum_type(state)}))"
        case "count_distinct":
            return f"AggregateFunction(uniqExact, Nullable({_value_type(state)}))"
        case "first" | "last":
            return f"SimpleAggregateFunction({_FUNCTIONS[state.kind]}, Nullable(String))"
        case "tally" | "registers":
            return f"SimpleAggregateFunction({_FUNCTIONS[state.kind]}, {_SKETCH})"
        case kind:
            return f"SimpleAggregateFunction({kind}, Nullable({_value_type(state)}))"


def _initial(state: StateColumn) -> str:
    """A state of the rows of one batch."""
    name = quoted(state.column.name)
    match state.kind:
        case "count":
            return f"toInt64(countIf({name}))"
        case "count_distinct":
            return f"uniqExactState({name})"
        case "first" | "last":
            return f"{_FUNCTIONS[state.kind]}({name})"
        case "tally" | "registers":
            return f"{_FUNCTIONS[state.kind]}({statement('tables.entry', entry=name)})"
        case kind:
            return f"{kind}({name})"


def _merged(shape: TableShape) -> str:
    """The states of one group's rows, as one value each."""
    merges = []
    for state in shape.states:
        name = quoted(state.column.name)
        function = _FUNCTIONS.get(state.kind, state.kind)
        # Under the same name the alias would stand for the state inside the aggregate too.
        merges.append(f"{function}({quoted('groups', state.column.name)}) AS {name}")
    return listed(merges) or "1"


def _exported(state: StateColumn) -> str:
    """A state as Postgres reads it in CSV."""
    name = quoted(state.column.name)
    return statement("tables.exported_sketch", state=name) if state.kind in _SKETCHES else name


def _shortened(value: Any) -> Any:
    """A decimal without the zeros that its column's scale gave it."""
    if not isinstance(value, Decimal) or not value.is_finite():
        return value
    plain = value.normalize(_EXACT)
    return (
        plain if int(plain.as_tuple().exponent) <= 0 else plain.quantize(Decimal(1), context=_EXACT)
    )


__all__ = ["ClickHouseTables", "check"]
