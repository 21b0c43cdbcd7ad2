"""What a job is: a typed function, the queue it waits in, and how it is run. Pure."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, Generic, Literal, ParamSpec, TypeVar, get_type_hints

import msgspec

from headwater.errors import JobDefinitionError, JobRefused
from headwater.events.personal import personal_marks
from headwater.jobs.queue import NORMAL, Queue
from headwater.jobs.retrying import Retry
from headwater.log.enqueuing import Enqueue

P = ParamSpec("P")
R = TypeVar("R")
How = Literal["loop", "thread", "process"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,199}")
_encoder = msgspec.json.Encoder(decimal_format="string")


class Job(Generic[P, R]):
    """A function as a job. Called, it makes what ``enqueue`` takes; ``function`` is the function itself."""

    def __init__(
        self,
        function: Callable[P, R],
        queue: Queue,
        *,
        name: str | None,
        retry: Retry,
        timeout_seconds: float | None,
        run: How | None,
    ) -> None:
        self.function = function
        self.queue = queue
        self.name = name or function.__name__
        self.retry = retry
        self.timeout_seconds = timeout_seconds
        coroutine = inspect.iscoroutinefunction(function)
        self.run: How = run or ("loop" if coroutine else "thread")
        if not _NAME.fullmatch(self.name):
            raise JobDefinitionError(
                f"The job's name {self.name!r} is malformed.",
                hint="Use letters, digits, _, . and -, a letter first.",
            )
        if coroutine != (self.run == "loop"):
            raise JobDefinitionError(
                f"The job {self.name!r} cannot run in the {self.run}.",
                hint="An async function runs in the loop; others in a thread or a process.",
            )
        self._signature = inspect.signature(function)
        self.arguments = _arguments(self.name, function, self._signature)
        self.personal = _personal(self.name, function, self.arguments)
        self._decoder = msgspec.json.Decoder(self.arguments)
        self.__doc__ = function.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Enqueue:
        """The job with these arguments, for ``enqueue``. Raises JobRefused where they do not fit."""
        try:
            bound = self._signature.bind(*args, **kwargs)
            filled = msgspec.convert(
                bound.arguments, self.arguments, from_attributes=True, builtin_types=_NATIVE
            )
            encoded = _encoder.encode(filled)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise JobRefused(
                f"The arguments of the job {self.name!r} do not fit: {error}.",
                hint="Pass what the function takes; numbers are 64-bit, text is valid Unicode.",
            ) from error
        lane = None if self.queue.lane == NORMAL else self.queue.lane
        return Enqueue(
            queue=self.queue.name,
            job=self.name,
            arguments=msgspec.Raw(encoded),
            options={} if lane is None else {"lane": lane},
            personal=self.personal,
        )

    def decode(self, arguments: str) -> dict[str, Any]:
        """Stored arguments as the function takes them. Raises msgspec.ValidationError."""
        decoded = self._decoder.decode(arguments)
        return {name: getattr(decoded, name) for name in self.arguments.__struct_fields__}


def _personal(
    name: str, function: Callable[..., Any], arguments: type[msgspec.Struct]
) -> dict[str, str]:
    """The arguments that are marked as personal, with the one that names the subject."""
    found = personal_marks(function)
    hints = get_type_hints(arguments)
    for argument, subject in found.items():
        if hints.get(argument) not in (str, str | None):
            raise JobDefinitionError(
                f"The personal argument {argument!r} of the job {name!r} is not text.",
                hint="Use str or str | None: what is sealed is text.",
            )
        if subject in found or subject not in arguments.__struct_fields__:
            raise JobDefinitionError(
                f"The personal argument {argument!r} of the job {name!r} is of {subject!r}, which is no argument "
                "that names a person.",
                hint="Name an argument that is not personal itself, such as the customer's number.",
            )
    return found


def _native() -> tuple[type, ...]:
    from datetime import date, datetime, time, timedelta
    from decimal import Decimal
    from uuid import UUID

    return (bytes, date, datetime, time, timedelta, Decimal, UUID)


_NATIVE = _native()


def _arguments(
    name: str, function: Callable[..., Any], signature: inspect.Signature
) -> type[msgspec.Struct]:
    """A struct with the function's parameters as fields."""
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError) as error:
        raise JobDefinitionError(
            f"The annotations of the job {name!r} cannot be read: {error}.",
            hint="Name types that its module knows.",
        ) from error
    fields: list[Any] = []
    for parameter in signature.parameters.values():
        if parameter.name not in hints or parameter.kind in {
            parameter.POSITIONAL_ONLY,
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        }:
            raise JobDefinitionError(
                f"The job {name!r} does not say what its parameter {parameter.name!r} is.",
                hint="Annotate every parameter; *args and **kwargs are not taken.",
            )
        if parameter.default is parameter.empty:
            fields.append((parameter.name, hints[parameter.name]))
        else:
            default = parameter.default
            fields.append(
                (parameter.name, hints[parameter.name], msgspec.field(default_factory=lambda default=default: default))  # type: ignore[misc]
            )  # fmt: skip
    made: type[msgspec.Struct] = msgspec.defstruct(
        f"{name.replace('.', '_').replace('-', '_')}_arguments",
        fields,
        kw_only=True,
        frozen=True,
        forbid_unknown_fields=True,
    )
    try:
        msgspec.json.Decoder(made)
    except TypeError as error:
        raise JobDefinitionError(
            f"The arguments of the job {name!r} cannot be read from JSON: {error}.",
            hint="Use the types that events may have.",
        ) from error
    return made
