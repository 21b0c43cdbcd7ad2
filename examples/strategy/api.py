"""The entrance: run, publish and fork by HTTP. What is sent again does nothing again, and gets the same answer."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import msgspec
import uvicorn
from msgspec import Struct
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.strategy.app import Lab
from examples.strategy.backtest import Parameters
from examples.strategy.domain import Fork, Plan, Publish, Source, StartRun, fork_key, run_key
from headwater import Accepted, Rejection
from headwater.entrances.asgi import Idempotency, RateLimits, refusals
from headwater.errors import RequestRefused
from headwater.rates import Limiter, PostgresCounters
from headwater.rates import Plan as Rate

RATES = {
    "free": Rate("free", requests=12, per_seconds=600),
    "paid": Rate("paid", requests=300, per_seconds=60, burst=50),
    "priority": Rate("priority", requests=3000, per_seconds=60, burst=200),
}
"""How often each plan may ask for a run: what was used comes back evenly."""
T = TypeVar("T")


class NewRun(Struct, forbid_unknown_fields=True):
    """POST /run."""

    sid: str
    revision: int
    parameters: Parameters
    seed: int


class NewPublication(Struct, forbid_unknown_fields=True):
    """POST /publish."""

    sid: str
    run_id: str


class NewFork(Struct, forbid_unknown_fields=True):
    """POST /fork."""

    origin: str
    revision: int


def user_of(request: HTTPConnection) -> str:
    """Who asks. An application's own login stands here."""
    return request.headers.get("x-user", "free-0")


def plan_of(uid: str) -> Plan:
    """What a user pays for. An application's own billing stands here."""
    plan = uid.partition("-")[0]
    return cast("Plan", plan) if plan in RATES else "free"


def arm_of(uid: str) -> str:
    """In which arm of the test a user is, always in the same."""
    return "ab"[hashlib.sha256(uid.encode()).digest()[0] % 2]


def api(one: Lab) -> Starlette:
    """The application's own endpoints over the lab."""
    once = {
        path: Idempotency(tenant="lab", caller=user_of, derive=fields.__struct_fields__)
        for path, fields in {"run": NewRun, "publish": NewPublication, "fork": NewFork}.items()
    }

    async def run(request: Request) -> Response:
        asked, uid = await _body(request, NewRun), user_of(request)
        run_id = run_key(asked.sid, asked.revision, asked.parameters, asked.seed)
        command = StartRun(
            uid, asked.sid, _source(request), arm_of(uid), run_id,
            asked.revision, asked.parameters, asked.seed, plan_of(uid),
        )  # fmt: skip
        claimed = await once["run"](request)
        return await claimed.do(one.app, command, _receipt(run_id=run_id), status=202)

    async def publish(request: Request) -> Response:
        asked, uid = await _body(request, NewPublication), user_of(request)
        command = Publish(uid, asked.sid, _source(request), arm_of(uid), asked.run_id)
        claimed = await once["publish"](request)
        return await claimed.do(one.app, command, _receipt(sid=asked.sid, run_id=asked.run_id))

    async def fork(request: Request) -> Response:
        asked, uid = await _body(request, NewFork), user_of(request)
        sid = fork_key(asked.origin, asked.revision, uid)
        command = Fork(uid, sid, _source(request), arm_of(uid), asked.origin, asked.revision)
        claimed = await once["fork"](request)
        return await claimed.do(one.app, command, _receipt(sid=sid), status=201)

    async def show(request: Request) -> Response:
        found = await one.runs.get(
            request.path_params["run_id"], at_least=request.query_params.get("at_least")
        )
        return Response(msgspec.json.encode(found), media_type="application/json")

    def who(connection: HTTPConnection) -> tuple[str, Rate] | None:
        uid = user_of(connection)
        return (uid, RATES[plan_of(uid)]) if connection.url.path == "/run" else None

    return Starlette(
        routes=[
            Route("/run", run, methods=["POST"]),
            Route("/publish", publish, methods=["POST"]),
            Route("/fork", fork, methods=["POST"]),
            Route("/runs/{run_id}", show),
        ],
        middleware=[Middleware(RateLimits, limiter=Limiter(PostgresCounters(one.app)), who=who)],
        exception_handlers=refusals(),
    )


def _receipt(**told: str) -> Callable[[Accepted | Rejection | None], Any]:
    """The answer: what it is called, and the token to read by; none where it was there before."""

    def answer(outcome: Accepted | Rejection | None) -> Any:
        if isinstance(outcome, Rejection):
            said = {"refused": type(outcome).__name__, "message": outcome.message}
            return JSONResponse(said, 409)
        return told | {"token": None if outcome is None else outcome.token}

    return answer


def _source(request: Request) -> Source:
    return "web" if request.headers.get("x-source") == "web" else "api"


async def _body(request: Request, wanted: type[T]) -> T:
    try:
        return msgspec.json.decode(await request.body(), type=wanted)
    except msgspec.DecodeError as error:
        raise RequestRefused(str(error)) from error


@asynccontextmanager
async def serving(one: Lab, bound: socket.socket) -> AsyncIterator[str]:
    """The application on a bound socket until the end of the block; its host and port."""
    config = uvicorn.Config(
        api(one), log_level="warning", access_log=False, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        yield "{}:{}".format(*bound.getsockname()[:2])
    finally:
        server.should_exit = True
        await task
