"""Commands about queues, jobs and schedules."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click
import msgspec

from headwater.app import App
from headwater.entrances.cli import output
from headwater.entrances.cli.commands import json_option
from headwater.entrances.cli.http import run_loop
from headwater.entrances.cli.main import command
from headwater.errors import HeadwaterError, JobDefinitionError, UnknownQueue
from headwater.jobs.operating import Jobs, QueueState

_DEAD = ("id", "queue", "tenant", "job", "attempts", "reason", "died_at")
_SCHEDULES = ("schedule", "when", "zone", "job", "next", "paused", "running", "last", "outcome")


@command(app_needed=True, run_with=run_loop)
@click.argument("queue", nargs=-1)
@click.option(
    "--lease",
    type=click.FloatRange(1, 3600),
    default=15.0,
    show_default=True,
    help="Seconds until others take over the jobs of a process that was killed.",
)
async def work(app: App, queue: Sequence[str], lease: float) -> int:
    """Run the jobs of the QUEUEs, or of all, and schedules, until interrupted.

    Interrupted, it takes no more, waits up to 30 seconds for what is under way, and gives back the rest.
    """
    if not app.queues:
        raise JobDefinitionError(f"The app {app.name!r} has no queue.", hint="Declare app.queue.")
    await app.deploy()
    async with app.working(*queue, lease_seconds=lease):
        output.say(f"working on {', '.join(queue or app.queues)}; stop with Ctrl-C")
        await asyncio.Event().wait()
    return 0


@command()
@click.option("--show", type=int, metavar="JOB", help="Show this job whole.")
@click.option("--dead", is_flag=True, help="List dead letters.")
@click.option("--replay", type=int, multiple=True, metavar="JOB", help="Enqueue this dead letter again.")  # fmt: skip
@click.option("--replay-all", is_flag=True, help="Enqueue all dead letters again, or a queue's.")
@click.option("--cancel", type=int, multiple=True, metavar="JOB", help="End this job.")
@click.option("--pause", is_flag=True, help="Let nothing of --queue start.")
@click.option("--resume", is_flag=True, help="Let --queue go on.")
@click.option("--queue", help="Only this queue.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True)
@json_option
async def jobs(
    app: App,
    show: int | None,
    dead: bool,
    replay: Sequence[int],
    replay_all: bool,
    cancel: Sequence[int],
    pause: bool,
    resume: bool,
    queue: str | None,
    limit: int,
    as_json: bool,
) -> int:
    """List queues; show, cancel and replay jobs; pause and resume queues."""
    known = Jobs(app.database("headwater_operator"))
    if show is not None:
        output.json(await known.show(show))
    elif replay or replay_all:
        count = await known.replay(None if replay_all else replay, queue)
        output.say(f"{count:,} enqueued again")
        return 0 if replay_all or count == len(set(replay)) else 1
    elif cancel:
        for job in cancel:
            output.say(f"job {job}: {await known.cancel(job)}")
    elif pause or resume:
        if queue is None or (pause and resume):
            raise HeadwaterError("It is not clear what to do.", hint="Pass --queue NAME, and one of --pause and --resume.")  # fmt: skip
        await known.pause(queue, pause=pause)
        output.say(f"queue {queue}: {'paused' if pause else 'goes on'}")
    elif dead:
        output.listed(_DEAD, await known.dead(queue, limit=limit), "There are no dead letters.", as_json=as_json)  # fmt: skip
    else:
        found = [state for state in await known.queues() if queue in {None, state.queue}]
        if queue is not None and not found:
            raise UnknownQueue(f"There is no queue {queue!r}.", hint="headwater jobs lists them.")
        rows = [msgspec.structs.astuple(state) for state in found]
        none = "There is no queue. Run headwater init or work with your app."
        output.listed(QueueState.__struct_fields__, rows, none, as_json=as_json)
    return 0


@command()
@click.option("--pause", metavar="NAME", help="Let this schedule not run.")
@click.option("--resume", metavar="NAME", help="Let this schedule run again.")
@json_option
async def schedules(app: App, pause: str | None, resume: str | None, as_json: bool) -> int:
    """List schedules, their next and last runs; pause and resume them."""
    known = Jobs(app.database("headwater_operator"))
    for name, paused in ((pause, True), (resume, False)):
        if name is not None:
            await known.pause_schedule(name, pause=paused)
            output.say(f"schedule {name}: {'paused' if paused else 'goes on'}")
    if pause is None and resume is None:
        output.listed(_SCHEDULES, await known.schedules(), "There is no schedule.", as_json=as_json)
    return 0
