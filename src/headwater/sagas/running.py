"""Runs an instance as far as it goes: replays what is recorded, does what is new, and lets go where it waits.

Everything is recorded in the instance's stream at the version that this run knows, so of two runs of one instance,
such as a process that was cut off and its successor, one finds the stream moved on: each step is recorded once. Between
two steps nothing is kept but in the stream, so a run may end, or be killed, anywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import msgspec

from headwater.commands import Command, Decider, Deciding
from headwater.errors import (
    LeaseLost,
    NotDeterministic,
    UnknownSaga,
    VersionConflict,
)
from headwater.events import Event, EventTypes
from headwater.jobs.taken import RunningJob
from headwater.log.carrying import carrying
from headwater.log.enqueuing import Enqueue
from headwater.log.tasks import ended
from headwater.sagas.definition import SagaDefinition
from headwater.sagas.events import SagaFinished, SagaStarted, SagaStepDone, SagaStopped, SagaWaiting
from headwater.sagas.loop import StepLoop
from headwater.sagas.outcomes import (
    done_by_call,
    failed_call,
    reason_of,
    result_of_step,
    says_failed,
)
from headwater.sagas.recording import Record
from headwater.sagas.replaying import Replay
from headwater.sagas.saga import Call, Saga
from headwater.sagas.stepping import create_jobs, do_command, key_of
from headwater.sagas.undoing import PASSING, compensate

T = TypeVar("T")
_LOOK_SECONDS = 1.0


class SagaApp(Protocol):
    """What a run needs of the app."""

    name: str
    events: EventTypes
    sagas: Mapping[str, SagaDefinition[Any]]

    @property
    def deciding(self) -> Deciding:
        """Runs commands."""
        ...

    def decider(self, command: type[Command]) -> Decider[Any]:
        """Who decides on a command."""
        ...

    async def seal_fields(self, value: Any, *, tenant: str) -> Any:
        """A value, the fields sealed that its class marks as personal."""
        ...

    async def seal_jobs(self, *jobs: Enqueue, tenant: str) -> Sequence[Enqueue]:
        """Jobs, their personal arguments sealed."""
        ...


async def run_saga(app: SagaApp, job: RunningJob, saga: str, instance: str, *, timer: bool) -> str:
    """Runs an instance in a job; how it stands then. Raises UnknownSaga where this process has not the code for it.

    That a job has taken an instance is committed without waiting for the disk. Where a crash of the server takes that back
    while the job goes on, its next record is refused as a stranger's: it takes the instance anew, unless another has.
    """
    while True:
        record = Record(saga, instance, job)
        history = await record.begin(timer=timer)
        if record.standing != "yours":
            return record.standing
        try:
            return await _run(app, record, history)
        except LeaseLost:
            timer = False


async def _run(app: SagaApp, record: Record, history: list[Event]) -> str:
    started = history[0]
    assert isinstance(started, SagaStarted)
    definition = app.sagas.get(record.saga)
    if definition is None or started.version not in definition.functions:
        known = sorted(definition.functions) if definition else "none"
        reason = (
            f"It is version {started.version} of {record.saga!r}; the app {app.name!r} has {known}."
        )
        await record.write(detail=reason)
        raise UnknownSaga(reason, hint=f"Keep the old function by @{record.saga}.before({started.version}), and deploy; it goes on by itself.")  # fmt: skip
    around = {} if record.correlation is None else {"correlation": record.correlation}
    with carrying(cause={"saga": f"saga/{record.saga}/{record.instance}"}, **around):
        return await Run(app, definition, record).go(started, history[1:])


@dataclass(slots=True)
class Run:
    """One instance while a job runs it."""

    app: SagaApp
    definition: SagaDefinition[Any]
    record: Record
    tasks: dict[int, tuple[Call, asyncio.Task[Any]]] = field(default_factory=dict)
    replay: Replay = field(init=False)
    _gone: bool = False
    _look: bool = True

    async def go(self, started: SagaStarted, history: list[Event]) -> str:
        """Goes on from what is recorded, until it waits or ends; the state that it is left in."""
        try:
            self._begin(started)
            for event in history:
                self.replay.feed(event)
            self.replay.check_ended()
            while True:
                state = await self._next()
                if state is not None:
                    return state
        except (LeaseLost, *PASSING):
            raise
        except Exception as error:  # noqa: BLE001 - whatever the code raises stops this instance, and no other
            return await self._stopped(error)
        finally:
            await ended([task for _, task in self.tasks.values()])
            if hasattr(self, "replay"):
                self.replay.dismiss()

    def _begin(self, started: SagaStarted) -> None:
        record, definition = self.record, self.definition
        assert record.first is not None
        moment, position = record.first
        if started.position is not None:
            start: Any = record.others[started.position].event(self.app.events)
            position = started.position
        else:
            start = self._command(started)
        loop = StepLoop()  # type: ignore[abstract]  # what it lacks, asyncio refuses by itself
        saga = Saga(
            started.saga,
            started.instance,
            record.job.tenant,
            definition.key,
            loop,
            moment,
            position,
        )
        function = definition.functions[started.version]
        self.replay = Replay(function, saga, start, self._decode, loop)

    def _command(self, started: SagaStarted) -> Command:
        name = started.command["name"]
        kind = next(one for one in self.definition.starts if one.__name__ == name)
        return msgspec.convert(started.command["data"], kind)  # type: ignore[return-value]

    def _decode(self, call: Call, event: SagaStepDone) -> Any:
        return result_of_step(self.app, self.record.others, call, event)

    # Turns ---------------------------------------------------------------------------------------

    async def _next(self) -> str | None:
        """One thing that can be done now; the state in which it was let go, None while it goes on."""
        replay = self.replay
        if self._gone:
            return "abandoned"
        over = replay.ended or replay.abandoned
        fresh = [call for call in replay.asked.values() if not call.begun]
        if await self._take_result(over=over):
            return None
        if not replay.paused:
            # A call that was asked for is made, also where another branch has failed: what undoes it comes after.
            for call in fresh:
                if call.kind == "call" and not call.waiting:
                    self._call(call)
            now = {"do": do_command, "enqueue": create_jobs}
            if not over and (step := next((c for c in fresh if c.kind in now), None)) is not None:
                await self.kept(lambda: now[step.kind](self, step))
                return None
        if over:
            return await self._end()
        if not replay.paused and await self._look_around():
            return None
        return await self._wait()

    def _call(self, call: Call) -> None:
        call.begun = True

        async def made() -> Any:
            result = await call.what(call.argument, key_of(self.record, call.step))
            return await self.app.seal_fields(result, tenant=self.record.job.tenant)

        self.tasks[call.step] = (
            call,
            asyncio.create_task(made(), name=f"{call.name} of {self.replay.saga.stream}"),
        )

    async def _take_result(self, *, over: bool) -> bool:
        """Records what a call has come to, if one has; whether one had."""
        found = next(((call, task) for call, task in self.tasks.values() if task.done()), None)
        if found is None:
            return False
        call, task = found
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            event: Event = done_by_call(self.replay.saga, call, task.result(), self.record.now())
        else:
            event = failed_call(self.replay.saga, call, error, self.record.now(), final=over)
        if await self.keep(event):
            del self.tasks[call.step]
            call.begun = False
        return True

    async def _look_around(self) -> bool:
        """Takes what has come for steps that wait, and those whose time is over; whether there was any."""
        if not self._look:
            return False
        self._look = False
        now = self.record.now()
        waiting = [call for call in self.replay.asked.values() if call.waiting]
        overdue = [call for call in waiting if call.until is not None and call.until <= now]
        for call in overdue:
            if call.kind == "sleep":
                return await self.keep(self._done(call))
            if call.kind == "call":
                call.waiting, call.until = False, None
                return True
        steps = [call.step for call in waiting if call.kind == "wait"]
        if not steps:
            return False
        late = [call.step for call in overdue]
        for answer in await self.record.answers(steps, late):
            call = self.replay.asked[answer.step]
            return await self.keep(self._done(call, answer.position))
        return False

    def _done(self, call: Call, position: int | None = None) -> SagaStepDone:
        saga = self.replay.saga
        return SagaStepDone(saga.name, saga.id, call.step, call.kind, call.name, call.asked, self.record.now(), position=position)  # fmt: skip

    async def _wait(self) -> str | None:
        """Lets go where nothing is under way; else waits for it."""
        replay = self.replay
        if replay.stands and not self.tasks:
            raise NotDeterministic(
                f"The function waits at {replay.where} for what is no step of the saga.",
                hint="Await saga.do, call, wait or sleep, alone or by gather and TaskGroup.",
            )
        fresh = [
            self._waiting(c)
            for c in replay.asked.values()
            if not c.waiting and c.kind in {"wait", "sleep"}
        ]
        if replay.paused:
            fresh = []
        if self.tasks:
            if fresh and not await self.keep(*fresh):
                return None
            tasks = [task for _, task in self.tasks.values()]
            waits = any(call.waiting for call in replay.asked.values())
            await asyncio.wait(
                tasks, timeout=_LOOK_SECONDS if waits else None, return_when=asyncio.FIRST_COMPLETED
            )
            self._look = True
            return None
        if replay.paused:
            return "paused" if await self.kept(lambda: self.record.write(release=True)) else None
        return await self._let_go(fresh)

    async def _let_go(self, fresh: list[SagaWaiting]) -> str | None:
        untils = [
            *(call.until for call in self.replay.asked.values()),
            *(event.until for event in fresh),
        ]
        due = min((until for until in untils if until is not None), default=None)
        now = self.record.now()
        if due is not None and due <= now:
            # The view has not come to the wait yet, so it cannot be told whether the event came in time.
            due = now + max(timedelta(seconds=_LOOK_SECONDS), (now - due) / 4)
        told = self._standing()
        free = await self.kept(
            lambda: self.record.write(*fresh, state="waiting", detail=told, due=due, release=True)
        )
        if free is None:
            return None
        if free:
            return "waiting"
        for event in fresh:
            self.replay.feed(event)
        self._look = True
        return None

    def _standing(self) -> str:
        calls = self.replay.asked.values()
        return "; ".join(f"step {c.step}: {c.kind} {c.name}" for c in calls)

    def _waiting(self, call: Call) -> SagaWaiting:
        saga, what = self.replay.saga, call.what
        told = (call.step, call.kind, call.name, call.asked, call.until)
        if call.kind == "sleep":
            return SagaWaiting(saga.name, saga.id, *told)
        return SagaWaiting(saga.name, saga.id, *told, call.name, what.field, what.key, call.after)

    # Ends ----------------------------------------------------------------------------------------

    async def _end(self) -> str | None:
        """The function has ended: what is under way ends first."""
        for call in list(self.replay.asked.values()):
            if call.kind == "call" and call.waiting and not self.replay.paused:
                error = RuntimeError("it was not tried again, since the saga had ended")
                await self.keep(
                    failed_call(self.replay.saga, call, error, self.record.now(), final=True)
                )
                return None
        if self.tasks:
            await asyncio.wait(
                [task for _, task in self.tasks.values()], return_when=asyncio.FIRST_COMPLETED
            )
            return None
        if self.replay.paused:
            return "paused" if await self.kept(lambda: self.record.write(release=True)) else None
        raised = self.replay.raised
        if self.replay.abandoned or (raised is not None and says_failed(raised)):
            return await compensate(self)
        if raised is not None:
            return await self._stopped(raised)
        return await self.finish("done")

    async def finish(self, outcome: Any) -> str | None:
        """Records the end."""
        saga = self.replay.saga
        event = SagaFinished(saga.name, saga.id, outcome)
        detail = self.replay.undoing.reason
        kept = await self.kept(
            lambda: self.record.write(event, state=outcome, detail=detail, release=True)
        )
        return None if kept is None else str(outcome)

    async def _stopped(self, error: BaseException) -> str:
        reason = reason_of(error)
        saga = self.record.saga, self.record.instance
        while True:
            try:
                await self.record.write(
                    SagaStopped(*saga, reason), state="stopped", detail=reason, release=True
                )
            except VersionConflict:
                await self.record.begin()
                if self.record.standing != "yours":
                    await self.record.write(release=True)
                    return self.record.standing
            else:
                return "stopped"

    # Recording -----------------------------------------------------------------------------------

    async def keep(self, *events: Event) -> bool:
        """Records events and gives them to the replay; False where something came in between, which it then knows."""
        if await self.kept(lambda: self.record.write(*events)) is None:
            return False
        for event in events:
            self.replay.feed(event)
        self._look = True
        return True

    async def kept(self, write: Callable[[], Awaitable[T]]) -> T | None:
        """What a write gives; None where the stream had moved on, and was read again."""
        try:
            return await write()
        except VersionConflict as conflict:
            if conflict.stream != self.replay.saga.stream:
                raise
        events = await self.record.begin()
        if self.record.standing in {"lost", "busy", "unknown"}:
            raise LeaseLost
        self._gone = self.record.standing in {"done", "compensated", "abandoned"}
        self._look = True
        for event in events:
            self.replay.feed(event)
        return None
