"""The port that stores implement: what an engine must do to hold views.

A store is declared with the app (``Redis("fast")``) and does nothing then. An open app makes one
engine of it, and the engine one storage per view. Postgres, which holds the log, writes a view's data
and its checkpoint in the log's own database. Every other store keeps a checkpoint beside the data and
moves both in one atomic write; that checkpoint is the truth for exactly-once effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from headwater.events import Column
from headwater.log.database import Connection
from headwater.views.fold import Derived, Document, Key

Transform = Literal["fold", "sql", "feed"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a view's data lies within a store. A rebuild begins the next generation, empty."""

    log: str
    view: str
    generation: int


@dataclass(frozen=True, slots=True)
class LastEvent:
    """The newest event that a store's data rests on: proof of the history that it was derived from."""

    position: int
    id: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far the data of a view outside the log's database is, as the store itself says.

    ``revision`` rises whenever others than the relay's batches change the data. ``replayed`` are
    positions of parked events that were applied after all by the write that last raised it.
    """

    position: int = 0
    epoch: int = 0
    revision: int = 0
    last: LastEvent | None = None
    replayed: tuple[int, ...] = ()


@dataclass(slots=True)
class Step:
    """One atomic write: absolute documents, and the checkpoint from ``after`` to ``upto``."""

    after: int
    upto: int
    kept: list[Key] = field(default_factory=list)
    documents: list[bytes] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    removed: list[Key] = field(default_factory=list)
    before: Mapping[Key, Document | None] = field(default_factory=dict)
    states: Mapping[Key, Document | None] = field(default_factory=dict)
    last: LastEvent | None = None
    derived: list[Derived] = field(default_factory=list)


Culprit = tuple[int, Key | None, str, str]
"""Position, key where it can be told, reason, status."""


@dataclass(slots=True)
class SetAside:
    """Events of a batch that are not applied: culprits, and what follows them for the same key.

    Followers are (position, key).
    """

    culprits: list[Culprit] = field(default_factory=list)
    followers: list[tuple[int, Key]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.culprits or self.followers)


class DocumentsReading(Protocol):
    """A view of stored documents for checking them."""

    @property
    def position(self) -> int:
        """The checkpoint at which reading began. Documents may be newer where a relay goes on."""
        ...

    async def count(self) -> int:
        """How many documents there are."""
        ...

    def documents(self) -> AsyncIterator[tuple[Key, bytes]]:
        """Every document, each at least once."""
        ...

    async def at_once(self, keys: Sequence[Key]) -> tuple[int, dict[Key, bytes]]:
        """The documents of some keys and the checkpoint, read in one atomic step."""
        ...


class LogDocuments(Protocol):
    """A fold's documents in the log's own database: one commit for data, checkpoint, parked events."""

    async def create(self, connection: Connection) -> None:
        """Makes room for the record's generation."""
        ...

    async def drop(self, connection: Connection) -> None:
        """Removes the record's generation, where it is."""
        ...

    async def load(
        self, keys: Sequence[Key], connection: Connection
    ) -> Iterable[tuple[Key, bytes]]:
        """The documents of those keys that have one."""
        ...

    async def apply(self, step: Step, aside: SetAside) -> None:
        """A batch, with its checkpoint, in one commit."""
        ...

    async def write(self, connection: Connection, step: Step) -> None:
        """Documents alone, inside a transaction."""
        ...

    def reading(self, connection: Connection) -> AbstractAsyncContextManager[DocumentsReading]:
        """Reads for a check, inside a snapshot of the log's database."""
        ...


@dataclass(frozen=True, slots=True)
class Hold:
    """What a relay's writes carry: where the data lies, and what must still be so when they land."""

    place: Place
    fence: int
    epoch: int
    revision: int


class Storage(Protocol):
    """Views' data outside the log's database, each with its own checkpoint. Keeps no state itself."""

    async def open(self, place: Place, fence: int) -> Checkpoint:
        """Takes the data over under a fence; from then on every write of a lower one is refused.

        Creates what is missing, at position 0. Raises LeaseLost, StoreUnavailable or StoreRefused.
        """
        ...

    async def adopt(self, hold: Hold, checkpoint: Checkpoint) -> None:
        """Sets position and epoch; the data is the same. Raises LeaseLost."""
        ...

    async def sweep(self, place: Place, keep: Collection[int]) -> None:
        """Removes what is left of generations before this one, but for those to keep."""
        ...


class OutsideDocuments(Storage, Protocol):
    """Folds' documents outside the log's database."""

    @property
    def max_writes(self) -> int:
        """How many events one step may hold, so that no write holds the engine up."""
        ...

    async def load(self, place: Place, keys: Sequence[Key]) -> Iterable[tuple[Key, bytes]]:
        """The documents of those keys that have one."""
        ...

    async def apply(self, hold: Hold, steps: Sequence[Step]) -> None:
        """Writes steps in order, each atomic with its checkpoint; where one fails, so do the rest.

        Raises LeaseLost where checkpoint, fence or revision are not what a step goes on from.
        """
        ...

    async def disturb(self, place: Place) -> Checkpoint:
        """Raises the revision, so that the relay's next batch is refused and it opens anew."""
        ...

    async def redo(self, place: Place, checkpoint: Checkpoint, step: Step) -> Checkpoint:
        """Writes documents where position and revision are still this checkpoint's.

        The checkpoint's ``replayed`` and the next revision come with them. Raises LeaseLost.
        """
        ...

    def reading(self, place: Place) -> AbstractAsyncContextManager[DocumentsReading]:
        """Reads for a check."""
        ...

    async def get(self, place: Place, key: Key) -> tuple[int, bytes | None]:
        """The checkpoint and a document, read in one atomic step; -1 where nothing is stored."""
        ...

    async def page(
        self, place: Place, tenant: str, after: str, limit: int
    ) -> tuple[int, list[tuple[str, bytes]]]:
        """The checkpoint and a page of documents in the order of keys, in one atomic step."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one event type and one month: CSV as Postgres writes it, without a header.

    Times are microseconds since 1970; NULL is empty, and the empty text is quoted. ``after`` and
    ``upto`` are the range of positions that it covers.
    """

    type: str
    month: str
    columns: Sequence[Column]
    after: int
    upto: int
    data: bytes


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


class OutsideBatches(Storage, Protocol):
    """Rows outside the log's database, added batch by batch, each recorded before it is written."""

    @property
    def limits(self) -> Limits | None:
        """What values may be, or None where all may."""
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

    async def same(self, place: Place, file: StoredFile, part: Part) -> bool:
        """Whether a file holds exactly these rows."""
        ...

    def locate(self, place: Place, file: StoredFile) -> str:
        """Where other programs find a file."""
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
class Tended(Protocol):
    """Storage that needs work in the background, by whoever drives the view."""

    async def tend(self, hold: Hold, alone: asyncio.Lock) -> bool:
        """One bounded piece of work; whether there may be more.

        No batch is written under ``alone``, so it is taken for the least that must not meet one.
        Raises LeaseLost and what the engine's faults raise; what is stored is right whenever it ends.
        """
        ...


@dataclass(frozen=True, slots=True)
class StateColumn:
    """What a SQL view keeps for an aggregate: how the values of ``column`` come together in a group.

    ``kind`` is count (of rows where the column is true, or of all), sum, min, max or count_distinct.
    """

    column: Column
    kind: Literal["count", "sum", "min", "max", "count_distinct"]


@dataclass(frozen=True, slots=True)
class TableShape:
    """A SQL view as a table of groups: keys, the tenant first, and states.

    ``outputs`` are what readers see, in order: each a key or a state by its name, or two states of
    which the first is divided by the second.
    """

    keys: Sequence[Column]
    states: Sequence[StateColumn]
    outputs: Sequence[tuple[str, str, str | None]]


class OutsideTables(OutsideBatches, Protocol):
    """SQL views outside the log's database. The rows of a batch are its groups' values, not yet grouped."""

    def check(self, shape: TableShape) -> None:
        """Raises ViewDefinitionError for what would not mean here what it means in Postgres."""
        ...

    async def prepare(self, place: Place, shape: TableShape) -> None:
        """Makes room for a view of this shape."""
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

        A name without a value is not a condition. -1 where nothing is stored.
        """
        ...

    async def export(self, place: Place, shape: TableShape) -> tuple[int, bytes]:
        """The checkpoint, and groups at least as new.

        They are CSV: keys, states, and the end of the newest batch in the group; NULL is a backslash and N.
        """
        ...


class Engine(Protocol):
    """An open store: connections to one engine, shared by its views."""

    async def close(self) -> None:
        """Closes the connections. Idempotent."""
        ...


class DocumentsEngine(Engine, Protocol):
    """An engine that holds folds."""

    @property
    def documents(self) -> OutsideDocuments:
        """Where folds' documents go."""
        ...


class RowsEngine(Engine, Protocol):
    """An engine that holds feeds."""

    @property
    def every_seconds(self) -> float:
        """How long a feed that has caught up waits for more."""
        ...

    @property
    def rows(self) -> OutsideRows:
        """Where feeds' rows go."""
        ...


class TablesEngine(Engine, Protocol):
    """An engine that holds SQL views."""

    @property
    def every_seconds(self) -> float:
        """How long a view that has caught up waits for more."""
        ...

    @property
    def tables(self) -> OutsideTables:
        """Where SQL views are kept."""
        ...


class Store(Protocol):
    """A declaration: which engine, under which name. Nothing here does I/O."""

    @property
    def name(self) -> str:
        """The name under which settings know it."""
        ...

    @property
    def kind(self) -> str:
        """The engine's kind, such as ``redis``."""
        ...

    @property
    def transforms(self) -> frozenset[Transform]:
        """What runs in it. The rest is refused when the app is built."""
        ...

    def engine(self, url: str) -> Engine:
        """The engine at a URL, '' for its default. Connects when first used.

        Raises ExtraMissing and SettingError.
        """
        ...


@runtime_checkable
class Embeddable(Store, Protocol):
    """A store whose engine can be embedded, where no URL says otherwise."""

    def embedded_url(self, home: Path) -> str:
        """The URL of an engine below a folder."""
        ...


def name_of(store: Store) -> str:
    """A store as definitions of views name it."""
    return f"{store.kind}/{store.name}"
