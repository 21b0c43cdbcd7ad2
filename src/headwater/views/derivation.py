"""Derived events: what may follow from what. Pure."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from headwater.commands import Command, Decider
from headwater.errors import DefinitionError, ViewDefinitionError
from headwater.events import Event, EventType
from headwater.log.enqueuing import Enqueue
from headwater.views.fold import Fold


@dataclass(frozen=True, slots=True)
class Derivation:
    """Which types of events follow from which, by the view of that name."""

    name: str
    read: tuple[type[Event], ...]
    derived: tuple[type[Event], ...]

    @staticmethod
    def of(
        derive: Callable[..., Any],
        fold: Fold[Any],
        name: str | None,
        decider_of: Callable[[type[Command]], Decider[Any]],
    ) -> Derivation:
        """The derivation of an annotated function over a fold. Raises ViewDefinitionError."""
        called = name or derive.__name__
        parameters = list(inspect.signature(derive).parameters)
        told = set(_classes_in(get_type_hints(derive).get("return")))
        jobs = Enqueue in told
        told -= {Enqueue}
        events = {one for one in told if issubclass(one, Event)}
        for command in told - events:
            events |= set(decider_of(command).events)
        if len(parameters) != 3 or not (events or jobs):
            raise ViewDefinitionError(
                f"The derivation {called!r} does not say what it derives.",
                hint="Write def name(before: State, after: State, event: Placed) -> Large | None; it may return "
                "events, commands, and jobs (Enqueue).",
            )
        ordered = sorted(events, key=lambda event: EventType.of(event).name)
        return Derivation(called, fold.events, tuple(ordered))


def check_loops(derivations: Iterable[Derivation]) -> None:
    """Raises DefinitionError where a type of event would follow from itself, over one view or several."""
    follows: dict[str, set[str]] = {}
    for one in derivations:
        for event in one.read:
            names = {EventType.of(derived).name for derived in one.derived}
            follows.setdefault(EventType.of(event).name, set()).update(names)
    for start in follows:
        path = _path(follows, start, start, ())
        if path is not None:
            raise DefinitionError(
                f"Events of the type {start!r} would follow from themselves: {' -> '.join(path)}.",
                hint="Derive another type of event, or let the function read fewer types.",
            )


def _path(
    follows: dict[str, set[str]], here: str, wanted: str, before: tuple[str, ...]
) -> tuple[str, ...] | None:
    if here in before:
        return (*before, here) if here == wanted else None
    for following in sorted(follows.get(here, ())):
        found = _path(follows, following, wanted, (*before, here))
        if found is not None:
            return found
    return None


def _classes_in(annotated: Any) -> Iterator[type[Any]]:
    """The event and command classes that an annotation names, and Enqueue for jobs."""
    if isinstance(annotated, type) and issubclass(annotated, (Event, Command, Enqueue)):
        yield annotated
    for argument in get_args(annotated):
        yield from _classes_in(argument)
