"""A saga's function against what is recorded of it. Pure: no I/O, no clock.

The function runs from its top. Each step that it asks for waits until a record answers it; records are given in the
order in which they were made, and between two of them the function runs until everything in it waits. So parallel
branches meet the same results in the same order, and ask for the same steps.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from headwater.errors import NotDeterministic, SagaFailed, StepFailed, StepRejected, WaitTimedOut
from headwater.events import Event
from headwater.sagas.events import (
    SagaAbandoned,
    SagaCompensating,
    SagaFinished,
    SagaHandedOver,
    SagaPaused,
    SagaResolved,
    SagaResumed,
    SagaRetried,
    SagaStepDone,
    SagaStepFailed,
    SagaStopped,
    SagaUndoFailed,
    SagaUndone,
    SagaWaiting,
)
from headwater.sagas.loop import StepLoop
from headwater.sagas.saga import Call, Saga, Undo

Function = Callable[[Saga, Any], Awaitable[None]]
Decode = Callable[[Call, SagaStepDone], Any]
"""A step's result as the function gets it; raises what the function is to meet."""


@dataclass(slots=True)
class Done:
    """A step that had an effect, or may have had one: ``unsure`` where a call raised for the last time."""

    step: int
    name: str
    undo: Undo | None
    unsure: str | None = None


@dataclass(slots=True)
class Undoing:
    """How far the compensation is."""

    reason: str | None = None
    undone: set[int] = field(default_factory=set)
    attempts: int = 0
    until: datetime | None = None
    handed: int | None = None


class Replay:
    """One run of an instance's function. ``feed`` gives it what is recorded, ``asked`` are the steps that nothing answers yet."""

    def __init__(
        self, function: Function, saga: Saga, start: Event | Any, decode: Decode, loop: StepLoop
    ) -> None:
        self.function = function
        self.saga = saga
        self.asked: dict[int, Call] = {}
        self.done: list[Done] = []
        self.undoing = Undoing()
        self.paused = self.abandoned = False
        self._decode = decode
        self._loop = loop
        self._task = loop.create_task(_coroutine(function, saga, start))
        self._turn()

    @property
    def ended(self) -> bool:
        """Whether the function has returned or raised."""
        return self._task.done()

    @property
    def raised(self) -> BaseException | None:
        """What the function raised."""
        if not self._task.done():
            return None
        return asyncio.CancelledError() if self._task.cancelled() else self._task.exception()

    @property
    def stands(self) -> bool:
        """Whether the function waits for what is no step, so that nothing can wake it."""
        return not self.ended and not self.asked

    def feed(self, event: Event) -> None:
        """Gives the next record. Raises NotDeterministic where the function asks for something else."""
        match event:
            case SagaStepDone():
                self._answer(event)
            case SagaStepFailed():
                self._failed(event)
            case SagaWaiting():
                call = self._match(event)
                call.waiting, call.until = True, event.until
            case SagaCompensating():
                self.undoing.reason = event.reason
            case SagaUndone():
                self._undone(event.step)
            case SagaUndoFailed():
                self.undoing.attempts, self.undoing.until = event.attempt, event.until
            case SagaHandedOver():
                self.undoing.handed = event.step
            case SagaResolved() if self.undoing.handed is not None:
                self._undone(self.undoing.handed)
            case SagaRetried():
                self.undoing.attempts, self.undoing.until, self.undoing.handed = 0, None, None
            case SagaPaused() | SagaResumed():
                self.paused = isinstance(event, SagaPaused)
            case SagaAbandoned():
                self.abandoned = True
            case SagaFinished() | SagaStopped() | _:
                pass

    def check_ended(self) -> None:
        """Raises NotDeterministic where the record says that the function had ended, and it has not."""
        if self.undoing.reason is not None and not self.abandoned and not self.ended:
            raise NotDeterministic(
                f"It had failed by now ({self.undoing.reason}), and now waits at {self._where()}.",
                hint=_HINT,
            )

    def dismiss(self) -> None:
        """Puts the function away where it waits."""
        self.saga.ended = True
        self._loop.dismiss()

    # Records -------------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._loop.turn()
        for call in self.saga.calls:
            self.asked[call.step] = call
        self.saga.calls.clear()

    def _match(self, event: SagaStepDone | SagaStepFailed | SagaWaiting) -> Call:
        """The step that a record is of, as the function asks for it now."""
        told = f"step {event.step} ({event.kind} {event.name})"
        call = self.asked.get(event.step)
        if call is None:
            raise NotDeterministic(
                f"Recorded is {told}; now the function {self._instead()}.", hint=_HINT
            )
        if (call.kind, call.name) != (event.kind, event.name):
            raise NotDeterministic(
                f"Recorded is {told}; now {call.line} asks for {call.kind} {call.name}.", hint=_HINT
            )
        if call.asked != event.asked:
            raise NotDeterministic(
                f"Recorded is {told}; now {call.line} asks for the same with other data.",
                hint=_HINT,
            )
        return call

    def _instead(self) -> str:
        if self.ended:
            error = self.raised
            return (
                "returns before it"
                if error is None
                else f"raises {error!r} before it, at {raised_at(error)}"
            )
        return f"waits at {self._where()}"

    def _where(self) -> str:
        """The lines at which the function waits."""
        if self.asked:
            return ", ".join(call.line for call in self.asked.values())
        frames = self._task.get_stack()
        return (
            ", ".join(f"{f.f_code.co_filename}:{f.f_lineno}" for f in frames[-1:])
            or "its first line"
        )

    where = property(_where)

    def _answer(self, event: SagaStepDone) -> None:
        call = self._match(event)
        del self.asked[event.step]
        self.saga._moment = event.at  # noqa: SLF001 - the replay is the saga's other half
        try:
            result = self._decode(call, event)
        except SagaFailed as refused:
            if not call.answer.done():
                call.answer.set_exception(refused)
        else:
            if call.kind == "wait" and event.position is not None:
                wanted = call.what
                self.saga.consumed[event.name, wanted.field, wanted.key] = event.position
            if call.kind in {"do", "call", "enqueue"}:
                self.done.append(Done(event.step, event.name, _undo_of(call, result)))
            if not call.answer.done():  # its branch may have been cancelled
                call.answer.set_result(result)
        self._turn()

    def _failed(self, event: SagaStepFailed) -> None:
        call = self._match(event)
        call.attempts, call.until, call.waiting = (
            event.attempt,
            event.until,
            event.until is not None,
        )
        self.saga._moment = event.at  # noqa: SLF001
        if event.until is not None:
            return
        del self.asked[event.step]
        fixed = call.undo if isinstance(call.undo, Undo) else None
        if call.undo is not None:
            # It may have had its effect all the same.
            self.done.append(Done(event.step, event.name, fixed, event.reason))
        if not call.answer.done():
            call.answer.set_exception(
                StepFailed(f"{event.name} failed {event.attempt} times: {event.reason}")
            )
        self._turn()

    def _undone(self, step: int) -> None:
        self.undoing.undone.add(step)
        self.undoing.attempts, self.undoing.until, self.undoing.handed = 0, None, None

    @property
    def next_undo(self) -> Done | None:
        """What is to be undone next, the last done first."""
        for done in reversed(self.done):
            if done.step not in self.undoing.undone and (
                done.undo is not None or done.unsure is not None
            ):
                return done
        return None


_HINT = (
    "Take the change back, or give the changed function a new version and keep this one by @saga.before(version); "
    "then headwater sagas retry. A function of a saga depends on its arguments and the results of its steps alone."
)


async def _coroutine(function: Function, saga: Saga, start: Any) -> None:
    await function(saga, start)


def _undo_of(call: Call, result: Any) -> Undo | None:
    if call.undo is None or isinstance(call.undo, Undo):
        return call.undo
    made = call.undo(result)
    return made if made is None or isinstance(made, Undo) else Undo(made)


def raised_at(error: BaseException) -> str:
    """The file and line at which an error was raised."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return "?" if frame is None else f"{inspect.getfile(frame.tb_frame)}:{frame.tb_lineno}"


def timed_out(call: Call) -> WaitTimedOut:
    """What a wait whose time is over raises."""
    return WaitTimedOut(f"No {call.name} came in time for the wait at {call.line}.")


def rejected(name: str, rejection: Any) -> StepRejected:
    """What a rejected command raises."""
    return StepRejected(f"{name} was rejected: {rejection.message}", rejection=rejection)
