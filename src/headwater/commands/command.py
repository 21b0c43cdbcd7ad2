"""What is asked for, and what may come of it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar, dataclass_transform

import msgspec

from headwater.errors import CommandDefinitionError
from headwater.events import Event
from headwater.events.pattern import Pattern
from headwater.log import Token


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class _CommandMeta(msgspec.StructMeta):
    """Takes ``stream`` from the class line and checks it there."""

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        stream: str | None = None,
        **config: Any,
    ) -> Any:
        namespace["__stream__"] = stream
        config = {"forbid_unknown_fields": True} | config | {"frozen": True}
        made: Any = super().__new__(mcls, name, bases, namespace, **config)
        if stream is not None:
            check_pattern(made, stream)
        return made


class Command(msgspec.Struct, metaclass=_CommandMeta):
    """A request to decide on new events, for one stream: ``class Void(Command, stream="order/{order}")``."""

    __stream__: ClassVar[str | None]


class Rejection(msgspec.Struct, frozen=True):
    """Why a command led to no facts. Subclass it: the docstring says it to people, the fields to programs."""

    @property
    def message(self) -> str:
        """The docstring."""
        return (inspect.getdoc(type(self)) or type(self).__name__).strip()


class Accepted(msgspec.Struct, frozen=True):
    """What a command led to.

    ``token`` is what a read waits for; where there was nothing to append, it is of the newest event that
    the decision looked at. ``events`` are empty where ``duplicate`` says that the command was done before.
    """

    token: Token
    events: Sequence[Event] = ()
    positions: Sequence[int] = ()
    versions: Sequence[int] = ()
    duplicate: bool = False


def check_pattern(command: type[msgspec.Struct], text: str) -> Pattern:
    """The pattern that names what a command looks at. Raises CommandDefinitionError."""
    pattern = Pattern.of(text)
    known = {field.name for field in msgspec.structs.fields(command)}
    if not pattern.fields or not known.issuperset(pattern.fields):
        raise CommandDefinitionError(
            f"The command {command.__name__} has no fields for {text!r}.",
            hint="Write names of its fields in braces, such as order/{order}.",
        )
    return pattern
