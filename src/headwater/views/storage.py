"""Where a view's data lies outside the log's database, how far it is, and under whose hand.

Every such storage keeps a checkpoint beside the data and moves both in one atomic write; that checkpoint is
the truth for exactly-once effect.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Place:
    """Where a view's data lies within a store. A rebuild begins the next generation, empty.

    Where several processes build a generation, each a ``slice`` of its keys, a slice has a checkpoint of its own, and
    shares the rest.
    """

    log: str
    view: str
    generation: int
    slice: int | None = None


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
        """Sets position, epoch and, where there is one, the last event; the data is the same. Raises LeaseLost."""
        ...

    async def sweep(self, place: Place, keep: Collection[int]) -> None:
        """Removes what is left of generations before this one, but for those to keep."""
        ...
