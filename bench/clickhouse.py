"""How fast views in ClickHouse follow, beside an Arrow insert of the same rows."""

from __future__ import annotations

import tempfile
import time
from statistics import median
from typing import Any

from bench.ground import Figure, Ground, alternating
from bench.shop import Placed, event
from bench.stores import followed
from headwater import App, Settings
from headwater.log.database import connect
from headwater.log.ticker import Ticker
from headwater.stores.clickhouse import ClickHouse

EVENTS = 300_000
KEYS = 100_000
BATCH = 100_000
SALES = (
    "SELECT customer, count(*) AS orders, sum(total) AS total FROM order.placed GROUP BY customer"
)


async def catching_up(ground: Ground, rounds: int) -> list[Figure]:
    """A feed and a SQL view in the embedded engine, from the beginning of the log."""
    with tempfile.TemporaryDirectory(prefix="hw-bench-") as folder:
        async with ground.app() as (filled, _):
            for first in range(0, EVENTS, BATCH):
                async with filled.transaction() as tx:
                    written = await tx.append(
                        *(event(n, KEYS) for n in range(first, first + BATCH))
                    )
            async with await connect(filled.database().url, "headwater_relay") as relay:
                ticker = Ticker(relay)
                while await ticker.tick():
                    pass
            settings = Settings(
                database_url=filled.database().url, stores={"analytics": f"chdb://{folder}/engine"}
            )
            async with declared(settings) as app:
                await app.deploy()
                return [
                    await _feed(app, written.position, rounds),
                    await _sales(app, written.position, rounds),
                ]


def declared(settings: Settings) -> App:
    """The app's views in ClickHouse."""
    store = ClickHouse("analytics", idle_seconds=5)
    app = App("bench", events=[Placed], tenant="main", settings=settings)
    app.feed("clicked", types=[Placed], store=store)
    app.sql("sales", key=("customer",), sql=SALES, store=store)
    return app


async def _feed(app: App, head: int, rounds: int) -> Figure:
    view: Any = app.stored("clicked")
    engine: Any = app._open.engines["analytics"]  # noqa: SLF001 - the engine's own, by hand
    follow = followed(app, "clicked", BATCH, head)
    await follow()
    shown = "headwater.`clicked.order.placed`"
    columns = [row[:2] for row in await engine.query(f"DESCRIBE TABLE {shown}")]
    structure = ", ".join(f"{name} {_arrives(kind)}" for name, kind in columns).replace("'", "\\'")
    blocks = [
        await engine.raw(
            f"SELECT * REPLACE (toString(id) AS id) FROM {shown} ORDER BY position "
            f"LIMIT {BATCH} OFFSET {first} FORMAT Arrow"
        )
        for first in range(0, EVENTS, BATCH)
    ]
    await engine.run(
        f"CREATE TABLE headwater.by_hand ({', '.join(f'{name} {kind}' for name, kind in columns)}) "
        "ENGINE = MergeTree PARTITION BY bitShiftRight(position, 40) ORDER BY (tenant, stream, position)"
    )

    async def by_hand() -> float:
        """The same rows as Arrow, ready in memory, a batch an insert; no log, no checkpoint."""
        started = time.perf_counter()
        for data in blocks:
            await engine.run(
                f"INSERT INTO headwater.by_hand {engine.inserting()} "
                f"SELECT * FROM input('{structure}') FORMAT Arrow",
                None,
                data,
            )
        seconds = time.perf_counter() - started
        await engine.run("TRUNCATE TABLE headwater.by_hand")
        return EVENTS / seconds

    reached, limit = await alternating(rounds, follow, by_hand)
    assert (await view.verify()).equal
    met = reached >= 0.4 * limit and reached >= 150_000
    return Figure("log to ClickHouse (chDB), a feed", reached, "events/s", limit, "0.4, 150,000/s", met)  # fmt: skip


def _arrives(kind: str) -> str:
    return "String" if kind == "UUID" else kind.replace("LowCardinality(String)", "String")


async def _sales(app: App, head: int, rounds: int) -> Figure:
    follow = followed(app, "sales", BATCH, head)
    reached = median([await follow() for _ in range(rounds)])
    assert (await app.stored("sales").verify()).equal
    return Figure("log to ClickHouse (chDB), a SQL view", reached, "events/s")
