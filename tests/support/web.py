"""A server and a client for tests: real sockets, real Postgres."""

from __future__ import annotations

from contextlib import asynccontextmanager

import httpx
import msgspec

from headwater import App, Settings
from headwater.entrances.http import Limits, listen, serving
from headwater.operations.access import create_token
from tests.support import shop

NDJSON = {"Content-Type": "application/x-ndjson"}
CLOUD_EVENT = {"Content-Type": "application/cloudevents+json"}
CLOUD_EVENTS = {"Content-Type": "application/cloudevents-batch+json"}


def shop_app(database, **options):
    """The shop on a test's own database: `tests.support.shop` holds one app per process."""
    app = App("shop", events=[shop.Placed], settings=Settings(database_url=database.url), **options)
    app.fold(key="order", name="orders")(shop.orders.fold.evolve)
    app.sql("sales", row=shop.Sales, key=("bucket",), sql=shop.sales.view.text)
    app.sql("totals", row=shop.Total, key=(), sql=shop.totals.view.text)
    app.sql("by_events", row=shop.Sales, key=("bucket",), sql=shop.by_events.view.text)
    return app


@asynccontextmanager
async def api(database, *, relay=True, limits=None, tenant="main"):
    """A client with the local token, for a server of a deployed shop."""
    app = shop_app(database, tenant=tenant)
    async with app:
        await app.deploy()
        async with serving(app, listen("127.0.0.1:0"), limits=limits or Limits()) as server:
            headers = {"Authorization": f"Bearer {server.local_token}"}
            async with httpx.AsyncClient(base_url=server.url, headers=headers) as client:
                client.app, client.server = app, server
                if relay:
                    async with app.relay():
                        yield client
                else:
                    yield client


@asynccontextmanager
async def serving_of(app, address="127.0.0.1:0"):
    """A client of an app that is open, with its relay."""
    await app.deploy()
    async with app.relay(), serving(app, listen(address)) as server:
        headers = {"Authorization": f"Bearer {server.local_token}"}
        async with httpx.AsyncClient(base_url=server.url, headers=headers) as client:
            client.app, client.server = app, server
            yield client


async def token_for(client, tenant="main", scopes=("append", "read"), **options):
    """The headers of a new token."""
    operator = client.app.database("headwater_operator")
    made = await create_token(operator, name="test", tenant=tenant, scopes=scopes, **options)
    return made, {"Authorization": f"Bearer {made.text}"}


def line(order, total="5", **more):
    """One event in Headwater's own form."""
    fields = {
        "stream": f"order/{order}",
        "type": "order.placed",
        "data": {"order": str(order), "total": total},
    }
    return msgspec.json.encode(fields | more) + b"\n"


def cloud(order, event_id, total="5", **more):
    """A CloudEvent."""
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": "urn:shop",
        "type": "order.placed",
        "subject": f"order/{order}",
        "data": {"order": str(order), "total": total},
    } | more
