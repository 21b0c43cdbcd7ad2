"""Rows that go to a store batch by batch: of feeds, and of SQL views."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from headwater.events import Column
from headwater.views.opening import Opened
from headwater.views.storage import Hold, LastEvent, Place, Storage


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one event type and one month: CSV as Postgres writes it, without a header.

    Times are microseconds since 1970; NULL is empty, and the empty text is quoted. ``after`` and
    ``upto`` are the range of positions that it covers. ``opened`` are its rows that hold what was sealed.
    """

    type: str
    month: str
    columns: Sequence[Column]
    after: int
    upto: int
    data: bytes
    opened: tuple[Opened, ...] = ()


@dataclass(slots=True)
class RowsStep:
    """A batch of rows, and the checkpoint from ``after`` to ``upto``.

    ``again`` says that it may have been written before, as a whole or in part.
    """

    after: int
    upto: int
    parts: list[Part]
    last: LastEvent | None = None
    again: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What a store's exact numbers and times hold. A value beyond is an event that cannot be applied.

    ``digits`` are those before the point; dates are the first and the last.
    """

    digits: int
    decimals: int
    first_date: str
    last_date: str


class StoredFile(msgspec.Struct, frozen=True):
    """Rows that a feed's store keeps together: of one type, one month and one range of positions."""

    path: str
    type: str
    month: str
    after: int
    upto: int
    rows: int
    bytes: int


ReadPart = Callable[[StoredFile, Sequence[int] | None], Awaitable[Part]]
"""A file's rows as the log gives them now: those at some positions, or all."""


class OutsideBatches(Storage, Protocol):
    """Rows outside the log's database, added batch by batch, each recorded before it is written."""

    @property
    def limits(self) -> Limits | None:
        """What values may be, or None where all may."""
        ...

    async def publish(self, place: Place) -> None:
        """Points the names that other programs read at this generation, as it is in the store. Idempotent."""
        ...

    async def trim(self, hold: Hold, upto: int) -> None:
        """Removes what lies beyond a position: left there by a history that the log lost.

        Raises ViewStale where it cannot be told apart from what is to stay.
        """
        ...

    async def append(self, hold: Hold, step: RowsStep) -> None:
        """Adds rows and moves the checkpoint, so that each batch counts once. Raises LeaseLost."""
        ...


class OutsideRows(OutsideBatches, Protocol):
    """Feeds' rows outside the log's database."""

    async def prepare(self, place: Place, columns: Mapping[str, Sequence[Column]]) -> None:
        """Makes room for rows of these types. Raises StoreRefused for columns that it cannot keep."""
        ...

    def first(self) -> int:
        """Rows up to this position may be gone, by the store's own retention; 0 where none are."""
        ...

    async def files(self, place: Place) -> tuple[int, list[StoredFile]]:
        """The checkpoint and what is stored up to it; -1 where nothing is."""
        ...

    async def differing(self, place: Place, file: StoredFile, part: Part, limit: int) -> list[str]:
        """The positions at which a file does not hold exactly these rows, the first ``limit``.

        The file's path, where its rows do not tell their positions.
        """
        ...

    def locate(self, place: Place, file: StoredFile) -> str:
        """Where other programs find a file."""
        ...


@runtime_checkable
class PurgedRows(Protocol):
    """Rows that can be written anew, without what they held before."""

    async def purge(
        self, hold: Hold, rows: Sequence[tuple[StoredFile, Sequence[int]]], read: ReadPart
    ) -> str:
        """Writes the rows of one type, at some positions of its files, as ``read`` gives them; what stays, where some does.

        Raises LeaseLost.
        """
        ...


class Queryable(OutsideRows, Protocol):
    """Feeds' rows that Headwater itself runs SQL over."""

    def table(
        self,
        place: Place,
        files: Sequence[StoredFile],
        columns: Sequence[Column],
        tenant: str | None,
    ) -> Any:
        """The rows of files, of one tenant or of all, as a dataset that the engine of queries reads."""
        ...


@runtime_checkable
class AskedViews(Protocol):
    """Views over which their store runs SQL of the application's own."""

    async def position(self, place: Place) -> int:
        """The checkpoint's position; -1 where nothing is stored."""
        ...

    async def shown(self, place: Place) -> Mapping[str, str]:
        """The names by which a SELECT finds a view, and what each stands for in this generation."""
        ...

    async def ask(
        self,
        select: str,
        parameters: Mapping[str, object],
        shown: Mapping[str, str],
        tenant: str,
    ) -> list[dict[str, Any]]:
        """The rows of a SELECT over these names, of which each shows one tenant's rows.

        Raises QueryRefused for what is no SELECT.
        """
        ...


@runtime_checkable
class Tended(Protocol):
    """Storage that needs work in the background, by whoever drives the view."""

    async def tend(self, hold: Hold, alone: asyncio.Lock) -> bool:
        """One bounded piece of work; whether there may be more.

        No batch is written under ``alone``, so it is taken for the least that must not meet one.
        Raises LeaseLost and what the engine's faults raise; what is stored is right whenever it ends.
        """
        ...


TALLY_ERROR = 0.01
"""How far a quantile is off at most, as a part of its value."""
TALLY_GAMMA = (1 + TALLY_ERROR) / (1 - TALLY_ERROR)
"""How much larger each bucket of a tally is than the one before it."""


@dataclass(frozen=True, slots=True)
class StateColumn:
    """What a SQL view keeps for an aggregate: how the values of ``column`` come together in a group.

    ``kind`` is count (of rows where the column is true, or of all), sum, min, max, count_distinct, or one of:
    first and last, of texts that are least and greatest by their bytes, the value from their 41st character
    on; tally and registers, of numbers whose upper bits are a key, and whose lower 40 bits are added by
    key or of which the largest stands.
    """

    column: Column
    kind: Literal[
        "count", "sum", "min", "max", "count_distinct", "first", "last", "tally", "registers"
    ]


@dataclass(frozen=True, slots=True)
class TableShape:
    """A SQL view as a table of groups: keys, the tenant first, and states.

    ``outputs`` are what readers see, in order: each a key or a state by its name, or two states of
    which the first is divided by the second. ``types`` are their types in Postgres, ``levels`` those of
    quantiles, by their names.
    """

    keys: Sequence[Column]
    states: Sequence[StateColumn]
    outputs: Sequence[tuple[str, str, str | None]]
    types: Mapping[str, str] = field(default_factory=dict)
    levels: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Within:
    """A condition on a key: from ``start``, before ``end``. Without a start, the newest come first."""

    start: object | None
    end: object


class OutsideTables(OutsideBatches, Protocol):
    """SQL views outside the log's database. The rows of a batch are its groups' values, not yet grouped."""

    def check(self, shape: TableShape) -> None:
        """Raises ViewDefinitionError for what would not mean here what it means in Postgres."""
        ...

    async def prepare(self, place: Place, shape: TableShape) -> None:
        """Makes room for a view of this shape."""
        ...

    async def forget(self, place: Place, bucket: str, before: datetime) -> None:
        """Removes groups whose key ``bucket``, a time or a date, is before a time. Idempotent."""
        ...

    async def read(
        self,
        place: Place,
        tenant: str,
        outputs: Sequence[str],
        key: Mapping[str, object],
        limit: int,
    ) -> tuple[int, list[Sequence[Any]]]:
        """The checkpoint, and rows at least as new: of a key, or of all in the order of ``key``'s names.

        A name whose value is ... is not a condition; a ``Within`` is a range. -1 where nothing is stored.
        """
        ...

    async def export(self, place: Place, shape: TableShape) -> tuple[int, bytes]:
        """The checkpoint, and groups at least as new.

        They are CSV: keys, states, and the end of the newest batch in the group; NULL is a backslash and N.
        """
        ...
