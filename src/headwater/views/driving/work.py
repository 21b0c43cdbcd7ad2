"""A fold's batch, taken apart and evolved. Pure: rows of the log in, steps to write out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from headwater import errors
from headwater.events import Event
from headwater.log.reading import recorded
from headwater.personal.opener import Opener
from headwater.relay import Batch, CannotApply
from headwater.views.documents import SetAside, Step
from headwater.views.driving.opening import Opening
from headwater.views.fold import (
    Document,
    Failed,
    Fold,
    FoldEvent,
    Key,
    Slice,
    derive_all,
    evolve_all,
)
from headwater.views.indexes import Seen
from headwater.views.opening import Opened
from headwater.views.storage import LastEvent

D = TypeVar("D", bound=Document)
Row = tuple[Any, ...]
"""Position, tenant, type, schema version, data, then either an id or what makes a whole event."""

encode = msgspec.json.Encoder(decimal_format="string").encode
WHOLE = Slice(0, 1)
_raw = msgspec.json.Decoder(dict)
_ID = 7


@dataclass(slots=True)
class Work:
    """A batch, taken apart: what to apply, what to set aside."""

    events: Sequence[FoldEvent] = field(default_factory=list)
    ids: list[bytes] = field(default_factory=list)
    opened: tuple[Opened, ...] = ()
    aside: SetAside = field(default_factory=SetAside)


@dataclass(slots=True)
class NotApplied:
    """What a view has set aside so far."""

    parked: dict[Key, int] = field(default_factory=dict)
    positions: frozenset[int] = frozenset()

    @staticmethod
    def of(rows: Iterable[tuple[int, str, list[str] | None, str]]) -> NotApplied:
        """From the rows that record it, in order."""
        found = NotApplied()
        positions = set()
        for position, tenant, keys, status in rows:
            positions.add(position)
            if status == "parked":
                for key in keys or ():
                    found.parked.setdefault((tenant, key), position)
        found.positions = frozenset(positions)
        return found

    def remember(self, aside: SetAside) -> None:
        """Adds what a batch has set aside."""
        for position, key, _, status in aside.culprits:
            if status == "parked" and key is not None:
                self.parked.setdefault(key, position)


class Folding(Generic[D]):
    """How one fold reads rows of the log and evolves its documents, all of them or a slice."""

    slice: Slice | None = None

    def __init__(
        self, fold: Fold[D], max_writes: int | None = None, opener: Opener | None = None
    ) -> None:
        self.fold = fold
        self.opening = Opening(fold.opens, opener)
        self._max_writes = max_writes
        self._decoder = msgspec.json.Decoder(fold.state)

    def document(self, stored: bytes | str) -> D:
        """A stored document as the fold's state."""
        return self._decoder.decode(stored)

    def take_apart(self, rows: Iterable[Row], batch: Batch, known: NotApplied) -> Work:
        """Splits a batch. Raises CannotApply at an event that does not decode."""
        work, events = Work(), []
        parked = dict(known.parked)
        marked = {**batch.parked, **batch.skipped}
        for row in rows:
            position = row[0]
            if position in known.positions:
                continue  # set aside before a crash took back the batch, and on record
            if position in marked:
                key = self.key_of(row)
                status = "parked" if position in batch.parked else "skipped"
                work.aside.culprits.append((position, key, marked[position], status))
                if status == "parked" and key is not None:
                    parked.setdefault(key, position)
                continue
            item = self.decode(row)
            if item is None:
                continue
            if parked and position > parked.get(item.key, position):
                work.aside.followers.append((position, item.key))
            else:
                events.append(item)
                if len(row) > 5:
                    work.ids.append(row[5] if len(row) == 6 else row[_ID].bytes)
        work.events = events
        return work

    def decode(self, row: Row) -> FoldEvent | None:
        """A row as the fold takes it, or None where the event concerns no document."""
        position, tenant, type_, schema_version, data = row[:5]
        declared = self.fold.types.named(type_)
        try:
            event: Event = declared.decode(data, schema_version)
            whole = None
            if self.fold.takes_recorded:
                stream, version, id_, recorded_at, occurred_at, metadata, keys = row[5:]
                whole = recorded(
                    self.fold.types,
                    (position, tenant, stream, version, type_, schema_version, id_, recorded_at,
                     occurred_at, data, metadata, keys),
                )  # fmt: skip
        except (msgspec.ValidationError, errors.UnknownEventType) as error:
            if not self._is_ours(self.key_of(row) or (tenant, "")):
                return None
            raise CannotApply(str(error), position) from error
        value = getattr(event, self.fold.key)
        key = tenant, str(value)
        if value is None or not self._is_ours(key):
            return None
        return FoldEvent(position, key, event, whole)

    @property
    def read_slice(self) -> Slice:
        """The slice that the log's database picks, so that other events are not read at all."""
        is_picked = self.slice is not None and self.fold.is_key_text
        return self.slice if self.slice is not None and is_picked else WHOLE

    def _is_ours(self, key: Key) -> bool:
        return self.slice is None or self.fold.is_key_text or self.slice.holds(key)

    def key_of(self, row: Row) -> Key | None:
        """The key of an event that may not decode."""
        data = _raw.decode(row[4])
        value = next((data[name] for name in self.fold.key_names if name in data), None)
        return None if value is None else (row[1], str(value))

    def steps(
        self, work: Work, batch: Batch, stored: Mapping[Key, D | None]
    ) -> tuple[list[Step], dict[Key, D | None]]:
        """What to write of a batch with events, in order, and the documents as they are then.

        Raises CannotApply at the first event that the function cannot take.
        """
        current: dict[Key, D | None] = {}
        steps: list[Step] = []
        after = batch.after
        for first, run in self._runs(work.events):
            beyond = first + len(run)
            final = beyond >= len(work.events)
            step = Step(after, batch.upto if final else run[-1].position)
            step.indexes, step.seen = self.fold.indexes, Seen.of(self.fold.indexes)
            if work.ids:
                step.last = LastEvent(run[-1].position, work.ids[beyond - 1])
            self._evolve(step, run, stored, current)
            steps.append(step)
            after = step.upto
        steps[0].opened = work.opened
        return steps, current

    def _runs(self, events: Sequence[FoldEvent]) -> Iterator[tuple[int, Sequence[FoldEvent]]]:
        size = self._max_writes or len(events) or 1
        for first in range(0, len(events), size):
            yield first, events[first : first + size]

    def _evolve(
        self,
        step: Step,
        run: Sequence[FoldEvent],
        stored: Mapping[Key, D | None],
        current: dict[Key, D | None],
    ) -> None:
        before: dict[Key, D | None] = {}
        states: dict[Key, D | None] = {}
        last: dict[Key, int] = {}
        for item in run:
            key = item.key
            if key not in before:
                if key not in current and key not in stored:
                    raise CannotApply("a document was not loaded", item.position)
                before[key] = states[key] = current[key] if key in current else stored[key]
            last[key] = item.position
        try:
            if self.fold.derive is not None:
                step.derived = list(derive_all(self.fold, states, run))
            else:
                for key in evolve_all(self.fold, states, run):
                    step.seen.note(key, states[key])
        except Failed as failure:
            raise CannotApply(failure.reason, failure.position) from failure
        for key, state in states.items():
            if state == before[key]:
                continue
            if state is None:
                step.removed.append(key)
            else:
                step.kept.append(key)
                step.documents.append(encode(state))
                step.positions.append(last[key])
        step.before, step.states = before, states
        current.update(states)


def plain(document: Document | None) -> Any:
    """A document as JSON's own types, for people."""
    return None if document is None else msgspec.json.decode(encode(document))
