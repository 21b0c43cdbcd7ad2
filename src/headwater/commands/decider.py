"""A decider's definition: what it looks at, and the function that decides. Pure.

The shape is that of the decider pattern (Jérémie Chassaing, 2021): decide, evolve and an initial
state. The last two are a fold's, so a decision sees what the view shows.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import (
    Any,
    Generic,
    Literal,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from headwater.commands.command import Command, Rejection, check_pattern
from headwater.errors import CommandDefinitionError
from headwater.events import Event, EventTypes
from headwater.events.event import Recorded
from headwater.events.pattern import Pattern

C = TypeVar("C", bound=Command)


class Evolving(Protocol):
    """What a decision needs of a fold."""

    @property
    def name(self) -> str:
        """The fold's name."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever the definition does."""
        ...

    @property
    def state(self) -> type[Any]:
        """The state's type; its defaults are the state before the first event."""
        ...

    @property
    def types(self) -> EventTypes:
        """The event types that it reads."""
        ...

    @property
    def takes_recorded(self) -> bool:
        """Whether the function takes the whole recorded event as a third argument."""
        ...

    @property
    def evolve(self) -> Callable[..., Any]:
        """The next state from a state and an event."""
        ...


class Folded(Protocol):
    """A view that is a fold."""

    @property
    def fold(self) -> Evolving:
        """Its definition."""
        ...


@dataclass(frozen=True, slots=True)
class Over:
    """A fold's state as a decision looks at it: over a stream, or over all events that carry a key.

    ``pattern`` names it from the command's fields; None is the command's own stream.
    """

    fold: Evolving
    by: Literal["stream", "key"] = "stream"
    pattern: str | None = None


def over(view: Folded, *, stream: str | None = None, key: str | None = None) -> Over:
    """The state of a fold over another stream, or over the events that carry a key.

    ``over(rooms, key="room:{room}")``. Raises CommandDefinitionError unless one of both is named.
    """
    if (stream is None) == (key is None):
        raise CommandDefinitionError(
            f"What the decision looks at of {view.fold.name!r} is not named.",
            hint='Write over(view, stream="order/{order}") or over(view, key="mail:{mail}").',
        )
    return Over(view.fold, "key" if stream is None else "stream", key if stream is None else stream)


@dataclass(frozen=True, slots=True)
class Source:
    """One of the states that a decision takes."""

    over: Over
    name: Pattern
    optional: bool
    """Whether the function takes None where there is no document."""


@dataclass(frozen=True)
class Decider(Generic[C]):
    """``decide(state, ..., command)`` gives events, one or several, or a Rejection."""

    name: str
    command: type[C]
    sources: tuple[Source, ...]
    decide: Callable[..., Event | Sequence[Event] | Rejection | None]
    events: tuple[type[Event], ...]

    @staticmethod
    def of(
        decide: Callable[..., Any], overs: Sequence[Over], *, name: str | None = None
    ) -> Decider[Any]:
        """The decider of an annotated function. Raises CommandDefinitionError."""
        called = name or decide.__name__
        parameters = list(inspect.signature(decide).parameters)
        hints = get_type_hints(decide)
        if len(parameters) != len(overs) + 1 or any(p not in hints for p in parameters):
            raise CommandDefinitionError(
                f"The command handler {called!r} does not say what it decides on.",
                hint="Write def name(state: State, command: Void) -> list[Voided] | Refused, a state for each fold.",
            )
        command = hints[parameters[-1]]
        if not (isinstance(command, type) and issubclass(command, Command)):
            raise CommandDefinitionError(
                f"The last parameter of {called!r} is no Command.",
                hint="Annotate it with a subclass of headwater.Command.",
            )
        sources = tuple(
            _source(called, command, one, hints[parameter])
            for one, parameter in zip(overs, parameters, strict=False)
        )
        return Decider(called, command, sources, decide, tuple(_events_in(hints.get("return"))))

    def states(self, states: Sequence[Any]) -> list[Any]:
        """The states as the function takes them: its defaults, or None, where there is no document."""
        return [
            state if state is not None or source.optional else source.over.fold.state()
            for source, state in zip(self.sources, states, strict=True)
        ]

    def decided(self, states: Sequence[Any], command: C) -> tuple[Event, ...] | Rejection:
        """What the function decides on stored states, None where there is no document."""
        answer = self.decide(*self.states(states), command)
        if answer is None or isinstance(answer, Rejection):
            return () if answer is None else answer
        events = (answer,) if isinstance(answer, Event) else tuple(answer)
        for event in events:
            if not isinstance(event, Event):
                raise TypeError(f"{self.name} decided on {type(event).__name__}, which is no Event")
        return events


def evolved(fold: Evolving, state: Any, event: Event, whole: Recorded[Any] | None = None) -> Any:
    """The next state of a fold, None where there is no document."""
    arguments = (fold.state() if state is None else state, event)
    return fold.evolve(*arguments, whole) if fold.takes_recorded else fold.evolve(*arguments)


def _source(handler: str, command: type[Command], one: Over, annotated: Any) -> Source:
    members = (
        get_args(annotated) if get_origin(annotated) in {Union, types.UnionType} else (annotated,)
    )
    if set(members) - {type(None)} != {one.fold.state}:
        raise CommandDefinitionError(
            f"The command handler {handler!r} takes {annotated!r} for the fold {one.fold.name!r}, whose "
            f"state is {one.fold.state.__name__}.",
            hint="Annotate the states in the order of the folds.",
        )
    text = one.pattern if one.pattern is not None else command.__stream__
    if text is None:
        raise CommandDefinitionError(
            f"The command {command.__name__} has no stream.",
            hint=f'Write class {command.__name__}(Command, stream="category/{{field}}"), or use over(...).',
        )
    return Source(one, check_pattern(command, text), type(None) in members)


def _events_in(annotated: Any) -> Iterator[type[Event]]:
    """The event classes that an annotation names."""
    if isinstance(annotated, type) and issubclass(annotated, Event):
        yield annotated
    for argument in get_args(annotated):
        yield from _events_in(argument)
