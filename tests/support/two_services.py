"""Two services: a shop that publishes its orders, and a billing that receives them. Also a process of one of them that dies.

``python two_services.py DATABASE_URL BUS_URL POINT AT_CALL``
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from contextlib import asynccontextmanager
from types import SimpleNamespace

from headwater import App, Document, Event, Settings
from headwater.stores.kafka import Kafka
from headwater.stores.kafka.publishing import Session
from headwater.stores.nats import Nats

BUS = Nats("bus")


def bus_at(url):
    """The bus that a URL is of."""
    return Kafka("bus", prepared=True) if url.startswith("kafka") else BUS


class Placed(Event, type="order.placed", stream="order/{order}"):
    order: str
    total: int
    note: str | None = None


class Voided(Event, type="order.voided", stream="order/{order}"):
    order: str


class Noted(Event, type="order.noted", stream="order/{order}"):
    """Is not published."""

    order: str


class Due(Event, type="order.placed", stream="bill/{order}"):
    """What billing wants to know of an order that is placed: it takes no negative one."""

    order: str
    total: int


class Gone(Event, type="order.voided", stream="bill/{order}"):
    order: str


class Bill(Document):
    due: int = 0
    events: int = 0


def shop(database, bus, name="shop", **options):
    settings = Settings(database_url=database.url, stores={"bus": bus.url})
    app = App(name, events=[Placed, Voided, Noted], tenant="main", settings=settings)
    app.publish("orders", types=[Placed, Voided], bus=bus_at(bus.url), **options)
    return app


def billing(url, bus_url, *, source="shop", types=(Due, Gone), **options):
    settings = Settings(database_url=url, stores={"bus": bus_url})
    app = App("billing", events=types, tenant="main", settings=settings)
    app.receive("orders", source=source, bus=bus_at(bus_url), types=types, **options)
    if set(types) != {Due, Gone}:
        return app, None

    @app.fold(key="order")
    def bills(state: Bill, event: Due | Gone) -> Bill:
        due = event.total if isinstance(event, Due) else 0
        return state.but(due=due, events=state.events + 1)

    return app, bills


@asynccontextmanager
async def running(app, *, relay=True):
    """The app open, deployed, and driven."""
    async with app:
        await app.deploy()
        if not relay:
            yield app
            return
        async with app.relay():
            yield app


async def _die(url, bus_url, point, at_call):
    from headwater.receiving.driven import DrivenInbox
    from headwater.testing.faults import kill_at

    app, _ = billing(url, bus_url)
    when, step = point.split()
    if step in {"deliver", "end"}:  # within a publish to Kafka
        app = shop(SimpleNamespace(url=url), SimpleNamespace(url=bus_url))
        _die_in_a_session({"deliver": "_deliver", "end": "publish"}[step], when, int(at_call))
    else:
        method = {"commit": "_commit", "open": "open", "apply": "apply"}[step]
        kill_at(DrivenInbox, method, when, int(at_call))
    async with running(app):
        await asyncio.sleep(60)


def _die_in_a_session(method, when, at_call):
    """The same in the thread that publishes."""
    calls, real = itertools.count(1), getattr(Session, method)

    def deadly(*arguments):
        is_last = next(calls) == at_call
        if is_last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(Session, method, deadly)


if __name__ == "__main__":
    asyncio.run(_die(*sys.argv[1:]))
