"""What a caller may do, what it asks for, and what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from headwater.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class Plan:
    """So many requests in so many seconds; ``burst`` at once, by default all of them."""

    name: str
    requests: int
    per_seconds: float
    burst: int | None = None

    def __post_init__(self) -> None:
        if self.requests < 1 or self.per_seconds <= 0 or self.at_once < 1:
            raise DefinitionError(
                f"The plan {self.name!r} allows nothing.",
                hint="Give it at least one request, some seconds, and a burst of at least one.",
            )
        if not self.name.isascii() or not self.name.replace("-", "").replace("_", "").isalnum():
            raise DefinitionError(
                f"The plan's name {self.name!r} is malformed.",
                hint="Use letters, digits, - and _: it stands in a header.",
            )

    @property
    def at_once(self) -> int:
        """How many requests may come at once."""
        return self.requests if self.burst is None else self.burst

    @property
    def every_seconds(self) -> float:
        """How long one request takes to be made up for."""
        return self.per_seconds / self.requests


@dataclass(frozen=True, slots=True)
class Want:
    """So many requests of one key, under a plan."""

    key: str
    plan: Plan
    count: int


@dataclass(frozen=True, slots=True)
class Taken:
    """How many of them may go on, and for how many seconds the key runs ahead now."""

    granted: int
    due_seconds: float


class Counters(Protocol):
    """Where keys are counted. One clock counts for all processes: the engine's."""

    async def take(self, wants: Sequence[Want]) -> Sequence[Taken]:
        """Counts requests, in the order given. Keys are distinct. Raises what the engine's faults mean."""
        ...


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a request may go on; ``remaining`` may come at once now."""

    allowed: bool
    remaining: int
    retry_seconds: float
    reset_seconds: float
    """How long until the whole burst may come again."""

    @staticmethod
    def of(plan: Plan, taken: Taken, *, allowed: bool) -> Decision:
        """The decision on one request."""
        every, due = plan.every_seconds, taken.due_seconds
        remaining = max(int(plan.at_once - due / every + 1e-6), 0)
        retry = 0.0 if allowed else max(due - every * (plan.at_once - 1), 0.0)
        return Decision(allowed, remaining, retry, due)
