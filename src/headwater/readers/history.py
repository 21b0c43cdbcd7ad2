"""Time travel: a fold's documents as they were, what changed between two moments, and what would have been.

Nothing is stored for it: the log's events are folded again.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from headwater.errors import (
    InvalidMoment,
    LimitExceeded,
    NotCaughtUp,
    StateUnreadable,
    ViewDefinitionError,
)
from headwater.events import Event, Recorded
from headwater.log.reading import StoredRow, recorded, safe_position
from headwater.log.statements import Statements
from headwater.views.fold import Document, Failed, Fold, FoldEvent, Key, evolve_all

if TYPE_CHECKING:
    from headwater.readers.handles import Installation

SQL = Statements("headwater.readers")

D = TypeVar("D", bound=Document)

_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A moment in the log, by one of three clocks. Raises InvalidMoment for none or several.

    ``position``: what is at or before it. ``recorded``: what was known at a time. ``occurred``: what, by all
    that is known now, had happened by then; events without an occurred time count by the recorded one. Events are
    folded in the log's order by each of them. Times have a zone.
    """

    position: int | None = None
    recorded: datetime | None = None
    occurred: datetime | None = None

    def __post_init__(self) -> None:
        given = [v for v in (self.position, self.recorded, self.occurred) if v is not None]
        if len(given) != 1 or (isinstance(given[0], datetime) and given[0].tzinfo is None):
            raise InvalidMoment(
                "A moment is one position, recorded time or occurred time, and a time has a zone.",
                hint="Write Moment(position=42) or Moment(recorded=datetime(2026, 1, 1, tzinfo=UTC)).",
            )

    @staticmethod
    def of(text: str, clock: str = "recorded") -> Moment:
        """A position, or a time by the clock ``recorded`` or ``occurred``, as text. Raises InvalidMoment."""
        if re.fullmatch(r"[0-9]{1,18}", text):
            return Moment(position=int(text))
        try:
            time = datetime.fromisoformat(text)
        except ValueError as error:
            raise InvalidMoment(
                f"{text[:100]!r} is neither a position nor a time.",
                hint="Write a position such as 42, or a time such as 2026-01-31T12:00:00Z.",
            ) from error
        return Moment(occurred=time) if clock == "occurred" else Moment(recorded=time)


@dataclass(frozen=True, slots=True)
class Change(Generic[D]):
    """A document at two moments: both states, the fields that differ, and the events between."""

    before: D | None
    after: D | None
    fields: dict[str, tuple[Any, Any]]
    events: Sequence[Recorded[Event]]


@dataclass(slots=True)
class WhatIf(Generic[D]):
    """What other code makes of the same events.

    ``documents``: by key, the document as the view's code makes it, and as the other code does; None where there
    is none. ``failed``: by key, where the other code raised and what; its document is then from before.
    """

    position: int
    events: int = 0
    documents: dict[str, tuple[D | None, D | None]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def differing(self) -> dict[str, tuple[D | None, D | None]]:
        """The documents that the other code makes otherwise."""
        return {key: pair for key, pair in self.documents.items() if pair[0] != pair[1]}


class History(Generic[D]):
    """A fold's past, for the application's role and one tenant at a time."""

    def __init__(self, app: Installation, fold: Fold[D]) -> None:
        self._app = app
        self._fold = fold

    async def as_of(self, key: object, moment: Moment, *, tenant: str | None = None) -> D | None:
        """The document of a key as of a moment, None where there was none.

        Events that the view has discarded are left out. Raises NotCaughtUp for a position that the log has not
        published, and StateUnreadable where the fold fails at an event.
        """
        rows = await self._rows(str(key), moment, self._app.tenant_of(tenant))
        return self._folded(rows).get(str(key))

    async def between(
        self, key: object, before: Moment, after: Moment, *, tenant: str | None = None
    ) -> Change[D]:
        """How the document of a key differs at two moments. Raises as ``as_of`` does."""
        whose, name = self._app.tenant_of(tenant), str(key)
        old = await self._rows(name, before, whose)
        new = await self._rows(name, after, whose)
        states = self._folded(old).get(name), self._folded(new).get(name)
        known = {row[0] for row in old}
        events = [recorded(self._fold.types, row) for row in new if row[0] not in known]
        return Change(*states, _differing(*states), events)

    async def what_if(
        self,
        evolve: Callable[..., D | None],
        *,
        after: int = 0,
        upto: int | None = None,
        tenant: str | None = None,
        max_keys: int = 100_000,
    ) -> WhatIf[D]:
        """Folds a range of the log by other code, beside the view's own, in memory.

        ``evolve`` is annotated as a fold is, with the same state. Up to ``after`` the view's own code holds for
        both. Raises LimitExceeded beyond ``max_keys`` keys, ViewDefinitionError for a function that
        does not fit, StateUnreadable where the view's own code fails.
        """
        other = self._other(evolve)
        whose = self._app.tenant_of(tenant)
        safe = await self._safe(upto)
        result: WhatIf[D] = WhatIf(safe)
        mine: dict[Key, D | None] = {}
        theirs: dict[Key, D | None] = {}
        async for row in self._all(whose, safe):
            item = self._event(row)
            if item is None:
                continue
            if item.key not in mine and len(mine) >= max_keys:
                raise LimitExceeded(
                    f"There are more than {max_keys:,} keys.",
                    hint="Raise max_keys, which are held in memory, or declare a view of the other code.",
                )
            self._step(self._fold, mine, item)
            result.events += 1
            if row[0] <= after:
                theirs[item.key] = mine[item.key]
            elif item.key[1] not in result.failed:
                try:
                    self._apply(other, theirs, item)
                except Failed as error:
                    result.failed[item.key[1]] = f"position {error.position}: {error.reason}"
        result.documents = {key[1]: (mine[key], theirs.get(key)) for key in mine}
        return result

    def _other(self, evolve: Callable[..., D | None]) -> Fold[D]:
        fold = self._fold
        other = Fold.of(evolve, name=fold.name, key=fold.key, on_failure=fold.on_failure, version=1)
        if other.state is not fold.state or not set(fold.events) <= set(other.events):
            raise ViewDefinitionError(
                f"The other code does not fold what {fold.name!r} does.",
                hint=f"Annotate it with {fold.state.__name__} and the same events.",
            )
        return replace(other, events=fold.events)

    # Folding -------------------------------------------------------------------------------------

    def _folded(self, rows: Sequence[StoredRow]) -> dict[str, D | None]:
        states: dict[Key, D | None] = {}
        for row in rows:
            if (item := self._event(row)) is not None:
                self._step(self._fold, states, item)
        return {key: state for (_, key), state in states.items()}

    def _event(self, row: StoredRow) -> FoldEvent | None:
        try:
            whole = recorded(self._fold.types, row)
        except msgspec.ValidationError as error:
            raise self._unreadable(row[0], str(error)) from error
        value = getattr(whole.event, self._fold.key)
        if value is None:
            return None
        key = (row[1], str(value))
        return FoldEvent(row[0], key, whole.event, whole if self._fold.takes_recorded else None)

    def _step(self, fold: Fold[D], states: dict[Key, D | None], item: FoldEvent) -> None:
        try:
            self._apply(fold, states, item)
        except Failed as error:
            raise self._unreadable(error.position, error.reason) from error

    def _apply(self, fold: Fold[D], states: dict[Key, D | None], item: FoldEvent) -> None:
        for _ in evolve_all(fold, states, [item]):
            pass

    def _unreadable(self, position: int, reason: str) -> StateUnreadable:
        return StateUnreadable(
            f"The fold {self._fold.name!r} fails at the event at {position}: {reason}.",
            hint="Mend the fold, or discard the event with headwater parked.",
        )

    # Reading -------------------------------------------------------------------------------------

    async def _safe(self, position: int | None) -> int:
        """How far to read. Raises NotCaughtUp for what is not published."""
        async with self._app.database().connection() as connection:
            safe = await safe_position(connection)
        if position is not None and position > safe:
            raise NotCaughtUp(
                f"The log is published up to position {safe}, and {position} was asked for.",
                hint="Ask again once it is, or name an earlier moment.",
            )
        return safe if position is None else position

    async def _rows(self, key: str, moment: Moment, tenant: str) -> list[StoredRow]:
        asked = {
            "view": self._fold.name, "tenant": tenant, "types": self._fold.type_names, "key": key,
            "upto": await self._safe(moment.position), "recorded": moment.recorded, "occurred": moment.occurred,
        }  # fmt: skip
        streams = self._fold.streams_of(key)
        where = {"fields": self._fold.key_names} if streams is None else {"streams": streams}
        statement = SQL["history.of_key" if streams is None else "history.of_streams"]
        async with self._app.database().transaction(tenant) as connection:
            cursor = await connection.execute(statement, asked | where, binary=True)
            rows: list[StoredRow] = await cursor.fetchall()
        return rows

    async def _all(self, tenant: str, upto: int) -> AsyncIterator[StoredRow]:
        after = 0
        while True:
            asked = {
                "tenant": tenant, "types": self._fold.type_names, "after": after, "upto": upto, "max_rows": _AT_ONCE,
            }  # fmt: skip
            async with self._app.database().transaction(tenant) as connection:
                cursor = await connection.execute(SQL["history.all"], asked, binary=True)
                rows: list[StoredRow] = await cursor.fetchall()
            for row in rows:
                yield row
            if len(rows) < _AT_ONCE:
                return
            after = rows[-1][0]


def _differing(before: Document | None, after: Document | None) -> dict[str, tuple[Any, Any]]:
    old, new = ({} if d is None else msgspec.structs.asdict(d) for d in (before, after))
    names = [*new, *(name for name in old if name not in new)]
    return {
        name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)
    }
