"""The SELECT by which an engine recomputes a view over a feed's tables.

Rows are evaluated before they are grouped: the tenant, the keys, one value for each aggregate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import count
from string import Template
from typing import TYPE_CHECKING

from sqlglot import exp

from headwater.errors import QueryRefused
from headwater.log.statements import Statements
from headwater.views.sql.dialect import Dialect, Value, kind_of
from headwater.views.sql.translating import Translator

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from headwater.events import Column
    from headwater.views.recomputation import GroupValue, Recomputation
    from headwater.views.sql.query import Reading

_SQL = Statements("headwater.views.sql")

Sizes = Mapping[tuple[str, str], tuple[int, int]]
"""By event type and column: how many digits a decimal's values have at most, before the point and after it."""

_NO_SIZE = (1, 0)
_MOST_ROWS_DIGITS = 17
"""Positions are below 2^53, and a UNION ALL may read each a few times."""
_SUMMED = frozenset({"integer", "decimal", "float"})
_ORDERED = frozenset({"integer", "decimal", "float", "date", "time", "text"})
_EXACT = frozenset({"integer", "decimal", "boolean", "text", "uuid", "date", "time"})
"""Kinds whose values two engines tell apart alike."""


@dataclass(frozen=True, slots=True)
class RecomputingQuery:
    """A recomputation in one engine's SQL; ``tables`` names the table of an event type."""

    wanted: Recomputation
    dialect: Dialect
    tables: Callable[[str], str]

    def measure(self) -> str | None:
        """The SELECT of ``Sizes``: type, column, digits. None where no decimals or floats are read."""
        found = {
            (reading.source.name, column.name): column
            for reading in self.wanted.query.readings
            for column in reading.columns
            if kind_of(column.sql_type) in self.dialect.digits_of
        }
        selects = [self._measured(name, column) for (name, _), column in found.items()]
        return _united(selects) if selects else None

    def select(self, sizes: Sizes | None = None) -> str:
        """The SELECT of the groups: the tenant, the keys, the values.

        Raises QueryRefused for what is not computed alike. Without sizes that is all that it tells.
        """
        try:
            return self._select(sizes or {})
        except QueryRefused as error:
            raise QueryRefused(
                f"{self.dialect.engine} does not recompute the view {self.wanted.query.name!r}: {error.message}",
                hint="Verify it against the log, without --by, or write the expression otherwise.",
            ) from error

    def _select(self, sizes: Sizes) -> str:
        query = self.wanted.query
        source, columns = self._source(sizes)
        translator = self._translator(columns)
        keys = [f"hw_k{n}" for n, _ in enumerate(query.keys)]
        evaluated = [
            _named(self._key(translator, n, key.text).sql, name)
            for n, (key, name) in enumerate(zip(query.keys, keys, strict=True))
        ]
        aggregates = []
        for n, wanted in enumerate(self.wanted.values):
            values, aggregate = self._value(translator, wanted, f"hw_v{n}")
            evaluated += values
            aggregates.append(aggregate)
        output = self.dialect.words("output") or "{0}"
        return _statement(
            "groups",
            shown=_listed(["hw_t", *(output.format(one) for one in (*keys, *aggregates))]),
            evaluated=_listed(["hw_t", *evaluated]),
            source=source,
            condition=_condition(translator, query.condition),
            keys=_listed(["hw_t", *keys]),
        )

    def _key(self, translator: Translator, place: int, text: str) -> Value:
        value = translator.typed(text)
        declared = self.wanted.key_types[place]
        if value.kind not in _EXACT or value.kind != kind_of(declared):
            raise translator.refused(text, f"values of {declared} are not told apart alike")
        return value

    # What is read --------------------------------------------------------------------------------

    def _source(self, sizes: Sizes) -> tuple[str, dict[str, Value]]:
        """The rows that the query's expressions are over, and its columns."""
        query, numbers = self.wanted.query, count()
        if query.derived is None:
            return self._rows(query.readings[0], sizes, numbers)
        branches: list[tuple[str, str, list[Value]]] = []
        for reading in query.readings:
            rows, columns = self._rows(reading, sizes, numbers)
            translator = self._translator(columns)
            values = [translator.value(projection.text) for projection in reading.projections]
            branches.append((rows, _condition(translator, reading.condition), values))
        names = [projection.name for projection in query.readings[0].projections]
        translator = self._translator({})
        united = [
            translator.alike(column, name)
            for name, column in zip(names, zip(*(b[2] for b in branches), strict=True), strict=True)
        ]
        selects = [
            _statement(
                "branch",
                columns=_listed(
                    ["hw_t", *(_named(c[n].sql, f"hw_d{place}") for place, c in enumerate(united))]
                ),
                rows=rows,
                condition=condition,
            )
            for n, (rows, condition, _) in enumerate(branches)
        ]
        return _united(selects), {
            name: translator.one_of(f"hw_d{place}", column)
            for place, (name, column) in enumerate(zip(names, united, strict=True))
        }

    def _rows(
        self, reading: Reading, sizes: Sizes, numbers: Iterator[int]
    ) -> tuple[str, dict[str, Value]]:
        """One type's rows, and those of its columns that have a counterpart."""
        type_name, columns = reading.source.name, dict[str, Value]()
        selected = [_named(self._quoted("tenant"), "hw_t")]
        for column in reading.columns:
            kind = kind_of(column.sql_type)
            if kind is None or kind not in self.dialect.columns:
                continue  # what names it is refused
            name, size = f"hw_c{next(numbers)}", (0, 0)
            if kind in self.dialect.digits_of:
                size = sizes.get((type_name, column.name), _NO_SIZE)
            read = self.dialect.columns[kind].format(self._quoted(column.name), scale=size[1])
            selected.append(_named(read, name))
            columns[column.name] = Value(name, kind, *size)
        rows = _statement(
            "rows", columns=_listed(selected), table=self.tables(type_name), within=self._within()
        )
        return rows, columns

    def _measured(self, type_name: str, column: Column) -> str:
        kind, read = kind_of(column.sql_type), self._quoted(column.name)
        assert kind is not None
        return _statement(
            "measured", type=self._text(type_name), column=self._text(column.name),
            digits=self.dialect.digits_of[kind].format(read), decimals=self.dialect.decimals_of[kind].format(read),
            table=self.tables(type_name), within=self._within(),
        )  # fmt: skip

    def _within(self) -> str:
        name = "within_but" if self.wanted.aside else "within"
        aside = _listed(map(str, self.wanted.aside))
        position = self._quoted("position")
        return _statement(name, position=position, upto=self.wanted.upto, aside=aside)

    # What is computed ----------------------------------------------------------------------------

    def _value(
        self, translator: Translator, wanted: GroupValue, name: str
    ) -> tuple[list[str], str]:
        """What a row brings to an aggregate, and the aggregate over it."""
        output = wanted.output
        condition = None if output.condition is None else translator.condition(output.condition)
        if output.argument is None:
            counted = translator.words("count", output.text).format(name)
            return [_named(_only_where(condition, "1"), name)], counted
        value = translator.typed(output.argument)
        self._check(translator, wanted, value)
        operation, sql = wanted.kind, value.sql
        if wanted.kind == "magnitude":
            operation, sql = "sum", translator.words("abs", output.text).format(sql)
        words = translator.words(operation, output.text)
        evaluated = [_named(_only_where(condition, sql), name)]
        if wanted.kind not in {"first", "last"}:
            return evaluated, words.format(name)
        place = _only_where(condition, self._place(translator, wanted, value))
        return [*evaluated, _named(place, f"{name}_at")], words.format(name, f"{name}_at")

    def _place(self, translator: Translator, wanted: GroupValue, value: Value) -> str:
        """By what first and last go: a number, NULL where a row does not count."""
        output = wanted.output
        assert output.position is not None
        reads = [reading.source.name for reading in self.wanted.query.readings]
        if len(set(reads)) < len(reads):
            raise translator.refused(output.text, "one event may be there twice, at one position")
        place = translator.value(output.position).sql
        counts = translator.words("is_not_null", output.text).format(value.sql)
        if output.order is not None:
            order = translator.brought(translator.value(output.order), "time", output.text)
            place = translator.words("moment_and_position", output.text).format(order.sql, place)
            also = translator.words("is_not_null", output.text).format(order.sql)
            counts = translator.words("and", output.text).format(counts, also)
        return _only_where(counts, place)

    def _check(self, translator: Translator, wanted: GroupValue, value: Value) -> None:
        """Raises QueryRefused for an aggregate that the engine would not compute alike."""
        kind, text = wanted.kind, wanted.output.text
        if kind in {"sum", "magnitude"}:
            if value.kind not in _SUMMED:
                raise translator.refused(text, f"it sums {value.kind} values")
            digits = value.digits + _MOST_ROWS_DIGITS
            translator.held(Value(value.sql, value.kind, digits, value.scale), text)
        if kind in {"min", "max"} and value.kind not in _ORDERED:
            raise translator.refused(text, f"{value.kind} values are not put in order")
        if kind in {"min", "max"} and value.kind == "text":
            translator.require_bytes(text)
        if kind in {"count_distinct", "first", "last"} and value.kind not in _EXACT:
            raise translator.refused(text, f"{value.kind} values are not told apart alike")
        if kind in {"min", "max", "first", "last"} and kind_of(wanted.sql_type) != value.kind:
            raise translator.refused(
                text, f"it is a {value.kind} value there, and {wanted.sql_type} in Postgres"
            )

    def _translator(self, columns: Mapping[str, Value]) -> Translator:
        return Translator(self.dialect, columns, orders_by_bytes=self.wanted.orders_by_bytes)

    def _quoted(self, name: str) -> str:
        return exp.to_identifier(name, quoted=True).sql(dialect=self.dialect.sqlglot)

    def _text(self, text: str) -> str:
        return exp.Literal.string(text).sql(dialect=self.dialect.sqlglot)


def _condition(translator: Translator, text: str | None) -> str:
    return _SQL["recomputing.always"] if text is None else translator.condition(text)


def _only_where(condition: str | None, value: str) -> str:
    if condition is None:
        return value
    return _statement("only_where", condition=condition, value=value)


def _named(value: str, name: str) -> str:
    return _statement("named", value=value, name=name)


def _united(selects: Sequence[str]) -> str:
    return reduce(lambda first, second: _statement("united", first=first, second=second), selects)


def _statement(name: str, /, **parts: object) -> str:
    return Template(_SQL[f"recomputing.{name}"]).substitute({k: str(v) for k, v in parts.items()})


def _listed(parts: Iterable[str]) -> str:
    return ", ".join(parts)
