"""What a saga's function is given: its steps, and what undoes them."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_type_hints
from uuid import NAMESPACE_OID, UUID, uuid5

import msgspec

from headwater.commands import Command
from headwater.errors import SagaDefinitionError
from headwater.events import Event, EventType
from headwater.jobs.retrying import Retry
from headwater.log.enqueuing import Enqueue
from headwater.sagas.events import Kind

if TYPE_CHECKING:
    import asyncio

A = TypeVar("A")
R = TypeVar("R")
E = TypeVar("E", bound=Event)

Outside = Callable[[A, str], Awaitable[R]]
"""An async function of an argument and an idempotency key, with an effect outside of the log."""

PATIENT = Retry(attempts=5, first_seconds=1.0, factor=3.0, longest_seconds=600.0)
"""How often a call, or what undoes a step, is tried: five times in about 40 seconds."""

_encode = msgspec.json.Encoder(order="deterministic", decimal_format="string").encode


@dataclass(frozen=True, slots=True)
class Undo:
    """What undoes a step: a command, or a function outside with its argument.

    ``otherwise`` is what a person must do where it cannot be done.
    """

    what: Command | Outside[Any, Any]
    argument: Any = None
    otherwise: str | None = None

    @property
    def name(self) -> str:
        """The command's or the function's name."""
        return name_of(self.what)


Undoing = Undo | Command | None


@dataclass(slots=True)
class Call:
    """A step that the function has asked for. ``line`` is where."""

    step: int
    kind: Kind
    name: str
    asked: str
    what: Any
    argument: Any
    line: str
    answer: asyncio.Future[Any]
    undo: Undo | Callable[[Any], Undoing] | None = None
    retry: Retry = PATIENT
    result: Any = None
    until: datetime | None = None
    after: int | None = None
    attempts: int = 0
    waiting: bool = False
    """Whether it is recorded that it waits."""
    begun: bool = False

    @property
    def undo_name(self) -> str | None:
        """The name of what undoes it, for people."""
        if self.undo is None:
            return None
        return self.undo.name if isinstance(self.undo, Undo) else "what follows from its result"


@dataclass(frozen=True, slots=True)
class Awaited:
    """What a step waits for: the first event of a type whose field is the key."""

    event: type[Event]
    field: str
    key: str


@dataclass(slots=True)
class Saga:
    """One instance, as its function sees it. Every step is recorded; a replay gives the same results.

    ``name`` and ``id`` are the instance's, ``tenant`` whose it is.
    """

    name: str
    id: str
    tenant: str
    field_name: str | None
    _loop: asyncio.AbstractEventLoop
    _moment: datetime
    _start_position: int
    calls: list[Call] = field(default_factory=list)
    """Steps asked for that nobody has looked at yet."""
    consumed: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """The position of the last event that a wait for this type, field and key was given."""
    ended: bool = False
    _steps: int = 0
    _drawn: int = 0

    @property
    def stream(self) -> str:
        """The stream in which the instance is recorded."""
        return f"saga/{self.name}/{self.id}"

    def do(
        self, command: Command, *, undo: Undoing = None
    ) -> Coroutine[Any, Any, tuple[Event, ...]]:
        """Runs a command: its events and the step are one commit, so it is done once. Returns the events.

        Raises StepRejected where the decision is a Rejection. ``undo`` is run if the saga fails later.
        """
        return self._asked("do", type(command).__name__, command, command, undo=_undo(undo))

    def call(
        self,
        function: Outside[A, R],
        argument: A,
        *,
        undo: Undoing | Callable[[R], Undoing] = None,
        retry: Retry = PATIENT,
    ) -> Coroutine[Any, Any, R]:
        """Awaits a function with an effect outside, and records what it returns, which must fit its annotation.

        It is called at least once: again after a crash, or where it raises, by ``retry``. It is given an
        idempotency key, always the same for this step. Raises StepFailed where it raised for the last time.
        ``undo`` may be made of the result.
        """
        made = undo if callable(undo) and not isinstance(undo, Command) else _undo(undo)
        return self._asked("call", name_of(function), argument, function, argument, undo=made, retry=retry, result=result_of(function))  # fmt: skip

    def enqueue(self, *jobs: Enqueue, undo: Undoing = None) -> Coroutine[Any, Any, None]:
        """Creates jobs, notices among them: the jobs and the step are one commit, so they are created once.

        It does not wait for them; let a job append an event, and wait for that. ``undo`` is run if the saga fails later.
        """
        name = ", ".join(dict.fromkeys(job.job for job in jobs))
        return self._asked("enqueue", name, list(jobs), jobs, undo=_undo(undo))

    def wait(
        self,
        event: type[E],
        *,
        key: str | int | UUID | None = None,
        by: str | None = None,
        timeout_seconds: float | None = None,
    ) -> Coroutine[Any, Any, E]:
        """Waits for the next event of a type, from the saga's start on, whose field ``by`` is the key.

        By default the field and the key that name the instance. No worker is held. Raises WaitTimedOut.
        """
        where = by or self.field_name
        wanted = self.id if key is None else str(key)
        known = {one.name for one in msgspec.structs.fields(event)}
        if where is None or where not in known or where in EventType.of(event).personal:
            raise SagaDefinitionError(
                f"The saga {self.name!r} waits for {event.__name__} by the field {where!r}, which it has not, or is sealed.",
                hint='Name a field of the event: saga.wait(Paid, by="order", key=placed.order).',
            )
        awaited = Awaited(event, where, wanted)
        name = EventType.of(event).name
        asked = [name, where, wanted, timeout_seconds]
        after = self.consumed.get((name, where, wanted), self._start_position)
        return self._asked(
            "wait", name, asked, awaited, until=self._in(timeout_seconds), after=after
        )

    def sleep(self, seconds: float) -> Coroutine[Any, Any, None]:
        """Goes on after some seconds. No worker is held."""
        return self._asked("sleep", "sleep", seconds, None, until=self._in(seconds))

    def now(self) -> datetime:
        """The moment of the last step, in UTC: the same in a replay."""
        return self._moment

    def uuid(self) -> UUID:
        """An id of its own at each call: the same in a replay."""
        self._drawn += 1
        return uuid5(NAMESPACE_OID, f"{self.tenant} {self.stream} {self._drawn}")

    def random(self) -> random.Random:
        """A source of chance at each call: the same in a replay. Not for secrets."""
        return random.Random(self.uuid().bytes)  # noqa: S311

    def _in(self, seconds: float | None) -> datetime | None:
        return None if seconds is None else self._moment + timedelta(seconds=seconds)

    def _asked(
        self, kind: Kind, name: str, said: Any, what: Any, argument: Any = None, **more: Any
    ) -> Coroutine[Any, Any, Any]:
        """Numbers the step now, whenever it is awaited."""
        if self.ended:
            raise SagaEnded
        self._steps += 1
        frame = sys._getframe(2)  # noqa: SLF001 - the line that asks, for the message of a violation
        line = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        call = Call(
            self._steps,
            kind,
            name,
            hash_of(said),
            what,
            argument,
            line,
            self._loop.create_future(),
            **more,
        )
        self.calls.append(call)
        return _answered(call)


class SagaEnded(BaseException):
    """The function runs on while it is put away: nothing that it asks for is done."""


async def _answered(call: Call) -> Any:
    return await call.answer


def _undo(given: Undoing) -> Undo | None:
    return Undo(given) if isinstance(given, Command) else given


def name_of(what: object) -> str:
    """The name of a command or function, for people."""
    return (
        type(what).__name__ if isinstance(what, Command) else str(getattr(what, "__name__", what))
    )


def result_of(function: Any) -> Any:
    """The type of what a function returns. Raises SagaDefinitionError where it says none."""
    hints = get_type_hints(function)
    if "return" not in hints:
        raise SagaDefinitionError(
            f"The function {name_of(function)!r} does not say what it returns.",
            hint="Annotate it: what it returns is recorded, and read again in a replay.",
        )
    return hints["return"]


def hash_of(said: Any) -> str:
    """What tells what a step was asked from anything else."""
    try:
        return hashlib.sha256(_encode(said)).hexdigest()[:16]
    except TypeError as error:
        raise SagaDefinitionError(
            f"The argument of a step cannot be written as JSON: {error}.",
            hint="Pass structs, or the types that events may have.",
        ) from error


def encoded(result: Any) -> Any:
    """A result as it is recorded."""
    return msgspec.json.decode(_encode(result))


def decoded(call: Call, result: Any) -> Any:
    """A recorded result as the function gets it."""
    return (
        None
        if call.result in {None, type(None)}
        else cast("Any", msgspec.convert(result, call.result))
    )
