"""What an app declares of its sagas. Nothing here does I/O."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from headwater.commands import Command
from headwater.errors import SagaDefinitionError
from headwater.events import Event, EventType
from headwater.jobs.retrying import Retry
from headwater.sagas.replaying import Function
from headwater.sagas.saga import PATIENT, Saga

S = TypeVar("S", bound=Event | Command)
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


@dataclass(slots=True)
class SagaDefinition(Generic[S]):
    """A saga: what starts it, and its function in each version that still runs."""

    name: str
    queue: str
    key: str | None
    version: int
    starts: tuple[type[Event | Command], ...]
    retry: Retry = PATIENT
    functions: dict[int, Function] = field(default_factory=dict)

    def before(self, version: int) -> Callable[[Function], Function]:
        """Keeps an earlier version of the function, for the instances that began with it."""

        def declare(function: Function) -> Function:
            if not 1 <= version < self.version or version in self.functions:
                raise SagaDefinitionError(
                    f"The saga {self.name!r} is version {self.version}, and says twice or too late what {version} was.",
                    hint="Keep each earlier version once: @saga.before(1).",
                )
            starts_of(self.name, function, None)
            self.functions[version] = function
            return function

        return declare

    @property
    def event_types(self) -> list[str]:
        """The types of events that start it."""
        return [EventType.of(one).name for one in self.starts if issubclass(one, Event)]

    def instance_of(self, start: Event | Command) -> str | None:
        """The id that a command names; None where it names none."""
        if self.key is None or getattr(start, self.key) is None:
            return None
        return str(getattr(start, self.key))


def defined(
    function: Function,
    *,
    on: type[Any] | Sequence[type[Any]] | None,
    name: str | None,
    key: str | None,
    version: int,
    queue: str,
    retry: Retry | None,
) -> SagaDefinition[Any]:
    """The definition of a function. Raises SagaDefinitionError."""
    called = name or function.__name__
    if not _NAME.fullmatch(called) or version < 1:
        raise SagaDefinitionError(
            f"The saga's name {called!r} is malformed, or its version {version} is below 1.",
            hint="Use up to 63 lower-case letters, digits, _ and -, a letter first.",
        )
    starts = starts_of(called, function, on)
    for one in starts:
        known = {each.name for each in msgspec.structs.fields(one)}
        personal = EventType.of(one).personal if issubclass(one, Event) else {}
        if key is not None and (key not in known or key in personal):
            raise SagaDefinitionError(
                f"The key {key!r} of the saga {called!r} is no field of {one.__name__}, or is sealed.",
                hint="Name a field that all that starts it has, and that names one instance.",
            )
    return SagaDefinition(
        called, queue, key, version, starts, retry or PATIENT, {version: function}
    )


def starts_of(
    name: str, function: Function, on: type[Any] | Sequence[type[Any]] | None
) -> tuple[type[Event | Command], ...]:
    """The events or commands that start it: as said, else as its second parameter is annotated."""
    parameters = list(inspect.signature(function).parameters)
    hints = get_type_hints(function)
    if not inspect.iscoroutinefunction(function) or len(parameters) != 2 or any(p not in hints for p in parameters) or hints[parameters[0]] is not Saga:  # fmt: skip
        raise SagaDefinitionError(
            f"The function of the saga {name!r} has another shape.",
            hint="Write async def name(saga: Saga, start: Placed) -> None.",
        )
    annotated = hints[parameters[1]]
    told = get_args(annotated) if get_origin(annotated) in {Union, UnionType} else (annotated,)
    wanted = told if on is None else tuple(on) if isinstance(on, Sequence) else (on,)
    for one in wanted:
        if (
            not isinstance(one, type)
            or not issubclass(one, Event | Command)
            or one in {Event, Command}
        ):
            raise SagaDefinitionError(
                f"The saga {name!r} starts with {one!r}, which is neither an event nor a command.",
                hint="Annotate the second parameter with a subclass of Event or Command, or several.",
            )
        if one not in told:
            raise SagaDefinitionError(
                f"The saga {name!r} starts with {one.__name__}, which its function does not take.",
                hint="Annotate the second parameter with it.",
            )
    return tuple(wanted)
