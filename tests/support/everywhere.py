"""An app with a view of every kind in every store, and the engines of one test."""

from __future__ import annotations

import shutil

import psutil
from redis_server import RedisServer

from headwater import App, Document, Event, Settings
from headwater.stores.clickhouse import ClickHouse
from headwater.stores.clickhouse.placement import Placement
from headwater.stores.lake import Lake
from headwater.stores.redis import Redis
from headwater.testing.driving import drive, publish


class Placed(Event, type="order.placed", stream="order/{order}"):
    order: str
    total: int


class Voided(Event, type="order.voided", stream="order/{order}"):
    order: str


class Order(Document):
    total: int = 0
    events: int = 0


def once(state: Order, event: Placed) -> Order:
    return state.but(total=state.total + event.total, events=state.events + 1)


def twice(state: Order, event: Placed) -> Order:
    return state.but(total=state.total + 2 * event.total, events=state.events + 1)


ROWS = ("fold", "fast", "table", "analytic")
"""The views with rows: a fold and a SQL view in Postgres, a fold in Redis, a SQL view in ClickHouse."""
FEEDS = ("typed", "archive")
"""The feeds, in ClickHouse and in the lake."""


def everywhere(url, urls, *, factor=1) -> App:
    app = App(
        "orders", events=[Placed, Voided], tenant="main",
        settings=Settings(database_url=url, stores=urls),
    )  # fmt: skip
    evolve = {1: once, 2: twice}[factor]
    query = f'SELECT "order", sum({factor} * total) AS total, count(*) AS events FROM order.placed GROUP BY 1'
    analytics = ClickHouse("analytics", every_seconds=0.05, idle_seconds=20)
    app.fold(key="order", name="fold")(evolve)
    app.fold(key="order", name="fast", store=Redis("quick"))(evolve)
    app.sql("table", sql=query)
    app.sql("analytic", sql=query, store=analytics)
    types = {1: [Placed], 2: [Placed, Voided]}[factor]
    app.feed("typed", types=types, store=analytics)
    app.feed("archive", types=types, store=Lake("lake", every_seconds=0.05))
    return app


class Engines:
    """All stores of one test."""

    def __init__(self, database, folder):
        self.database = database
        self.redis = RedisServer()
        self.clickhouse, self.lake = folder / "clickhouse", folder / "lake"
        self.urls = {
            "quick": self.redis.url(),
            "analytics": f"chdb://{self.clickhouse}",
            "lake": f"file://{self.lake}",
        }

    def app(self, factor=1) -> App:
        return everywhere(self.database.url, self.urls, factor=factor)

    def close(self):
        self.redis.close()
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if "headwater.stores.clickhouse.owner" in command and str(self.clickhouse) in command:
                process.kill()
                process.wait(10)
        shutil.rmtree(Placement.of(self.clickhouse).socket.parent, ignore_errors=True)


async def asked(app, statement):
    """What ClickHouse itself answers, as any other program hears it."""
    return await app._open.engines["analytics"].query(statement)


async def fill(app, count, *, keys=7):
    written = await app.append(*(Placed(f"k{n % keys}", 1) for n in range(count)))
    await app.append(*(Voided(f"k{n}") for n in range(3)))
    await publish(app)
    return written


async def driven(app, fence, views=(*ROWS, *FEEDS)):
    for view in views:
        await drive(app, app.stored(view), fence)
        assert (await app.stored(view).verify()).summary == "equal", view
