"""Given, when, then: what a decider makes of a history. No database, no waiting.

given(app, Opened("a"), Deposited("a", 10)).when(Withdraw("a", 4)).then(Withdrawn("a", 4))
given(app).when(Withdraw("a", 4)).then(NoFunds(0))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from headwater.app import App
from headwater.commands.command import Command, Rejection
from headwater.commands.decider import Decider, Source, evolved
from headwater.events import Event, EventType, Recorded
from headwater.log import Fact

_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Given:
    """A history, in order, before a command."""

    app: App
    history: tuple[Event | Fact, ...]

    def when(self, command: Command) -> Decided:
        """What the app's decider makes of it. The command itself changes nothing."""
        decider = self.app.decider(type(command))
        states = [_state(source, self.history, command) for source in decider.sources]
        return Decided(self.history, command, decider, decider.decided(states, command))


@dataclass(frozen=True)
class Decided:
    """What was decided; ``outcome`` is the events, or the rejection."""

    history: tuple[Event | Fact, ...]
    command: Command
    decider: Decider[Any]
    outcome: tuple[Event, ...] | Rejection

    def then(self, *expected: Event | Rejection) -> None:
        """Asserts that exactly these events follow, or this rejection, or nothing."""
        outcome = (self.outcome,) if isinstance(self.outcome, Rejection) else self.outcome
        if outcome == expected:
            return
        raise AssertionError(
            f"{self.decider.name} decided otherwise.\n"
            f"given\n{_listed(self.history)}when\n{_listed([self.command])}"
            f"then expected\n{_listed(expected)}but was\n{_listed(outcome)}"
        )


def given(app: App, *history: Event | Fact) -> Given:
    """Begins a case with what has happened, oldest first."""
    return Given(app, history)


def _state(source: Source, history: Sequence[Event | Fact], command: Command) -> Any:
    fold, name = source.over.fold, source.name.fill(command)
    state = None
    for recorded, keys in _recorded(history):
        if name not in (keys if source.over.by == "key" else [recorded.stream]):
            continue
        if fold.types.get(recorded.type) is not None:
            state = evolved(fold, state, recorded.event, recorded)
    return state


def _recorded(history: Sequence[Event | Fact]) -> Iterator[tuple[Recorded[Any], Sequence[str]]]:
    versions: dict[str, int] = {}
    for position, item in enumerate(history, start=1):
        fact = item if isinstance(item, Fact) else Fact(event=item)
        declared = EventType.of(type(fact.event))
        stream = declared.stream_of(fact.event)
        versions[stream] = versions.get(stream, 0) + 1
        keys = tuple(fact.keys if fact.keys is not None else declared.keys_of(fact.event))
        yield (
            Recorded(
                position,
                "main",
                stream,
                versions[stream],
                declared.name,
                declared.schema_version,
                fact.id or UUID(int=position),
                fact.occurred_at or _BEGAN,
                fact.occurred_at,
                fact.event,
                dict(fact.metadata or {}),
                keys,
            ),
            keys,
        )


def _listed(items: Sequence[msgspec.Struct]) -> str:
    return "".join(f"    {item!r}\n" for item in items) or "    nothing\n"
