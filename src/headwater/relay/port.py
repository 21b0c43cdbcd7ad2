"""What the relay asks of whatever it feeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from headwater.log.database import Connection
from headwater.relay.frontier import Frontier

OnFailure = Literal["park", "skip", "stop"]


@dataclass(frozen=True, slots=True)
class Batch:
    """The positions after ``after`` up to and including ``upto``.

    ``parked`` and ``skipped`` are positions in it that could not be applied, each with the reason:
    the former are set aside with what follows for the same key, the latter are left out.
    """

    after: int
    upto: int
    parked: Mapping[int, str] = field(default_factory=dict)
    skipped: Mapping[int, str] = field(default_factory=dict)


class CannotApply(Exception):
    """Applying a batch failed because of an event in it; ``position`` where the target knows which."""

    def __init__(self, reason: str, position: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.position = position


class Target(Protocol):
    """One view, as the relay sees it. A target is driven by one task at a time."""

    @property
    def name(self) -> str:
        """The view's name, and its lease's."""
        ...

    @property
    def on_failure(self) -> OnFailure:
        """What becomes of an event that cannot be applied."""
        ...

    @property
    def max_batch(self) -> int:
        """How many positions a batch may span."""
        ...

    @property
    def pause_seconds(self) -> float:
        """How long to wait after the last batch there is, so that the next is not too small."""
        ...

    @property
    def rewrites(self) -> bool:
        """Whether batches rewrite rows in the log's database, which bloat where that happens too often."""
        ...

    @property
    def follows(self) -> str | None:
        """The view whose changes this one reads, or None for the log."""
        ...

    @property
    def frontier(self) -> Frontier | None:
        """How far its own source may be read, where that is neither the log nor a view: positions are then its own."""
        ...

    async def fits(self, connection: Connection) -> bool:
        """Whether what is stored follows from the definition that this process knows."""
        ...

    async def first_after(self, after: int, upto: int) -> int | None:
        """The first position of the source in (after, upto], or None."""
        ...

    async def open(self, fence: int) -> int:
        """Takes the view over under a fencing token and returns its checkpoint.

        From then on every write of a lower fence is refused. Raises LeaseLost for a lower one.
        """
        ...

    async def apply(self, batch: Batch) -> None:
        """Applies a batch and moves the checkpoint in one atomic write.

        Raises CannotApply, LeaseLost, or what the store raises when it is at fault.
        """
        ...

    async def close(self) -> None:
        """Gives back what the target holds. Idempotent."""
        ...
