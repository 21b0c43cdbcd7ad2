"""The entrance: notebooks send events, a teacher sees the class, a student sees what is theirs."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from examples.classroom.app import SQL, Classroom
from headwater import FoldView, HeadwaterError, RowsView
from headwater.entrances.http import asgi, ticket

FILES = Path(__file__).parent / "web"
STUCK, ERRORS_IN_A_ROW = 5, 2
Role = Literal["teacher", "student"]


@dataclass(frozen=True)
class Cards:
    """Who somebody is, signed: an application's own login stands here. A card is ROLE.CLASS.NAME.SIGNATURE."""

    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def issue(self, role: Role, of: str, name: str) -> str:
        """A card for a teacher or a student of a class."""
        said = f"{role}.{of}.{name}"
        return f"{said}.{hmac.new(self.key, said.encode(), hashlib.sha256).hexdigest()}"

    def holder(self, request: Request, role: Role) -> tuple[str, str]:
        """The class and name of whoever asks. Raises PermissionError where the card is not of that role, or forged."""
        card = request.headers.get("authorization", "").removeprefix("Bearer ")
        match card.split("."):
            case [found, of, name, _] if found == role and hmac.compare_digest(
                self.issue(role, of, name).encode(), card.encode()
            ):
                return of, name
        raise PermissionError(f"A {role}'s card is needed.")


def page(room: Classroom, cards: Cards) -> Starlette:
    """The web application: pages of its own, and Headwater's API, by which notebooks append."""

    async def enter(request: Request) -> Response:
        """A ticket for the live channel of the teacher's own class."""
        of, _ = cards.holder(request, "teacher")
        return _json(await ticket(room.app, f"views/{room.summary.name}", tenant=of))

    async def whole_class(request: Request) -> Response:
        """What a teacher sees, no older than the message that made the page ask."""
        of, _ = cards.holder(request, "teacher")
        return _json(await seen_by_teacher(room, of, request.query_params.get("at_least") or None))

    async def who(request: Request) -> Response:
        """The names of the teacher's own class."""
        of, _ = cards.holder(request, "teacher")
        return _json(await names(room, of))

    async def mine(request: Request) -> Response:
        """What a student sees. Who that is comes from the card alone; the request cannot name another."""
        of, student = cards.holder(request, "student")
        return _json(
            await seen_by_student(room, of, student, request.query_params.get("at_least") or None)
        )

    def refused(_: Request, error: Exception) -> Response:
        return _json({"code": "forbidden", "message": str(error)}, 403)

    def failed(_: Request, error: Exception) -> Response:
        assert isinstance(error, HeadwaterError)
        return _json({"code": error.code, "message": error.message}, 503)

    return Starlette(
        routes=[
            Route("/ticket", enter, methods=["POST"]),
            Route("/class", whole_class),
            Route("/names", who),
            Route("/mine", mine),
            Mount("/headwater", asgi(room.app, console=False)),
            Mount("/", StaticFiles(directory=FILES, html=True)),
        ],
        exception_handlers={PermissionError: refused, HeadwaterError: failed},
    )


async def seen_by_teacher(room: Classroom, of: str, token: str | None) -> dict[str, Any]:
    """The class, by numbers: where each student is, each notebook, the last minutes, and who is stuck."""
    views: list[FoldView[Any] | RowsView[Any]] = [room.summary, room.activity, room.attempts]
    (found,), learners, stuck = await asyncio.gather(
        room.app.query(_statement("class"), views=views, tenant=of, at_least=token),
        room.learners.list(tenant=of, limit=500, at_least=token),
        room.learners.leaders(STUCK, tenant=of),
    )
    most = [student for student, errors in stuck if errors >= ERRORS_IN_A_ROW]
    return {"class": of, "now": dict(learners), "stuck": most, **found}


async def names(room: Classroom, of: str) -> dict[str, str]:
    """Who the numbers are: the one view that opens what is sealed, for the teacher."""
    return {student: pupil.name for student, pupil in await room.pupils.list(tenant=of, limit=500)}


async def seen_by_student(
    room: Classroom, of: str, student: str, token: str | None
) -> dict[str, Any]:
    """One student's own progress; no name, and nobody else's."""
    own = await room.app.query(
        _statement("own_attempts"), {"student": student},
        views=[room.attempts], tenant=of, at_least=token,
    )  # fmt: skip
    return {"student": student, "now": await room.learners.get(student, tenant=of), "attempts": own}


@asynccontextmanager
async def serving(room: Classroom, cards: Cards, bound: socket.socket) -> AsyncIterator[str]:
    """The application on a bound socket until the end of the block; its URL."""
    config = uvicorn.Config(
        page(room, cards),
        log_level="warning",
        access_log=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve(sockets=[bound]))
    host, port = bound.getsockname()[:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        await task


@cache
def _statement(name: str) -> str:
    return (SQL / "statements" / f"{name}.sql").read_text()


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
