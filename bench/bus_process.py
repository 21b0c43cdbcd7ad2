"""The relay of one of two services: ``python -m bench.bus_process shop|billing URL NATS_URL``, until it is killed."""

from __future__ import annotations

import asyncio
import sys

import uvloop

from headwater import App, Document, Event, FoldView, Settings
from headwater.stores.nats import Nats

BUS = Nats("bus")


class Placed(Event, type="order.placed", stream="order/{order}"):
    """An order, in the shop."""

    order: str
    total: int


class Due(Event, type="order.placed", stream="bill/{order}"):
    """The same, as billing takes it."""

    order: str
    total: int


class Bill(Document):
    """What an order owes."""

    due: int = 0


def shop(settings: Settings) -> App:
    """The service that publishes."""
    app = App("bench-shop", events=[Placed], tenant="main", settings=settings)
    app.publish("orders", types=[Placed], bus=BUS)
    return app


def billing(settings: Settings) -> tuple[App, FoldView[Bill]]:
    """The service that receives, and its view."""
    app = App("bench-billing", events=[Due], tenant="main", settings=settings)
    app.receive("orders", source="bench-shop", bus=BUS, types=[Due])

    @app.fold(key="order")
    def bills(state: Bill, event: Due) -> Bill:
        return state.but(due=event.total)

    return app, bills


async def _relay(which: str, url: str, nats_url: str) -> None:
    settings = Settings(database_url=url, stores={"bus": nats_url})
    app = shop(settings) if which == "shop" else billing(settings)[0]
    async with app, app.relay():
        print("driving", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_relay(*sys.argv[1:]))
