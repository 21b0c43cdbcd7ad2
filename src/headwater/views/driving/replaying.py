"""Parked events of a fold, applied again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from headwater.log.database import Connection
from headwater.relay import CannotApply
from headwater.views.documents import Step
from headwater.views.driving.checking import read_log
from headwater.views.driving.work import Folding, encode
from headwater.views.fold import Derived, Document, Failed, Key, derive_all, evolve_all
from headwater.views.indexes import Seen
from headwater.views.opening import Opened

D = TypeVar("D", bound=Document)
Load = Callable[[Sequence[Key]], Awaitable[Iterable[tuple[Key, bytes]]]]


@dataclass(slots=True)
class Replay(Generic[D]):
    """One replay: the documents before and after, and the positions that are parked no more.

    It keeps documents of its own, for a relay may drive the view meanwhile.
    """

    folding: Folding[D]
    connection: Connection
    load: Load
    before: dict[Key, D | None] = field(default_factory=dict)
    states: dict[Key, D | None] = field(default_factory=dict)
    last: dict[Key, int] = field(default_factory=dict)
    done: list[int] = field(default_factory=list)
    stuck: set[Key] = field(default_factory=set)
    derived: list[Derived] = field(default_factory=list)
    seen: Seen = field(init=False)
    opened: tuple[Opened, ...] = ()

    def __post_init__(self) -> None:
        self.seen = Seen.of(self.folding.fold.indexes)

    async def run(self, waiting: Sequence[tuple[Any, ...]]) -> None:
        """Evolves parked events, (position, tenant, keys) in order.

        A key that fails again stays parked from there on.
        """
        for position, _, _ in waiting:
            await self._try(position)

    async def _try(self, position: int) -> None:
        for row in await read_log(self.connection, self.folding, position - 1, position):
            key = self.folding.key_of(row)
            if key is None or key in self.stuck:
                continue
            if key not in self.before:
                stored = dict(await self.load([key])).get(key)
                document = None if stored is None else self.folding.document(stored)
                self.before[key] = self.states[key] = document
            try:
                item = self.folding.decode(row)
                if item is None:
                    continue
                items, opened = await self.folding.opening.events([item])
                if self.folding.fold.derive is not None:
                    self.derived += derive_all(self.folding.fold, self.states, items)
                else:
                    for _ in evolve_all(self.folding.fold, self.states, items):
                        self.seen.note(key, self.states[key])
                self.last[key] = position
                self.done.append(position)
                self.opened += opened
            except (CannotApply, Failed):
                self.stuck.add(key)

    def step(self, upto: int) -> Step:
        """What to write: documents as they are now, at a checkpoint that does not move."""
        step = Step(upto, upto, before=self.before, states=self.states, derived=self.derived)
        step.indexes, step.seen = self.folding.fold.indexes, self.seen
        step.opened = self.opened
        for key, state in self.states.items():
            if state == self.before[key]:
                continue
            if state is None:
                step.removed.append(key)
            else:
                step.kept.append(key)
                step.documents.append(encode(state))
                step.positions.append(self.last[key])
        return step


def concerned(
    waiting: Sequence[tuple[Any, ...]], positions: Sequence[int] | None
) -> list[tuple[Any, ...]]:
    """The parked events of the keys at some positions, or all: an event waits for those before it."""
    wanted = {
        (tenant, tuple(keys or ()))
        for position, tenant, keys in waiting
        if positions is None or position in positions
    }
    return [row for row in waiting if (row[1], tuple(row[2] or ())) in wanted]
