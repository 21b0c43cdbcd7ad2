"""The port that stores implement: what an engine must do to hold views.

A store is declared with the app (``Redis("fast")``) and does nothing then. An open app makes one
engine of it, and the engine one storage per view. Postgres, which holds the log, writes a view's data
and its checkpoint in the log's own database. Every other store keeps a checkpoint beside the data and
moves both in one atomic write; that checkpoint is the truth for exactly-once effect.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

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

    async def sweep(self, place: Place) -> None:
        """Removes what is left of generations before this one."""
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
    """One atomic write of a feed: rows, and the checkpoint from ``after`` to ``upto``."""

    after: int
    upto: int
    parts: list[Part]
    last: LastEvent | None = None


class StoredFile(msgspec.Struct, frozen=True):
    """Rows that a feed's store keeps together: of one type, one month and one range of positions."""

    path: str
    type: str
    month: str
    after: int
    upto: int
    rows: int
    bytes: int


class OutsideRows(Storage, Protocol):
    """Feeds' rows outside the log's database."""

    async def append(self, hold: Hold, step: RowsStep) -> None:
        """Adds rows and moves the checkpoint, in one atomic write. Raises LeaseLost."""
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


def name_of(store: Store) -> str:
    """A store as definitions of views name it."""
    return f"{store.kind}/{store.name}"
