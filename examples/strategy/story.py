"""The story that the example tells, in chapters; what should be is checked."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http import HTTPStatus
from http.client import HTTPConnection
from typing import Any

from rich.console import Console

from examples.strategy.api import RATES, arm_of, plan_of, serving
from examples.strategy.app import PATIENCE_SECONDS, Lab, compared, lab, monday, recompute, statement
from examples.strategy.backtest import Parameters, Rules, backtest
from examples.strategy.domain import (
    Fork,
    Plan,
    Publish,
    Run,
    RunFinished,
    Save,
    StartRun,
    fork_key,
    run_key,
)
from examples.strategy.earlier import SavedFirst, SavedSecond, first, second
from examples.strategy.results import Pointer, Results, encoded
from examples.telling import Story
from headwater import Accepted, Command
from headwater.entrances.http import listen

LONG: Any = {"limit": 10_000, "timeout_seconds": PATIENCE_SECONDS}
ONE, TWO, THREE = "momentum", "reversal", "breakout"
OWNER, PAYING, FIRST_IN_LINE = "free-1", "paid-1", "priority-1"
CALM = Parameters()


async def run(console: Console, results: Results) -> bool:
    """Whether all checks held."""
    story, one = Story(console), lab(results)
    await earlier_releases(story)
    async with one.app:
        await one.app.deploy()
        async with (
            one.app.relay(),
            one.app.working(),
            serving(one, listen("127.0.0.1:0")) as where,
        ):
            await three_shapes(story, one)
            await asked_twice(story, one, where)
            await three_queues(story, one)
            await publish_and_fork(story, one, where)
            await the_weeks(story, one)
            await objects(story, one)
            await arms(story, one)
            await proved(story, one)
    story.say("\nAll checks passed." if story.passed else "\nA check failed.")
    return story.passed


async def earlier_releases(story: Story) -> None:
    """What the log holds before this release is there."""
    story.chapter("Two releases ago, and one")
    async with first:
        await first.deploy()
        await first.append(SavedFirst(OWNER, ONE, 5, 20))
    async with second:
        await second.deploy()
        await second.append(SavedSecond(PAYING, TWO, 10, 30, Decimal("0.25"), "api", "b"))
    story.say("  each saved a strategy, in the shape of its day")


async def three_shapes(story: Story, one: Lab) -> None:
    """Documents of three versions, read in the newest."""
    story.chapter("The document's version evolves twice")
    token = await done(one, Save(FIRST_IN_LINE, THREE, "web", "a", Rules(3, 40, 5)))
    read = dict(await one.strategies.list(at_least=token, **LONG))
    saved = await one.app.log.read(types=["strategy.saved"], max_rows=3)
    story.check("versions in the log", [each.schema_version for each in saved], [1, 2, 3])
    fees = {sid: each.rules.fee_basis_points for sid, each in read.items() if each.rules}
    story.check("fees, in basis points", fees, {THREE: 5, ONE: 10, TWO: 25})


async def done(one: Lab, command: Command, at: datetime | None = None) -> str:
    """The token of a command that goes through."""
    answer = await one.app.do(command, occurred_at=at)
    assert isinstance(answer, Accepted), answer
    return answer.token


def start(uid: str, sid: str, seed: int, parameters: Parameters = CALM) -> StartRun:
    """A run of a strategy's first document."""
    run_id = run_key(sid, 1, parameters, seed)
    return StartRun(uid, sid, "web", arm_of(uid), run_id, 1, parameters, seed, plan_of(uid))


async def sent(where: str, path: str, uid: str, **body: Any) -> tuple[int, Any, bool]:
    """POST: the status, what is answered, and whether it is an answer of before."""

    def post() -> tuple[int, Any, bool]:
        connection = HTTPConnection(where, timeout=30)
        connection.request("POST", path, json.dumps(body), {"X-User": uid})
        answer = connection.getresponse()
        said = json.loads(answer.read())
        connection.close()
        return answer.status, said, answer.getheader("Idempotent-Replayed") == "true"

    return await asyncio.to_thread(post)


async def asked_twice(story: Story, one: Lab, where: str) -> None:
    """The same strategy, parameters and seed are one run: by HTTP, and by a command."""
    story.chapter("Asked twice, run once")
    wild = {"days": 120, "market": "wild"}
    asked = [
        {"sid": ONE, "revision": 1, "parameters": parameters, "seed": seed}
        for parameters in ({}, wild) for seed in (1, 2)
    ]  # fmt: skip
    once = [await sent(where, "/run", OWNER, **body) for body in asked]
    twice = [await sent(where, "/run", OWNER, **body) for body in asked]
    story.check("answers", Counter(status for status, _, _ in once), {HTTPStatus.ACCEPTED: 4})
    story.check("the same again", [s[:2] for s in twice] == [s[:2] for s in once], expected=True)
    story.check("told as an answer of before", sum(replayed for *_, replayed in twice), 4)
    again = await one.app.do(start(OWNER, ONE, 1))
    story.check("facts of a command for the same", getattr(again, "events", None), ())
    runs = await one.runs.list(at_least=once[-1][1]["token"], **LONG)
    story.check("runs", len(runs), 4)
    refused = await sent(where, "/run", FIRST_IN_LINE, **asked[0] | {"seed": 3})
    story.check("another's, not published", refused[1].get("refused"), "NotYours")
    burst = [await sent(where, "/run", "free-9", **asked[0]) for _ in range(14)]
    limited = Counter(status for status, *_ in burst)[HTTPStatus.TOO_MANY_REQUESTS]
    story.check("refused by the rate of the plan", limited, 14 - RATES["free"].at_once)


async def three_queues(story: Story, one: Lab) -> None:
    """Each plan's queue has workers and limits of its own."""
    story.chapter("Queues: free, paid, priority")
    asked = [(OWNER, ONE, 16), (PAYING, TWO, 8), (FIRST_IN_LINE, THREE, 4)]
    runs = [start(uid, sid, seed) for uid, sid, many in asked for seed in range(100, 100 + many)]
    await all_finished(one, *await asyncio.gather(*(done(one, run) for run in runs)))
    wanted, ended = {run.run_id for run in runs}, dict[Plan, list[datetime]]()
    for each in await one.app.log.read(types=["run.finished"], max_rows=10_000):
        if isinstance(each.event, RunFinished) and each.event.run_id in wanted:
            ended.setdefault(plan_of(each.event.uid), []).append(each.recorded_at)
    story.check("runs by queue", {p: len(e) for p, e in ended.items()}, {"free": 16, "paid": 8, "priority": 4})  # fmt: skip
    story.check("done last", max(ended, key=lambda plan: ended[plan][-1]), "free")
    took = (ended["free"][-1] - ended["free"][0]).total_seconds()
    story.check("16 free runs, 5 a second, took 2 seconds and more", took > 2, expected=True)


async def all_finished(one: Lab, *tokens: str) -> str:
    """Until each run that started by these tokens has its result, and each pointer names the latest; a token of then."""
    for token in tokens:
        await one.runs.list(at_least=token, **LONG)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            token = await one.app.log.token()
            runs = await one.runs.list(at_least=token, **LONG)
            latest = await one.latest.list(at_least=token, **LONG)
            behind = [sid for sid, each in latest if await pointed(one, sid) != each.number]
            if all(each.finished for _, each in runs) and not behind:
                return token
            await asyncio.sleep(0.05)


async def pointed(one: Lab, sid: str) -> int:
    """The number of the result that a strategy's pointer names."""
    found = await one.results.latest(sid)
    return found.number if found else 0


async def publish_and_fork(story: Story, one: Lab, where: str) -> None:
    """What is published, others may run and fork."""
    story.chapter("Publish, and fork")
    run_id = run_key(ONE, 1, CALM, 1)
    early = await sent(where, "/fork", PAYING, origin=ONE, revision=1)
    story.check("a fork of what is not published", early[1].get("refused"), "NotYours")
    for name in ("published", "published again"):
        status, said, replayed = await sent(where, "/publish", OWNER, sid=ONE, run_id=run_id)
        story.check(name, (status, said["run_id"], replayed), (200, run_id, name != "published"))
    forks = [await sent(where, "/fork", PAYING, origin=ONE, revision=1) for _ in range(2)]
    sid = fork_key(ONE, 1, PAYING)
    story.check("forks of two requests", [s["sid"] for _, s, _ in forks], [sid, sid])
    copy = await one.strategies.get(
        sid, at_least=forks[0][1]["token"], timeout_seconds=PATIENCE_SECONDS
    )
    rules = copy and (copy.owner, copy.rules)
    story.check("the fork", rules, (PAYING, Rules(5, 20, 10)))


async def the_weeks(story: Story, one: Lab) -> None:
    """Facts of the last weeks, told now; the rollup has them in their weeks, and history comes to the same."""
    story.chapter("The weekly ranking, live and from history")
    this_week = monday(datetime.now(UTC))
    owners = {ONE: OWNER, TWO: PAYING, THREE: FIRST_IN_LINE}
    for weeks in range(1, 4):
        at = this_week - timedelta(weeks=weeks) + timedelta(days=weeks, hours=5)
        runs = [start(uid, sid, 10 * weeks + n) for sid, uid in owners.items() for n in range(2)]
        await all_finished(one, *[await done(one, run, at) for run in runs])
        for run in runs[::2]:
            await done(one, Publish(run.uid, run.sid, "web", run.ab, run.run_id), at)
        for fan in (f"free-{weeks}{n}" for n in range(weeks)):
            forked = Fork(fan, fork_key(TWO, 1, fan), "web", arm_of(fan), TWO, 1)
            token = await done(one, forked, at)
    rows = await one.ranking.list(at_least=token, **LONG)
    for week in sorted({row.week for row in rows}):
        best = sorted(
            (row for row in rows if row.week == week and row.best_basis_points is not None),
            key=lambda row: (-(row.best_basis_points or 0), -(row.forks or 0), row.sid),
        )
        ranked = ", ".join(f"{r.sid} {r.best_basis_points} ({r.runs} runs, {r.forks} forks)" for r in best)  # fmt: skip
        story.say(f"  {week:%G, week %V}: {ranked}")
    history, differed = await compared(one, this_week + timedelta(weeks=1))
    story.check("rows from history", history, len(rows))
    story.check("rows that differ", differed, 0)
    before = len([row for row in rows if row.week < this_week])
    told = await recompute(one, this_week)
    story.check("the batch of tonight", (told.rows, told.differed), (before, 0))


async def objects(story: Story, one: Lab) -> None:
    """Every run's result is under its key, as its fact says; each pointer names the newest."""
    story.chapter("Results as objects")
    token = await all_finished(one)
    runs = dict(await one.runs.list(at_least=token, **LONG))
    keys = {each.finished.object for each in runs.values() if each.finished}
    story.check("objects and facts", set(await one.results.listed("results/")) == keys, expected=True)  # fmt: skip
    wrong = [run_id for run_id, each in runs.items() if not await is_kept(one, each)]
    story.check(f"of {len(runs)} results, other than told", wrong, [])
    latest = dict(await one.latest.list(at_least=token, **LONG))
    pointers = {sid: await one.results.latest(sid) for sid in latest}
    expected = {sid: Pointer(x.number, x.run_id, x.object) for sid, x in latest.items()}
    story.check(f"of {len(latest)} pointers, all at the latest", pointers == expected, expected=True)  # fmt: skip
    stale = Pointer(1, "old", "old")
    story.check("a pointer that moves back", await one.results.point(ONE, stale), expected=False)


async def is_kept(one: Lab, run: Run) -> bool:
    """Whether a run's object is what the fact says, and what the run comes to when it is run again."""
    if run.started is None or run.finished is None:
        return False
    data = await one.results.read(run.finished.object)
    again = encoded(backtest(run.started.rules, run.started.parameters, run.started.seed))
    return hashlib.sha256(data).hexdigest() == run.finished.sha256 and data == again


async def arms(story: Story, one: Lab) -> None:
    """Events in the columns that were asked for, in ClickHouse."""
    story.chapter("What each arm of the test did")
    token = await one.app.log.token()
    rows = await one.app.query(
        statement("arms"), views=[one.events], at_least=token, timeout_seconds=PATIENCE_SECONDS
    )
    for row in rows:
        story.say("  " + ", ".join(f"{name} {value}" for name, value in row.items()))
    started = await one.app.log.read(types=["run.started"], max_rows=10_000)
    story.check("runs of all arms", sum(row["runs"] for row in rows), len(started))


async def proved(story: Story, one: Lab) -> None:
    """Each view, in each store, is the fold of the log."""
    story.chapter("Proved")
    for view in one.app.views:
        story.check(f"{view} and the log", (await one.app.stored(view).verify()).summary, "equal")
    story.check("dead letters", len(await one.app.jobs_now.dead()), 0)
