"""Given, when, then for sagas: what a function asks for, against answers that a test gives. No database, no waiting.

started(fulfil, Placed("1")).asks(Reserve("book", "1")).answer(Reserved("book", "1", 1)).ends(undoing=["Release"])
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Self

from headwater.commands import Command, Rejection
from headwater.events import Event
from headwater.sagas.definition import SagaDefinition
from headwater.sagas.events import SagaStepDone, SagaStepFailed
from headwater.sagas.loop import StepLoop
from headwater.sagas.outcomes import says_failed
from headwater.sagas.replaying import Replay, rejected, timed_out
from headwater.sagas.saga import Awaited, Call, Saga, name_of

_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


class Story:
    """One run of a saga's function. Each answer is given to the step that it names, else to the first that waits."""

    def __init__(
        self, definition: SagaDefinition[Any], start: Event | Command, version: int | None = None
    ) -> None:
        loop = StepLoop()  # type: ignore[abstract]  # what it lacks, asyncio refuses by itself
        instance = definition.instance_of(start) or "1"
        saga = Saga(definition.name, instance, "main", definition.key, loop, _BEGAN, 0)
        function = definition.functions[version or definition.version]
        self._answers: dict[int, Any] = {}
        self.replay = Replay(function, saga, start, self._answered, loop)

    @property
    def asked(self) -> list[Any]:
        """What the function waits for: commands, functions with their arguments, jobs, event types, or 'sleep'."""
        return [_told(call) for call in self.replay.asked.values()]

    def asks(self, *expected: Any) -> Self:
        """Asserts that the function waits for exactly these."""
        if self.asked != list(expected):
            raise AssertionError(f"The saga asks for {self.asked}, not {list(expected)}.")
        return self

    def answer(self, *result: Any, step: int | None = None) -> Self:
        """Answers a step: the events of a command or its Rejection, a call's result, the event waited for, or nothing."""
        call = self._call(step)
        self._answers[call.step] = result
        saga = self.replay.saga
        position = call.step if call.kind == "wait" else None
        self.replay.feed(SagaStepDone(saga.name, saga.id, call.step, call.kind, call.name, call.asked, saga.now(), position=position))  # fmt: skip
        return self

    def time_out(self, step: int | None = None) -> Self:
        """The time of a wait is over."""
        return self.answer(step=step)

    def fail(self, reason: str = "it is away", *, step: int | None = None) -> Self:
        """A call raised for the last time."""
        call, saga = self._call(step), self.replay.saga
        self.replay.feed(SagaStepFailed(saga.name, saga.id, call.step, call.kind, call.name, call.asked, saga.now(), call.retry.attempts, reason, None))  # fmt: skip
        return self

    def ends(self, *, undoing: Sequence[Command | str] | None = None) -> None:
        """Asserts that it has ended: well, or with what undoes its steps, the last first: commands, or functions' names."""
        replay = self.replay
        if not replay.ended:
            raise AssertionError(f"The saga has not ended: it asks for {self.asked}.")
        raised = replay.raised
        if raised is not None and not says_failed(raised):
            raise raised
        wanted = (
            None
            if raised is None
            else [_undo(one.undo) for one in reversed(replay.done) if one.undo or one.unsure]
        )
        if wanted != (None if undoing is None else list(undoing)):
            raise AssertionError(f"The saga ends with {raised!r}, undoing {wanted}, not {undoing}.")

    def _call(self, step: int | None) -> Call:
        if not self.replay.asked:
            raise AssertionError("The saga asks for nothing.")
        return self.replay.asked[min(self.replay.asked) if step is None else step]

    def _answered(self, call: Call, _: SagaStepDone) -> Any:
        given = self._answers[call.step]
        match call.kind:
            case "do" if given and isinstance(given[0], Rejection):
                raise rejected(call.name, given[0])
            case "do":
                return given
            case "wait" if not given:
                raise timed_out(call)
            case _:
                return given[0] if given else None


def started(
    definition: SagaDefinition[Any], start: Event | Command, *, version: int | None = None
) -> Story:
    """Begins a story with what starts the saga."""
    return Story(definition, start, version)


def _told(call: Call) -> Any:
    if isinstance(call.what, Awaited):
        return call.what.event
    if call.kind == "call":
        return (name_of(call.what), call.argument)
    if call.kind == "enqueue":
        return call.what[0] if len(call.what) == 1 else list(call.what)
    return call.what if call.kind == "do" else "sleep"


def _undo(undo: Any) -> Any:
    if undo is None:
        return "a person"
    return undo.what if isinstance(undo.what, Command) else undo.name


__all__ = ["Story", "started"]
