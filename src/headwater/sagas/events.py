"""What is recorded of an instance of a saga, in its stream ``saga/NAME/ID``."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from headwater.events import Event

STREAM = "saga/{saga}/{instance}"
Kind = Literal["do", "call", "enqueue", "wait", "sleep"]


class SagaStarted(Event, type="saga.started", stream=STREAM):
    """An instance began: with the event at ``position``, or with a command."""

    saga: str
    instance: str
    version: int
    position: int | None
    command: Any = None


class SagaStepDone(Event, type="saga.step_done", stream=STREAM):
    """A step has its result. ``position`` is of the event that was waited for; without one, its time was over.

    ``rejected`` names the Rejection that a command met. ``undo`` names what undoes the step. ``at`` is what the
    saga's clock shows from here on.
    """

    saga: str
    instance: str
    step: int
    kind: Kind
    name: str
    asked: str
    at: datetime
    result: Any = None
    rejected: str | None = None
    undo: str | None = None
    position: int | None = None


class SagaStepFailed(Event, type="saga.step_failed", stream=STREAM):
    """A call raised. It is tried again at ``until``; without it, never."""

    saga: str
    instance: str
    step: int
    kind: Kind
    name: str
    asked: str
    at: datetime
    attempt: int
    reason: str
    until: datetime | None
    undo: str | None = None


class SagaWaiting(Event, type="saga.waiting", stream=STREAM):
    """A step waits: for the first event of a type after a position whose field is the key, or for a moment."""

    saga: str
    instance: str
    step: int
    kind: Kind
    name: str
    asked: str
    until: datetime | None
    type: str | None = None
    field: str | None = None
    key: str | None = None
    after: int | None = None


class SagaCompensating(Event, type="saga.compensating", stream=STREAM):
    """The function gave up; what it did is undone, the last first."""

    saga: str
    instance: str
    reason: str


class SagaUndone(Event, type="saga.undone", stream=STREAM):
    """A step is undone."""

    saga: str
    instance: str
    step: int
    name: str


class SagaUndoFailed(Event, type="saga.undo_failed", stream=STREAM):
    """Undoing a step failed; it is tried again at ``until``."""

    saga: str
    instance: str
    step: int
    attempt: int
    reason: str
    until: datetime


class SagaHandedOver(Event, type="saga.handed_over", stream=STREAM):
    """A step cannot be undone here: a person must do ``todo``."""

    saga: str
    instance: str
    step: int
    todo: str
    reason: str


class SagaStopped(Event, type="saga.stopped", stream=STREAM):
    """The code failed, or is not what the record was made with."""

    saga: str
    instance: str
    reason: str


class SagaFinished(Event, type="saga.finished", stream=STREAM):
    """The end."""

    saga: str
    instance: str
    outcome: Literal["done", "compensated"]


class SagaPaused(Event, type="saga.paused", stream=STREAM):
    """An operator let nothing new begin."""

    saga: str
    instance: str
    note: str | None = None


class SagaResumed(Event, type="saga.resumed", stream=STREAM):
    """An operator let it go on."""

    saga: str
    instance: str
    note: str | None = None


class SagaRetried(Event, type="saga.retried", stream=STREAM):
    """An operator had it try again where it stopped."""

    saga: str
    instance: str
    note: str | None = None


class SagaResolved(Event, type="saga.resolved", stream=STREAM):
    """A person did what was handed over."""

    saga: str
    instance: str
    note: str | None = None


class SagaAbandoned(Event, type="saga.abandoned", stream=STREAM):
    """An operator gave it up; ``undo`` says whether what it did is undone first."""

    saga: str
    instance: str
    note: str | None = None
    undo: bool = False


RECORDED: tuple[type[Event], ...] = (
    SagaStarted,
    SagaStepDone,
    SagaStepFailed,
    SagaWaiting,
    SagaCompensating,
    SagaUndone,
    SagaUndoFailed,
    SagaHandedOver,
    SagaStopped,
    SagaFinished,
    SagaPaused,
    SagaResumed,
    SagaRetried,
    SagaResolved,
    SagaAbandoned,
)
