"""How fast a rollup by minute follows, beside the same SQL by hand."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from statistics import median

import psycopg

from bench.ground import SQL, Figure, Ground
from bench.views import _follow
from headwater import App, Event, Fact, Settings
from headwater.log.database import connect
from headwater.log.ticker import Ticker

EVENTS = 1_000_000
KEYS = 1_000
BATCH = 100_000
ROLLUP = """
    SELECT date_trunc('minute', occurred_at) AS minute, sensor, count(*) AS readings, sum(value) AS total,
           min(value) AS least, max(value) AS most, avg(value) AS mean FROM sensor.read GROUP BY 1, 2"""
START = datetime(2026, 3, 1, tzinfo=UTC)
SKETCHED = """
    SELECT date_trunc('hour', occurred_at) AS hour, sensor, last(value, occurred_at) AS latest,
           approx_quantile(value, 0.95) AS p95, approx_count_distinct(value) AS about
    FROM sensor.read GROUP BY 1, 2"""


def _read(n: int) -> Fact:
    occurred_at = START + timedelta(milliseconds=n * 10)
    return Fact(event=Read(f"s{n % KEYS}", n * 7919 % 100_003), occurred_at=occurred_at)


class Read(Event, type="sensor.read", stream="sensor/{sensor}"):
    """A measurement."""

    sensor: str
    value: int


async def by_minute(ground: Ground, rounds: int) -> list[Figure]:
    """1 million events of 1,000 keys within three hours, in batches of 100,000."""
    async with ground.app() as (other, admin_url):
        app = App(
            "bench",
            events=[Read],
            tenant="main",
            settings=Settings(database_url=other.database().url),
        )
        app.sql("rollup", sql=ROLLUP)
        app.sql("sketched", sql=SKETCHED)
        async with app:
            await app.deploy()
            with psycopg.connect(admin_url, autocommit=True) as admin:
                admin.execute("SET timezone = 'UTC'")
                admin.execute("SET synchronous_commit = off")
                for first in range(0, EVENTS, BATCH):
                    async with app.transaction("main") as tx:
                        await tx.append(*(_read(n) for n in range(first, first + BATCH)))
                async with await connect(app.database().url, "headwater_relay") as relay:
                    ticker = Ticker(relay)
                    while await ticker.tick():
                        pass
                    head = ticker.published
                admin.execute("VACUUM ANALYZE headwater.events")
                admin.execute(SQL["bench.rollup_table"])
                reached, by_hand = [], []
                for turn in range(rounds):
                    admin.execute("TRUNCATE bench.rollup")
                    started = time.perf_counter()
                    for end in range(head - EVENTS + BATCH, head + 1, BATCH):
                        admin.execute(SQL["bench.rollup"], {"after": end - BATCH, "upto": end})
                    by_hand.append(EVENTS / (time.perf_counter() - started))
                    reached.append(EVENTS / await _follow(app, "rollup", BATCH, head, turn))
                sketched = EVENTS / await _follow(app, "sketched", BATCH, head, 0)
                assert (await app.stored("rollup").verify()).equal
                assert (await app.stored("sketched").verify()).equal
    limit = median(by_hand)
    return [
        Figure("rollup by minute, 1,000 keys, 1 million events", median(reached), "events/s", limit, "0.7", median(reached) >= 0.7 * limit),
        Figure("rollup by hour with last, p95 and distinct, 1,000 keys", sketched, "events/s"),
    ]  # fmt: skip
