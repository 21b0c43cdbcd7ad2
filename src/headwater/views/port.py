"""What a store offers for each view that it holds: the protocol that stores implement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from headwater.relay import Target
from headwater.views.definition import Definition, Explanation, Sample, Verification

Status = Literal["missing", "current", "stale"]
Report = Callable[[int, int], None]
"""Hears of progress: what is done and how much there is, in positions or rows."""


@dataclass(frozen=True, slots=True)
class Parked:
    """An event that a view has set aside."""

    view: str
    position: int
    tenant: str
    keys: tuple[str, ...] | None
    reason: str
    culprit: bool


class StoredView(Target, Protocol):
    """A view in its store: driven by the relay, deployed and checked by operators, read by readers."""

    @property
    def definition(self) -> Definition:
        """What the view should be."""
        ...

    async def status(self) -> Status:
        """Whether what is stored follows from the definition."""
        ...

    async def deploy(self) -> Status:
        """Creates what is missing; leaves a stale view as it is. Returns what it found."""
        ...

    async def rebuild(self) -> None:
        """Empties the view and sets its checkpoint to the beginning, in place; the relay refills it."""
        ...

    async def verify(
        self, report: Report | None = None, *, limit: int = 20, sample: Sample | None = None
    ) -> Verification:
        """Compares the view, or a sample of its keys, with the fold of the log up to its checkpoint."""
        ...

    async def explain(
        self, key: Sequence[str | None], *, tenant: str, limit: int = 20
    ) -> Explanation:
        """The events behind a row, and how it changed at each of the newest."""
        ...

    async def replay(self, positions: Sequence[int] | None = None) -> int:
        """Applies parked events again, in order; returns how many are parked no more."""
        ...

    async def discard(self, positions: Sequence[int]) -> int:
        """Gives parked events up for good; returns how many."""
        ...

    async def touched(
        self, connection: Any, *, after: int, upto: int, parked: Sequence[int]
    ) -> list[str] | None:
        """The keys whose rows events in (after, upto] may have changed, the parked ones aside.

        Each as a JSON array, the tenant first; of those tenants that the connection, one of the store's
        own, may see. None where the store cannot tell: too much has changed since, or it never can.
        """
        ...

    def row_of(self, values: Sequence[Any]) -> Any:
        """A stored row as the type that readers get."""
        ...
