"""What writers know about their own events, and how far the attack is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Ledger:
    """Marks by what their writer was told. ``goal`` is the number of commits to be told of."""

    goal: int
    acknowledged: set[str] = field(default_factory=set)
    told_softly: set[str] = field(default_factory=set)
    undone: set[str] = field(default_factory=set)
    deeds: dict[str, int] = field(default_factory=dict)
    _watched: list[tuple[int, asyncio.Future[None]]] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.acknowledged) + len(self.told_softly)

    @property
    def full(self) -> bool:
        return self.count >= self.goal

    def acknowledge(self, marks: Sequence[str], *, durable: bool) -> None:
        """The commit was answered; with synchronous_commit off that promises nothing."""
        (self.acknowledged if durable else self.told_softly).update(marks)
        for count, reached in self._watched:
            if self.count >= count and not reached.done():
                reached.set_result(None)

    def undo(self, marks: Sequence[str]) -> None:
        """The append was surely rolled back."""
        self.undone.update(marks)

    async def reached(self, share: float) -> None:
        """Returns when that share of the goal is acknowledged."""
        if self.count < share * self.goal:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._watched.append((int(share * self.goal), future))
            await future
