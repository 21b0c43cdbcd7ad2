"""The promises, checked one by one once an installation is quiet."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
import psycopg

from headwater.errors import HeadwaterError
from simulation.installation import Installation
from simulation.shop import DERIVED_EVERY, VIEWS
from simulation.verdict import SHOWN, Row, judge

CATCH_UP_SECONDS = 60.0

_OF_VERDICT: Mapping[str, str] = MappingProxyType(
    {
        "missed": "prefix-complete order: a reader sees every event",
        "invented": "isolation: a reader sees nothing but the log, and of one tenant only",
        "repeated": "prefix-complete order: a reader sees no event twice",
        "disordered": "prefix-complete order: a reader sees events in order",
        "versions": "streams are dense",
        "lost": "one commit: what was acknowledged is in the log",
        "undone": "one commit: what was rolled back is not in the log",
    }
)


class Check(msgspec.Struct):
    """One promise, and what spoke against it."""

    promise: str
    problems: list[str]

    def __str__(self) -> str:
        shown = "; ".join(self.problems[:SHOWN])
        return f"{self.promise}: {len(self.problems)}, such as {shown}"


async def check(installation: Installation) -> list[Check]:
    """Catches up, then checks everything."""
    late = await _catch_up(installation)
    committed = await installation.admin("simulation.committed")
    rows = [Row(*row[:5]) for row in committed]
    if rows:
        await installation.readers.reached(rows[-1].position)
    told = installation.processes.told
    verdict = judge(
        rows,
        installation.readers.sights,
        acknowledged=told.ledger.acknowledged,
        undone=told.ledger.undone,
    )
    checks = [
        Check("nothing waits for ever: all catches up", late),
        Check("there was something to check", [] if told.ledger.count else ["nothing was written"]),
    ]
    checks += [Check(text, verdict.problems.get(kind, [])) for kind, text in _OF_VERDICT.items()]
    marks = Counter(row.mark for row in rows)
    checks.append(
        Check(
            "idempotency: nothing is in the log twice",
            [f"{mark} {count} times" for mark, count in marks.items() if count > 1],
        )
    )
    claims = Counter((tenant, stream) for _, tenant, stream, *_, claim in committed if claim)
    checks.append(
        Check(
            "commands decide on what is: no line is claimed twice",
            [f"{line} {count} times" for line, count in claims.items() if count > 1],
        )
    )
    checks.append(Check("one token: a read is never from before its token", told.stale))
    checks += [await _equal(installation, view) for view in VIEWS]
    checks.append(await _effects(installation, committed))
    parked = await installation.admin("simulation.parked")
    checks.append(Check("nothing is parked without a cause", [str(row) for row in parked]))
    return checks


async def _catch_up(installation: Installation) -> list[str]:
    """Waits until every view has applied the log and no job is left; what is late after a minute."""
    loop = asyncio.get_running_loop()
    until = loop.time() + CATCH_UP_SECONDS
    late = ["nothing could be asked"]
    while late and loop.time() < until:
        await asyncio.sleep(0.1)
        try:
            late = await _behind(installation)
        except (psycopg.Error, HeadwaterError) as error:
            late = [f"{type(error).__name__}: {error}"]
    return late


async def _behind(installation: Installation) -> list[str]:
    ((newest,),) = await installation.admin("simulation.newest")
    reached = dict(await installation.admin("simulation.checkpoints"))
    late = [
        f"{view} stands at {reached.get(view)} of {newest}"
        for view in VIEWS
        if reached.get(view, -1) < newest
    ]
    return late + [
        f"the queue {queue.queue} has {queue.waiting} waiting, {queue.later} later, {queue.running} running"
        for queue in await installation.app.jobs_now.queues()
        if queue.waiting or queue.later or queue.running
    ]


async def _equal(installation: Installation, view: str) -> Check:
    promise = f"exactly-once effect: {view} equals the log"
    try:
        verified = await installation.app.stored(view).verify()
    except (psycopg.Error, HeadwaterError) as error:
        return Check(promise, [f"{type(error).__name__}: {error}"])
    if verified.summary == "equal":
        return Check(promise, [])
    return Check(promise, [verified.summary, *map(str, verified.differences)])


async def _effects(installation: Installation, committed: list[tuple[Any, ...]]) -> Check:
    """Each job that follows from the log has had its effect once, for its tenant; and no other."""
    owed: Counter[tuple[str, str, str]] = Counter()
    for _, tenant, _, _, mark, amount, beside, _ in committed:
        owed["derived", mark, tenant] += amount % DERIVED_EVERY == 0
        owed["beside", mark, tenant] += beside
    done = Counter(
        (kind, mark, t) for kind, mark, t in await installation.admin("simulation.effects")
    )
    problems = [f"{job} not done" for job in owed - done]
    problems += [f"{job} done {done[job]} times, not {owed[job]}" for job in done - owed]
    problems += [f"dead: {letter}" for letter in await installation.app.jobs_now.dead()]
    return Check("jobs: none is lost or done twice in effect", problems)
