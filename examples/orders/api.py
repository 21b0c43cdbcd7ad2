"""``python -m examples.orders.api PORT``: the service of orders with its HTTP, its relay and its workers."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from examples.orders.order import Placed, app, orders
from headwater.entrances.asgi import Idempotency, refusals
from headwater.errors import RequestRefused

once = Idempotency(tenant="main", derive=("order",))


async def place(request: Request) -> Response:
    """POST /orders: sent again, it does nothing again and gives the same answer."""
    asked = await once(request)
    try:
        placed = msgspec.json.decode(await request.body(), type=Placed)
    except msgspec.ValidationError as error:
        raise RequestRefused(str(error)) from error
    async with app.transaction() as tx:
        if (first := await asked.claim(tx.connection)) is not None:
            return first
        written = await tx.append(placed, expect=0)
        receipt = {"order": placed.order, "token": written.token}
        return await asked.settle(tx.connection, receipt, status=201)


async def show(request: Request) -> Response:
    """GET /orders/{order}?at_least=TOKEN."""
    token = request.query_params.get("at_least")
    found = await orders.get(request.path_params["order"], at_least=token)
    return Response(msgspec.json.encode(found), media_type="application/json")


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Everything that the service runs, in one process."""
    async with app:
        await app.deploy()
        async with app.relay(), app.working():
            yield


api = Starlette(
    routes=[Route("/orders", place, methods=["POST"]), Route("/orders/{order}", show)],
    lifespan=lifespan,
    exception_handlers=refusals(),
)

if __name__ == "__main__":
    uvicorn.run(api, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
