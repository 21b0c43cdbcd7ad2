"""The app: which views and jobs follow from the facts of strategies and runs."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from msgspec import Struct

from examples.strategy import domain
from examples.strategy.backtest import backtest
from examples.strategy.domain import (
    Forked,
    Latest,
    Plan,
    Published,
    RankingRecomputed,
    Run,
    RunFinished,
    RunStarted,
    Saved,
    Strategy,
)
from examples.strategy.results import Pointer, Results
from headwater import (
    App,
    Enqueue,
    Event,
    FeedView,
    FoldView,
    JobRate,
    Retry,
    RowsView,
    over,
    this_job,
)
from headwater.jobs import Job, Queue
from headwater.stores.clickhouse import ClickHouse

SQL = Path(__file__).parent / "sql"
FACTS: list[type[Event]] = [Saved, Forked, Published, RunStarted, RunFinished]
MONTHS = 6
"""How long ClickHouse keeps single events: 180 days were asked for, and it drops whole months. The log keeps them all."""
WEEKS = timedelta(weeks=25)
"""What is within those months on any day: the weeks that the nightly batch recomputes."""
PATIENCE_SECONDS = 60.0
IDLE_SECONDS = 5.0
AGAIN = Retry(attempts=6, first_seconds=0.5)
"""With backoff: 0.5, 1.5, 4.5 s and so on. What failed six times waits among the dead letters."""


class Ranked(Struct):
    """What a strategy did in a week. Sorted by its best result that week, it is the ranking."""

    week: datetime
    sid: str
    runs: int | None
    forks: int | None
    best_basis_points: int | None


@dataclass(frozen=True)
class Lab:
    """The app, its views, and where results are."""

    app: App
    results: Results
    strategies: FoldView[Strategy]
    runs: FoldView[Run]
    latest: FoldView[Latest]
    ranking: RowsView[Ranked]
    events: FeedView
    nightly: Job[[], Any]


def lab(results: Results, again: Retry = AGAIN) -> Lab:
    """The whole wiring. ``again`` is for tests that kill many workers."""
    app = App("strategy", events=[*FACTS, RankingRecomputed], tenant="lab")
    strategies = app.fold(key="sid", name="strategies")(domain.strategy_so_far)
    runs = app.fold(key="run_id", name="runs")(domain.run_so_far)
    latest = app.fold(key="sid", name="latest")(domain.latest_so_far)
    app.command(strategies)(domain.save)
    app.command(runs, over(strategies, stream="strategy/{sid}"))(domain.start_run)
    app.command(strategies, over(runs, stream="run/{run_id}"))(domain.publish)
    app.command(strategies, over(strategies, stream="strategy/{origin}"))(domain.fork)
    analytics = ClickHouse(
        "analytics",
        order_by=("uid",),
        keep_months=MONTHS,
        every_seconds=0.2,
        idle_seconds=IDLE_SECONDS,
    )
    events = app.feed("events", types=FACTS, store=analytics)
    ranking = app.sql("ranking", row=Ranked, key=["week", "sid"], bucket="week", store=analytics,
                      sql=SQL / "views" / "ranking.sql")  # fmt: skip
    run_and_point(app, results, runs, latest, again)

    @app.job(queue=app.queue("nightly", workers=1), retry=again)
    async def recompute_ranking() -> None:
        """The weeks that are over, from history."""
        told = await recompute(one, monday(datetime.now(UTC)))
        async with this_job().transaction() as tx:
            await tx.append(told)

    app.schedule("nightly", recompute_ranking(), cron="30 2 * * *")
    one = Lab(app, results, strategies, runs, latest, ranking, events, recompute_ranking)
    return one


def run_and_point(
    app: App, results: Results, runs: FoldView[Run], latest: FoldView[Latest], again: Retry
) -> None:
    """A run that started becomes a job, in the commit of the view that read it; a result moves the pointer."""
    queues: dict[Plan, Queue] = {
        "free": app.queue("free", workers=1, cap=1, rate=JobRate(5, per_seconds=1)),
        "paid": app.queue("paid", workers=2, cap=8),
        "priority": app.queue("priority", workers=4),
    }

    async def work(started: RunStarted) -> None:
        result = await asyncio.to_thread(backtest, started.rules, started.parameters, started.seed)
        key, sha256 = await results.keep(started.sid, started.run_id, result)
        finished = RunFinished(
            started.uid, started.sid, started.source, started.ab, started.run_id, key, sha256,
            result.return_basis_points, result.drawdown_basis_points, result.trades,
        )  # fmt: skip
        async with this_job().transaction() as tx:
            await tx.append(finished, expect=1)

    jobs: dict[Plan, Job[[RunStarted], Any]] = {
        plan: app.job(queue=queue, name=f"run_{plan}", retry=again)(work)
        for plan, queue in queues.items()
    }

    @app.job(queue=app.queue("pointers"), retry=again)
    async def point(sid: str, number: int, run_id: str, object: str) -> None:  # noqa: A002
        await results.point(sid, Pointer(number, run_id, object))

    @app.derive(runs)
    def work_to_do(_before: Run, _after: Run, event: RunStarted | RunFinished) -> Enqueue | None:
        """One run of a user at a time."""
        if isinstance(event, RunFinished):
            return None
        return jobs[event.plan](event).but(key=event.uid)

    @app.derive(latest)
    def pointers(_before: Latest, after: Latest, event: RunFinished) -> Enqueue | None:
        """One strategy's pointer at a time, in order."""
        return point(event.sid, after.number, after.run_id, after.object).but(key=event.sid)


async def recompute(one: Lab, before: datetime) -> RankingRecomputed:
    """Compares the weeks before a Monday with history, and rebuilds the ranking where they differ."""
    history, differed = await compared(one, before)
    if differed and (rebuild := one.app.rebuilding("ranking")) is not None:
        await rebuild.run()
        _, left = await compared(one, before)
        if left:
            raise RuntimeError(f"the ranking was rebuilt, and {left} rows are still otherwise")
    return RankingRecomputed("weekly", history, differed)


async def compared(one: Lab, before: datetime) -> tuple[int, int]:
    """How many rows history gives, and how many of both sides have no counterpart; both sides as of now or later."""
    token, weeks = await one.app.log.token(), {"since": before - WEEKS, "before": before}
    history, kept = [
        {tuple(row.values()) for row in await one.app.query(statement(name), weeks, views=[view], at_least=token, timeout_seconds=PATIENCE_SECONDS)}
        for name, view in (("recompute", one.events), ("ranking", one.ranking))
    ]  # fmt: skip
    return len(history), len(history ^ kept)


def monday(moment: datetime) -> datetime:
    """When the moment's week began."""
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return day - timedelta(days=day.weekday())


@cache
def statement(name: str) -> str:
    """A statement of ``sql/statements``."""
    return (SQL / "statements" / f"{name}.sql").read_text()


app = lab(
    Results(os.environ.get("STRATEGY_RESULTS_URL", f"file://{Path.cwd()}/build/strategy"))
).app
"""What ``HEADWATER_APP=examples.strategy.app:app headwater up --work`` runs."""
