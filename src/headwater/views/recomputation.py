"""Recomputing a SQL view in full, by an engine that holds the events as a feed. Pure data, and the port of stores that can.

The engine is asked for what a view keeps of each group, and not for what readers see of it: sums and counts, from
which Postgres itself makes the averages of both sides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from headwater.events import Column
from headwater.views.sql.query import IncrementalQuery, Output
from headwater.views.storage import Place

ValueKind = Literal["count", "sum", "magnitude", "min", "max", "count_distinct", "first", "last"]
"""``magnitude`` is the sum of the absolute values: what a sum of floats is near by."""

APPROXIMATIONS = frozenset({"quantile", "about_distinct"})
"""Kinds of outputs that no two engines compute alike."""


@dataclass(frozen=True, slots=True)
class GroupValue:
    """One value of each group: of which output, and its type in Postgres."""

    kind: ValueKind
    output: Output
    sql_type: str


@dataclass(frozen=True, slots=True)
class Recomputation:
    """A view's query over all events up to a position, but for some that it has set aside.

    The answer's columns are the tenant, the keys in the key's order, then ``values``. ``key_types`` are Postgres's.
    ``orders_by_bytes`` says whether the database compares texts by their bytes.
    """

    query: IncrementalQuery
    key_types: Sequence[str]
    values: Sequence[GroupValue]
    upto: int
    aside: Sequence[int]
    orders_by_bytes: bool


Recomputed = Callable[[], Awaitable[tuple[int, bytes]]]
"""Gives the feed's checkpoint, and the groups as CSV: NULL is empty, the empty text is quoted."""


@runtime_checkable
class Recomputes(Protocol):
    """Feeds' rows over which their store recomputes SQL views."""

    def recomputed(
        self, place: Place, columns: Mapping[str, Sequence[Column]], wanted: Recomputation
    ) -> Recomputed:
        """What recomputes it over a feed of these columns.

        Raises QueryRefused at once for what the engine would not compute as Postgres does, and when called for values
        beyond what it holds exactly.
        """
        ...
