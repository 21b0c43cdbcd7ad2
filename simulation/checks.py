"""The promises, checked one by one once an installation is quiet."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import psycopg

from headwater.errors import HeadwaterError
from simulation.captured import Change, replay
from simulation.installation import Installation
from simulation.shop import DERIVED_EVERY, NEWER_VIEWS, PERSONS, TENANTS, VIEWS, secret
from simulation.verdict import SHOWN, Row, judge

CATCH_UP_SECONDS = 60.0
OVER = ("done", "compensated")

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
    made = Asked(installation)
    late = await _catch_up(made)
    committed = [Committed(*row) for row in await made.admin("simulation.committed")]
    declared = {type_.name for type_ in made.app.events}
    rows = [Row(*one[:5]) for one in committed if one.type in declared]
    if rows:
        await installation.readers.reached(rows[-1].position)
    told = installation.processes.told
    verdict = judge(
        rows,
        installation.readers.sights,
        acknowledged=told.ledger.acknowledged,
        undone=told.ledger.undone,
    )
    sparse = await made.admin("simulation.not_dense")
    verdict.problems["versions"] += [f"{row} is not dense" for row in sparse]
    checks = [
        Check(
            "nothing waits for ever: all catches up", [*late, *map(str, installation.faults.owed)]
        ),
        Check("there was something to check", [] if told.ledger.count else ["nothing was written"]),
    ]
    checks += [Check(text, verdict.problems.get(kind, [])) for kind, text in _OF_VERDICT.items()]
    marks = Counter(row.mark for row in rows)
    checks.append(Check("idempotency: nothing is in the log twice", _often(marks)))
    claims = Counter((one.tenant, one.stream) for one in committed if one.data.get("claim"))
    checks.append(
        Check("commands decide on what is: no line is claimed twice", _often(claims)),
    )
    checks.append(Check("one token: a read is never from before its token", told.stale))
    checks += [await _equal(made, view) for view in made.views]
    checks.append(await _effects(made, committed))
    checks.append(
        Check("sagas: each ends, and has done or undone all", await _sagas(made, committed))
    )
    checks.append(Check("capture: the log tells the table's story", await _captured(made)))
    checks.append(
        Check("erasure: who is forgotten is in no view, all others are", await _personal(made))
    )
    parked = await made.admin("simulation.parked")
    checks.append(Check("nothing is parked without a cause", [str(row) for row in parked]))
    return checks


def _often(counts: Counter[Any]) -> list[str]:
    return [f"{what} {count} times" for what, count in counts.items() if count > 1]


class Committed(NamedTuple):
    """An event of the log, whatever its type."""

    position: int
    tenant: str
    stream: str
    version: int
    mark: str
    type: str
    data: dict[str, Any]


class Asked:
    """The installation as the checks ask it: by the newest app that was deployed."""

    def __init__(self, installation: Installation) -> None:
        deployed = installation.faults.deployed
        self.app = installation.newer if deployed else installation.app
        self.views = (*VIEWS, *(NEWER_VIEWS if deployed else ()))
        self.admin = installation.server.admin


async def _catch_up(made: Asked) -> list[str]:
    """Waits until every view has applied the log and no job is left; what is late after a minute."""
    loop = asyncio.get_running_loop()
    until = loop.time() + CATCH_UP_SECONDS
    late = ["nothing could be asked"]
    while late and loop.time() < until:
        await asyncio.sleep(0.1)
        try:
            late = await _behind(made)
        except (psycopg.Error, HeadwaterError) as error:
            late = [f"{type(error).__name__}: {error}"]
    return late


async def _behind(made: Asked) -> list[str]:
    ((newest,),) = await made.admin("simulation.newest")
    reached = dict(await made.admin("simulation.checkpoints"))
    late = [
        f"{view} stands at {reached.get(view)} of {newest}"
        for view in made.views
        if reached.get(view, -1) < newest
    ]
    late += [f"saga {row}" for row in await made.admin("simulation.sagas") if row[2] not in OVER]
    return late + [
        f"the queue {queue.queue} has {queue.waiting} waiting, {queue.later} later, {queue.running} running"
        for queue in await made.app.jobs_now.queues()
        if queue.waiting or queue.later or queue.running
    ]


async def _equal(made: Asked, view: str) -> Check:
    promise = f"exactly-once effect: {view} equals the log"
    try:
        verified = await made.app.stored(view).verify()
    except (psycopg.Error, HeadwaterError) as error:
        return Check(promise, [f"{type(error).__name__}: {error}"])
    if verified.summary == "equal":
        return Check(promise, [])
    return Check(promise, [verified.summary, *map(str, verified.differences)])


async def _effects(made: Asked, committed: Sequence[Committed]) -> Check:
    """Each job that follows from the log has had its effect once, for its tenant; and no other."""
    owed: Counter[tuple[str, str, str]] = Counter()
    for one in committed:
        if one.type == "shop.noted":
            owed["derived", one.mark, one.tenant] += one.data["amount"] % DERIVED_EVERY == 0
            owed["beside", one.mark, one.tenant] += one.data.get("beside", False)
    done = Counter((kind, mark, t) for kind, mark, t in await made.admin("simulation.effects"))
    problems = [f"{job} not done" for job in owed - done]
    problems += [f"{job} done {done[job]} times, not {owed[job]}" for job in done - owed]
    problems += [f"dead: {letter}" for letter in await made.app.jobs_now.dead()]
    return Check("jobs: none is lost or done twice in effect", problems)


async def _sagas(made: Asked, committed: Sequence[Committed]) -> list[str]:
    """Each order has a saga that has done all its steps, or undone them, once."""
    happened = Counter(
        (one.type.removeprefix("shop."), one.tenant, one.data["order"])
        for one in committed
        if "order" in one.data and one.type.startswith("shop.")
    )
    failing = {(one.tenant, one.data["order"]) for one in committed if one.data.get("fails")}
    states = {(tenant, id_): state for tenant, id_, state in await made.admin("simulation.sagas")}
    paid = {(t, order): (count, amount) for t, order, count, amount in await made.admin("simulation.accounts")}  # fmt: skip
    problems = []
    for kind, tenant, order in happened:
        if kind != "ordered":
            continue
        key = (tenant, order)
        state = states.pop(key, "never begun")
        ended = [happened[what, tenant, order] for what in ("reserved", "released", "closed")]
        wanted = {"done": ([1, 0, 1], (1, 1)), "compensated": ([1, 1, 0], (2, 0))}.get(state)
        if (ended, paid.pop(key, None)) != wanted or (state == "done" and key in failing):
            known = await made.admin("simulation.saga", tenant=tenant, id=order)
            problems.append(f"{key} {state}: reserved, released, closed {ended}; {known}")
    problems += [f"{key} {state} of no order" for key, state in states.items()]
    return problems + [f"{key} paid for no order" for key in paid]


async def _captured(made: Asked) -> list[str]:
    """What the log says of the captured table is possible, and is what the table holds."""
    rows, problems = replay(Change(*row) for row in await made.admin("simulation.changes"))
    told = {(*key, row["price"], row["note"]) for key, row in rows.items()}
    held = set(await made.admin("simulation.goods"))
    problems += [f"{row} is in the table alone" for row in held - told]
    return problems + [f"{row} is in the log alone" for row in told - held]


async def _personal(made: Asked) -> list[str]:
    """What each person said is in clear in the views that open, unless they are forgotten."""
    facts = await made.admin("simulation.forgotten")
    problems = _often(Counter(facts))
    for view in ("known", "known_fast"):
        for tenant in TENANTS:
            for who in PERSONS:
                found: Any = await made.app.view(view).get(who, tenant=tenant)
                is_clear = found is not None and found.said.startswith(secret(who, ""))
                if found is not None and is_clear == ((tenant, who) in facts):
                    problems.append(f"{view} of {tenant}/{who}: {found}")
    return problems
