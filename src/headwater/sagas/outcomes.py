"""What comes of steps, as it is recorded and as the function gets it. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import msgspec

from headwater.commands import Decider, Rejection
from headwater.errors import HeadwaterError, SagaFailed
from headwater.events import Event, EventType, encode
from headwater.sagas.events import SagaStepDone, SagaStepFailed
from headwater.sagas.replaying import raised_at, rejected, timed_out
from headwater.sagas.saga import Call, Saga, decoded, encoded

if TYPE_CHECKING:
    from headwater.sagas.recording import Other
    from headwater.sagas.running import SagaApp

_LONGEST = 2000


def done_by_command(
    saga: Saga, call: Call, outcome: Sequence[Event] | Rejection, at: datetime
) -> SagaStepDone:
    """The record of a command: its events, or its rejection."""
    told = (saga.name, saga.id, call.step, call.kind, call.name, call.asked, at)
    if isinstance(outcome, Rejection):
        return SagaStepDone(*told, encoded(outcome), type(outcome).__name__)
    events = [
        {
            "type": declared.name,
            "version": declared.schema_version,
            "data": msgspec.json.decode(encode(event)),
        }
        for event in outcome
        for declared in [EventType.of(type(event))]
    ]
    return SagaStepDone(*told, events, undo=call.undo_name)


def done_by_call(saga: Saga, call: Call, result: Any, at: datetime) -> SagaStepDone:
    """The record of a call. Raises msgspec.ValidationError where its result is not what it says."""
    told = encoded(result)
    decoded(call, told)
    return SagaStepDone(
        saga.name,
        saga.id,
        call.step,
        call.kind,
        call.name,
        call.asked,
        at,
        told,
        undo=call.undo_name,
    )


def failed_call(
    saga: Saga, call: Call, error: BaseException, at: datetime, *, final: bool
) -> SagaStepFailed:
    """The record of a call that raised, and when it is tried again."""
    attempt = call.attempts + 1
    retry = call.retry
    again = not final and attempt < retry.attempts and not isinstance(error, retry.never)
    until = at + timedelta(seconds=retry.delay(attempt, random.random())) if again else None  # noqa: S311 - jitter
    told = (saga.name, saga.id, call.step, call.kind, call.name, call.asked, at, attempt)
    return SagaStepFailed(*told, reason_of(error), until, call.undo_name)


def result_of_step(
    app: SagaApp, others: Mapping[int, Other], call: Call, event: SagaStepDone
) -> Any:
    """What the function gets for a record. Raises SagaFailed where it gets that."""
    match event.kind:
        case "do" if event.rejected is not None:
            raise rejected(event.name, _rejection(app.decider(type(call.what)), event))
        case "do":
            return tuple(
                app.events.named(one["type"]).decode(
                    msgspec.json.encode(one["data"]), one["version"]
                )
                for one in event.result
            )
        case "call":
            return decoded(call, event.result)
        case "wait" if event.position is None:
            raise timed_out(call)
        case "wait":
            assert event.position is not None
            return others[event.position].event(app.events)
        case _:
            return None


def _rejection(decider: Decider[Any], event: SagaStepDone) -> Rejection:
    annotated = get_type_hints(decider.decide).get("return")
    for kind in _rejections_in(annotated):
        if kind.__name__ == event.rejected:
            return msgspec.convert(event.result, kind)
    raise HeadwaterError(
        f"The decider {decider.name!r} does not say that it may reject by {event.rejected}.",
        hint="Annotate it: -> list[Reserved] | OutOfStock; a replay reads the rejection by it.",
    )


def _rejections_in(annotated: Any) -> Iterator[type[Rejection]]:
    if isinstance(annotated, type) and issubclass(annotated, Rejection):
        yield annotated
    for argument in get_args(annotated):
        yield from _rejections_in(argument)


def says_failed(error: BaseException) -> bool:
    """Whether a function gave up, and did not break: it raised SagaFailed, alone or in groups."""
    if isinstance(error, BaseExceptionGroup):
        return all(says_failed(one) for one in error.exceptions)
    return isinstance(error, SagaFailed)


def reason_of(error: BaseException) -> str:
    """What was raised, in a line that Postgres can hold; for what is no error of ours, where."""
    if isinstance(error, BaseExceptionGroup):
        text = "; ".join(reason_of(one) for one in error.exceptions)
    elif isinstance(error, HeadwaterError):
        text = f"{type(error).__name__}: {error}"
    else:
        text = f"{type(error).__name__}: {error} at {raised_at(error)}"
    return text.encode("utf-8", "replace").decode().replace("\x00", "?")[:_LONGEST]
