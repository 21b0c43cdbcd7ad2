"""The live page: what happens comes by server-sent events, straight from the ticker's view."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from examples.football.app import Football
from examples.football.readers import breaking_news, on_screen, trending
from headwater import HeadwaterError
from headwater.entrances.http import asgi, ticket

FILES = Path(__file__).parent / "web"


def page(football: Football) -> Starlette:
    """The web application. Its own code lets visitors in; they see the ticker's channel and nothing else."""

    async def enter(_: Request) -> Response:
        """A ticket for one live channel."""
        return _json(await ticket(football.app, f"views/{football.ticker.name}"))

    async def show(request: Request) -> Response:
        """What the page shows of a match, no older than the message that made it ask."""
        token = request.query_params.get("at_least")
        try:
            ticker = await on_screen(football, request.path_params["match"], token)
            news = await breaking_news(football, token)
            feed = await trending(football, token, 6)
        except HeadwaterError as error:
            return _json({"code": error.code, "message": error.message}, 503)
        return _json({"ticker": ticker, "news": news, "feed": feed})

    return Starlette(
        routes=[
            Route("/ticket", enter, methods=["POST"]),
            Route("/matches/{match}", show),
            Mount("/headwater", asgi(football.app, console=False)),
            Mount("/", StaticFiles(directory=FILES, html=True)),
        ]
    )


@asynccontextmanager
async def serving(football: Football, bound: socket.socket) -> AsyncIterator[str]:
    """The page on a bound socket until the end of the block; its URL."""
    config = uvicorn.Config(page(football), log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve(sockets=[bound]))
    host, port = bound.getsockname()[:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        await task


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
