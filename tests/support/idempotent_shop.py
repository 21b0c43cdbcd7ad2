"""A FastAPI application with endpoints that do what they are asked once, over several drivers.

Run as a program it serves itself, and ends by SIGKILL at the point that HEADWATER_TEST_DIE names.
"""

import asyncio
import os
import signal
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from typing import Annotated

import asyncpg
import msgspec
import psycopg
import sqlalchemy
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from starlette.responses import Response

from headwater import App
from headwater.entrances.asgi import Idempotency, Once, refusals
from tests.support.shop import Placed


class NewOrder(BaseModel):
    order: str
    total: Decimal
    note: str = ""


class Receipt(BaseModel):
    order: str
    position: int


def die_at(point):
    if os.environ.get("HEADWATER_TEST_DIE") == point:
        os.kill(os.getpid(), signal.SIGKILL)


def sessions(url):
    """A way to a transaction for each driver."""
    alchemy = {
        name: url.replace("postgresql://", f"postgresql+{name}://")
        for name in ("asyncpg", "psycopg")
    }
    engine = create_async_engine(alchemy["asyncpg"])
    blocking = sqlalchemy.create_engine(alchemy["psycopg"])

    @asynccontextmanager
    async def on_asyncpg():
        connection = await asyncpg.connect(url)
        try:
            async with connection.transaction():
                yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def on_psycopg():
        async with await psycopg.AsyncConnection.connect(url) as connection:
            yield connection

    @asynccontextmanager
    async def on_sqlalchemy():
        async with AsyncSession(engine) as session, session.begin():
            yield session

    @contextmanager
    def on_sqlalchemy_blocking():
        with Session(blocking) as session, session.begin():
            yield session

    asynchronous = {"asyncpg": on_asyncpg, "psycopg": on_psycopg, "sqlalchemy": on_sqlalchemy}
    return asynchronous, on_sqlalchemy_blocking


def api_of(url, gate=None):
    """The application. ``gate`` holds a request back between its claim and its facts."""
    facts = App("shop", events=[Placed], tenant="main")
    asynchronous, blocking = sessions(url)
    api = FastAPI(exception_handlers=refusals())
    once = Idempotency(tenant="main")

    def place(path, begin):
        @api.post(path, status_code=201)
        async def placing(body: NewOrder, request: Annotated[Once, Depends(once)]) -> Receipt:
            async with begin() as db:
                if (first := await request.claim(db)) is not None:
                    return first
                die_at("claimed")
                if gate is not None:
                    await gate()
                if body.note == "refuse":
                    raise HTTPException(418, "no")
                written = await facts.on(db).append(Placed(body.order, body.total))
                die_at("appended")
                receipt = Receipt(order=body.order, position=written.position)
                answer = await request.settle(db, receipt, 201)
                answer.headers["X-Early"] = "lost"
                die_at("settled")
            die_at("committed")
            return answer

    for name, begin in asynchronous.items():
        place(f"/{name}", begin)

    @api.post("/blocking", status_code=201)
    def place_blocking(body: NewOrder, request: Annotated[Once, Depends(once)]) -> Receipt:
        with blocking() as db:
            if (first := request.claim_blocking(db)) is not None:
                return first
            written = facts.on(db).append(Placed(body.order, body.total))
            receipt = Receipt(order=body.order, position=written.position)
            return request.settle_blocking(db, receipt, 201)

    by_fields = Idempotency(tenant="main", derive=["order", "total"])

    @api.post("/derived")
    async def derived(body: NewOrder, request: Annotated[Once, Depends(by_fields)]) -> Receipt:
        async with asynchronous["psycopg"]() as db:
            if (first := await request.claim(db)) is not None:
                return first
            written = await facts.on(db).append(Placed(body.order, body.total))
            headers = {"Location": f"/orders/{body.order}"}
            text = msgspec.json.encode({"position": written.position})
            return await request.settle(db, Response(text, 201, headers, "application/json"))

    optional = Idempotency(tenant="main", required=False)

    @api.post("/optional")
    async def without(body: NewOrder, request: Annotated[Once, Depends(optional)]) -> Receipt:
        async with asynchronous["psycopg"]() as db:
            if (first := await request.claim(db)) is not None:
                return first
            written = await facts.on(db).append(Placed(body.order, body.total))
            return await request.settle(db, {"position": written.position})

    return api


async def main():
    import uvicorn

    from headwater.entrances.http import listen

    bound = listen("127.0.0.1:0")
    print(bound.getsockname()[1], flush=True)
    config = uvicorn.Config(
        api_of(os.environ["HEADWATER_TEST_URL"]), log_config=None, lifespan="off"
    )
    await uvicorn.Server(config).serve(sockets=[bound])


if __name__ == "__main__":
    asyncio.run(main())
