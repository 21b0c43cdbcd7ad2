"""The strategy example killed at every named point: the log, Postgres, objects and ClickHouse agree. And tampered with."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
import strategy_process
from strategy_process import POINTS, SID, asked, at

from examples.strategy import story
from examples.strategy.app import monday, recompute
from examples.strategy.backtest import Rules
from examples.strategy.domain import Published, RankingRecomputed, Save
from examples.strategy.results import Pointer

pytestmark = pytest.mark.postgres
SECONDS = 240
NEXT_WEEK, LAST_WEEK = (monday(datetime.now(UTC)) + timedelta(weeks=n) for n in (1, -1))
IN_CLICKHOUSE = """
SELECT run_id, countIf(type = 'run.started') AS started, countIf(type = 'run.finished') AS finished
FROM events WHERE type LIKE 'run.%' GROUP BY run_id"""


async def test_killed_at_every_point_all_stores_agree(database18, tmp_path):
    """One process after another asks for a run and dies on the way; the last one finds everything done once."""
    one = at(database18.url, tmp_path)
    async with one.app:
        await one.app.deploy()
        await one.app.do(Save("owner", SID, "web", "a", Rules(5, 20, 10)))
        await one.app.append(Published("owner", SID, "web", "a", "of another day", 0))
        dying = await asyncio.create_subprocess_exec(
            sys.executable, strategy_process.__file__, database18.url, str(tmp_path), *POINTS,
            stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        try:
            said, _ = await asyncio.wait_for(dying.communicate(), SECONDS)
        finally:
            if dying.returncode is None:
                dying.kill()
        assert said.decode().splitlines() == [f"{-signal.SIGKILL} {point}" for point in POINTS]
        async with one.app.relay(), one.app.working():
            # Whoever got no answer asks again: only what died before its commit is not there.
            again = [await one.app.do(asked(number)) for number in range(len(POINTS))]
            assert [len(each.events) for each in again] == [1, *[0] * (len(POINTS) - 1)]
            token = await story.all_finished(one, *(each.token for each in again))
            await once_everywhere(one, token)
            assert (await recompute(one, NEXT_WEEK)).differed == 0


async def once_everywhere(one, token):
    """Each run is there once, in every store."""
    wanted = {asked(number).run_id for number in range(len(POINTS))}
    events = await one.app.log.read(types=["run.started", "run.finished"], max_rows=10_000)
    assert Counter((e.type, e.event.run_id) for e in events) == Counter(
        (kind, run_id) for kind in ("run.started", "run.finished") for run_id in wanted
    )
    runs = dict(await one.runs.list(at_least=token, limit=10_000))
    assert runs.keys() == wanted
    assert [run_id for run_id, run in runs.items() if not await story.is_kept(one, run)] == []
    assert await one.results.listed("results/") == sorted(r.finished.object for r in runs.values())
    latest = await one.latest.get(SID, at_least=token)
    assert latest.number == len(POINTS)
    pointer = Pointer(latest.number, latest.run_id, latest.object)
    assert await one.results.latest(SID) == pointer
    found = await one.app.query(IN_CLICKHOUSE, views=[one.events], at_least=token, timeout_seconds=60)  # fmt: skip
    assert {(row["run_id"], row["started"], row["finished"]) for row in found} == {
        (run_id, 1, 1) for run_id in wanted
    }
    for view in one.app.views:
        assert (await one.app.stored(view).verify()).summary == "equal", view
    assert await one.app.jobs_now.dead() == []


async def test_a_ranking_that_was_tampered_with_is_mended_overnight(database18, tmp_path):
    """The nightly job finds the row that differs from history, rebuilds the ranking, and tells it."""
    one = at(database18.url, tmp_path)
    async with one.app:
        await one.app.deploy()
        await one.app.do(Save("owner", SID, "web", "a", Rules(5, 20, 10)))
        await one.app.append(Published("owner", SID, "web", "a", "of another day", 0))
        for number in range(3):
            token = (await one.app.do(asked(number), occurred_at=LAST_WEEK)).token
        async with one.app.relay(), one.app.working("nightly"):
            assert await rows(one, token) == {(LAST_WEEK, SID): 3}
            engine = one.app._open.engines["analytics"]
            ((groups,),) = await engine.query(
                "SELECT name FROM system.tables WHERE endsWith(name, '/ranking/1/groups')"
            )
            await engine.run(
                f"ALTER TABLE headwater.`{groups}` DELETE WHERE key_2 = '{SID}' SETTINGS mutations_sync = 2"
            )
            assert await rows(one, token) == {}
            await one.app.enqueue(one.nightly())

            async def told():
                found = await one.app.log.stream("ranking/weekly", tenant="lab")
                return [each.event for each in found]

            async with asyncio.timeout(60):
                while not (events := await told()):
                    await asyncio.sleep(0.02)
            assert events == [RankingRecomputed("weekly", 1, 1)]
            assert await rows(one, token) == {(LAST_WEEK, SID): 3}
            assert (await one.app.stored("ranking").verify()).summary == "equal"


async def rows(one, token):
    """Last week's runs, by week and strategy."""
    found = await one.ranking.list(at_least=token, timeout_seconds=60)
    return {(row.week, row.sid): row.runs for row in found if row.week == LAST_WEEK}
