"""Carries out steps whose effect and record are one commit: a command's events, new jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.commands.deciding import Request
from headwater.events import Event
from headwater.log import Fact
from headwater.log.carrying import carrying
from headwater.sagas.events import SagaStepDone
from headwater.sagas.outcomes import done_by_command
from headwater.sagas.recording import Record
from headwater.sagas.saga import Call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.commands import Rejection
    from headwater.sagas.running import Run


def key_of(record: Record, step: int, suffix: str = "") -> str:
    """The idempotency key of a step: the same however often it is tried."""
    return f"{record.job.tenant}/{record.saga}/{record.instance}/{step}{suffix}"


async def do_command(run: Run, call: Call) -> bool:
    """Decides, and appends what was decided with the step's record. Raises VersionConflict where the stream has moved on."""
    made: list[Event] = []

    def following(outcome: Sequence[Event] | Rejection) -> Sequence[Fact]:
        made[:] = [done_by_command(run.replay.saga, call, outcome, run.record.now())]
        return [Fact(event=made[0], expect=run.record.version)]

    request = Request(call.what, run.record.job.tenant, cause_of(run, call.step))
    decider = run.app.decider(type(call.what))
    await run.app.deciding.do_with(decider, request, run.replay.saga.stream, following)
    run.record.version += 1
    run.replay.feed(made[0])
    return True


async def create_jobs(run: Run, call: Call) -> bool:
    """Creates jobs in the commit of the step's record. Raises VersionConflict where the stream has moved on."""
    saga, at = run.replay.saga, run.record.now()
    made = SagaStepDone(saga.name, saga.id, call.step, call.kind, call.name, call.asked, at, undo=call.undo_name)  # fmt: skip
    jobs = await run.app.seal_jobs(*call.what, tenant=run.record.job.tenant)
    with carrying(**cause_of(run, call.step)):
        await run.record.write(made, jobs=jobs)
    run.replay.feed(made)
    return True


def cause_of(run: Run, step: int) -> dict[str, object]:
    """What the events of a step carry."""
    return {"cause": {"saga": run.replay.saga.stream, "step": step}}
