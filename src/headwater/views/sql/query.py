"""A query that batches can keep up to date, described without any parser's types.

Every ``str`` that holds SQL is the user's own text: balanced, without its alias, with literal
percent signs, and safe to put between parentheses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from headwater.views.sql.sources import DocumentSource, EventSource

if TYPE_CHECKING:
    from headwater.events.relations import Column

OutputKind = Literal[
    "key",
    "count",
    "sum",
    "min",
    "max",
    "avg",
    "count_distinct",
    "first",
    "last",
    "quantile",
    "about_distinct",
]
KEEPS_NO_VALUE: frozenset[OutputKind] = frozenset(
    {"min", "max", "count_distinct", "first", "last", "quantile", "about_distinct"}
)
"""Aggregates that cannot be taken back, since the next value to stand is not kept."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output column: a group key or one aggregate.

    ``text`` is the whole expression as written. ``argument`` is what the key or the aggregate is
    over (None for ``count(*)``), ``condition`` the FILTER's condition. First and last are by ``order``, then
    by ``position``; ``level`` is which quantile.
    """

    name: str
    kind: OutputKind
    text: str
    argument: str | None = None
    condition: str | None = None
    order: str | None = None
    position: str | None = None
    level: float | None = None


@dataclass(frozen=True, slots=True)
class Projection:
    """One column that a branch of a derived table yields."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Reading:
    """One source as the query reads it: only the columns used, under the alias used.

    ``projections`` and ``condition`` are a derived table's branch's own; a plain FROM has none.
    """

    source: EventSource | DocumentSource
    alias: str
    columns: tuple[Column, ...]
    projections: tuple[Projection, ...] = ()
    condition: str | None = None


@dataclass(frozen=True, slots=True)
class IncrementalQuery:
    """A view's query: where its rows come from, its keys and its aggregates.

    ``outputs`` are in the declared order, ``key`` in the order of the declared key. With
    ``derived`` the readings are the branches of a derived table of that alias. ``functions`` are
    the functions called, lower case, qualified as written; only the database knows whether they
    are immutable. ``over`` names the SQL view whose groups it brings together: the readings are that view's.
    """

    name: str
    key: tuple[str, ...]
    outputs: tuple[Output, ...]
    readings: tuple[Reading, ...]
    derived: str | None
    condition: str | None
    functions: tuple[str, ...]
    over: str | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """The event types read, or the one fold, each once."""
        return tuple(dict.fromkeys(reading.source.name for reading in self.readings))

    @property
    def over_documents(self) -> bool:
        """Whether the query reads a fold's documents instead of events."""
        return isinstance(self.readings[0].source, DocumentSource)

    @property
    def keys(self) -> tuple[Output, ...]:
        """The group keys, in the order of the declared key."""
        by_name = {output.name: output for output in self.outputs}
        return tuple(by_name[name] for name in self.key)

    @property
    def aggregates(self) -> tuple[Output, ...]:
        """The aggregates, in the declared order."""
        return tuple(output for output in self.outputs if output.kind != "key")
