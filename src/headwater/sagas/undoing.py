"""Undoes what an instance did, the last first: each is tried until it is done, or handed to a person."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg

from headwater.commands import Command, Rejection
from headwater.commands.deciding import Request
from headwater.errors import DatabaseUnavailable, DecisionOutdated, LeaseLost, VersionConflict
from headwater.log import Fact
from headwater.sagas.events import SagaCompensating, SagaHandedOver, SagaUndoFailed, SagaUndone
from headwater.sagas.outcomes import reason_of
from headwater.sagas.replaying import Done
from headwater.sagas.stepping import cause_of, key_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.events import Event
    from headwater.sagas.running import Run
    from headwater.sagas.saga import Undo


PASSING = (DatabaseUnavailable, DecisionOutdated, VersionConflict, psycopg.Error, OSError)
"""Nobody's fault: the job is tried again."""


class Refused(Exception):
    """What was to undo a step was rejected."""


async def compensate(run: Run) -> str | None:
    """The next that is to be done for it; the state in which the instance was let go, None while it goes on."""
    saga, undoing = run.replay.saga, run.replay.undoing
    if undoing.reason is None:
        raised = run.replay.raised
        reason = (
            "an operator abandoned it"
            if raised is None or run.replay.abandoned
            else reason_of(raised)
        )
        event = SagaCompensating(saga.name, saga.id, reason)
        if (
            await run.kept(lambda: run.record.write(event, state="compensating", detail=reason))
            is not None
        ):
            run.replay.feed(event)
        return None
    done = run.replay.next_undo
    if done is None:
        return await run.finish("compensated")
    if undoing.until is not None and undoing.until > run.record.now():
        free = await run.kept(
            lambda: run.record.write(
                state="compensating", detail=undoing.reason, due=undoing.until, release=True
            )
        )
        return None if free is None else "compensating"
    return await _undo(run, done)


async def _undo(run: Run, done: Done) -> str | None:
    undo = done.undo
    if undo is None:
        todo = f"Find out whether step {done.step} ({done.name}) had its effect, and undo it if so."
        return await _hand_over(run, done, todo, done.unsure or "")
    try:
        if isinstance(undo.what, Command):
            await run.kept(lambda: _command(run, done, undo.what))
        else:
            await _outside(undo, key_of(run.record, done.step, "/undo"))
            await run.keep(
                SagaUndone(run.replay.saga.name, run.replay.saga.id, done.step, undo.name)
            )
    except (LeaseLost, *PASSING):
        raise
    except Exception as error:  # noqa: BLE001 - whatever the code raises is an attempt that failed
        return await _failed(run, done, error)
    return None


async def _outside(undo: Undo, key: str) -> None:
    assert not isinstance(undo.what, Command)
    try:
        await undo.what(undo.argument, key)
    except Exception as error:
        raise Refused(reason_of(error)) from error


async def _command(run: Run, done: Done, command: Any) -> bool:
    made: list[Event] = []
    saga = run.replay.saga

    def following(outcome: Sequence[Event] | Rejection) -> Sequence[Fact]:
        if isinstance(outcome, Rejection):
            raise Refused(f"{type(command).__name__} was rejected: {outcome.message}")
        made[:] = [SagaUndone(saga.name, saga.id, done.step, type(command).__name__)]
        return [Fact(event=made[0], expect=run.record.version)]

    request = Request(command, run.record.job.tenant, cause_of(run, done.step))
    await run.app.deciding.do_with(run.app.decider(type(command)), request, saga.stream, following)
    run.record.version += 1
    run.replay.feed(made[0])
    return True


async def _failed(run: Run, done: Done, error: Exception) -> str | None:
    attempt, retry = run.replay.undoing.attempts + 1, run.definition.retry
    assert done.undo is not None
    if attempt >= retry.attempts or isinstance(error, retry.never):
        todo = (
            done.undo.otherwise
            or f"Undo step {done.step} ({done.name}) by hand: {done.undo.name} failed {attempt} times."
        )
        return await _hand_over(run, done, todo, reason_of(error))
    until = run.record.now() + timedelta(seconds=retry.delay(attempt, random.random()))  # noqa: S311 - jitter
    saga = run.replay.saga
    await run.keep(SagaUndoFailed(saga.name, saga.id, done.step, attempt, reason_of(error), until))
    return None


async def _hand_over(run: Run, done: Done, todo: str, reason: str) -> str | None:
    saga = run.replay.saga
    event = SagaHandedOver(saga.name, saga.id, done.step, todo, reason)
    kept = await run.kept(
        lambda: run.record.write(event, state="handed over", detail=reason, todo=todo, release=True)
    )
    return None if kept is None else "handed over"
