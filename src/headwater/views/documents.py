"""A fold's documents: what a batch writes, and where they are kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from headwater.log.database import Connection
from headwater.views.fold import Derived, Document, Key
from headwater.views.indexes import Counter, Distinct, Entry, Index, Places, Ranking, Seen
from headwater.views.opening import Opened
from headwater.views.storage import Checkpoint, Hold, LastEvent, Place, Storage


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
    indexes: tuple[Index, ...] = ()
    seen: Seen = field(default_factory=lambda: Seen(()))
    opened: tuple[Opened, ...] = ()


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


@runtime_checkable
class Sliced(Protocol):
    """Documents of which several processes may each write a slice: ``Place.slice`` has a checkpoint of its own."""

    @property
    def max_slices(self) -> int:
        """How many slices a generation may have."""
        ...


@runtime_checkable
class Rewritten(Protocol):
    """Documents whose engine keeps on disk what was overwritten, until it writes its files anew."""

    async def rewrite(self) -> str:
        """Has the files written anew; what stays, where some does."""
        ...


class IndexReading(Protocol):
    """A view of stored indexes for checking them, and the documents that they follow from."""

    async def strays(
        self, indexes: Sequence[Index], decode: Callable[[bytes], object]
    ) -> list[tuple[Key, str, Entry, Entry]]:
        """Where an index and the document stored beside it disagree.

        Each with the index's name, what follows from the document, and what is stored; distinct counts aside.
        """
        ...

    async def counted(
        self, index: Distinct, values: Mapping[Key, Collection[str]]
    ) -> tuple[int, dict[Key, tuple[int, int, int]]]:
        """The checkpoint, and for each key three counts: stored, of the values, and of both together."""
        ...


@runtime_checkable
class IndexedDocuments(Protocol):
    """Documents outside the log's database with indexes beside them. Reads as ``OutsideDocuments.get`` does."""

    async def leaders(
        self, place: Place, index: Ranking, tenant: str, limit: int
    ) -> tuple[int, list[tuple[str, float]]]:
        """The checkpoint, and the keys of the highest scores."""
        ...

    async def rank(self, place: Place, index: Ranking, key: Key) -> tuple[int, int | None]:
        """The checkpoint, and how many keys are before this one, plus 1."""
        ...

    async def counts(
        self, place: Place, index: Counter, tenant: str, keys: Sequence[str]
    ) -> tuple[int, list[str | None]]:
        """The checkpoint, and the number of each key."""
        ...

    async def distinct(
        self, place: Place, index: Distinct, tenant: str, keys: Sequence[str]
    ) -> tuple[int, int]:
        """The checkpoint, and about how many different values the keys have had together."""
        ...

    async def near(
        self,
        place: Place,
        index: Places,
        tenant: str,
        at: tuple[float, float],
        metres: float,
        limit: int,
    ) -> tuple[int, list[tuple[str, float]]]:
        """The checkpoint, and the nearest keys within a distance, with their distances in metres."""
        ...

    def indexed(self, place: Place) -> IndexReading:
        """Reads for a check."""
        ...
