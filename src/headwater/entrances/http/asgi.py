"""The ASGI application: from a request to an operation, and from an error to a problem."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import msgspec
import psycopg
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from headwater.app import App
from headwater.entrances.console import page_routes
from headwater.entrances.http.access import Caller
from headwater.entrances.http.limits import Limits
from headwater.entrances.http.live.messages import channel_of
from headwater.entrances.http.live.websocket import Channels
from headwater.entrances.http.openapi import document
from headwater.entrances.http.operations import operations
from headwater.entrances.http.problems import response_of
from headwater.entrances.http.routes import Call, Operation
from headwater.entrances.http.service import Service
from headwater.errors import (
    DatabaseUnavailable,
    HeadwaterError,
    MethodRefused,
    NothingHere,
    RequestRefused,
)
from headwater.log.failures import translate
from headwater.log.tracing import span

_log = logging.getLogger("headwater.http")
_NOBODY = Caller("", None, frozenset())


def asgi(app: App, limits: Limits | None = None, *, console: bool = True) -> ASGIApp:
    """The API of an app, for any ASGI server or to be mounted into another application.

    ``api.mount("/headwater", asgi(app))`` mounts it in FastAPI. The app must be open while requests come.
    ``console`` says whether the page is served too.
    """
    return router(Service(app, limits or Limits()), console=console)


def router(service: Service, *, console: bool = True) -> Router:
    """The routes of a service, and of the page where ``console`` is set."""
    declared = operations(service.limits)
    described = msgspec.json.encode(document(declared))
    routes: list[BaseRoute] = [
        Route(path, Endpoint(service, [o for o in declared if o.path == path]))
        for path in dict.fromkeys(operation.path for operation in declared)
    ]
    routes.append(Route("/openapi.json", Document(described)))
    sockets = [
        WebSocketRoute(o.path, Channels(service, o, view="name" in o.path))
        for o in declared
        if o.by_ticket
    ]
    pages = page_routes() if console else []
    return Router([*routes, *sockets, *pages], redirect_slashes=False, default=nothing_here)


async def nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers every path that is not an operation's."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4004, "reason": "nothing_here"})
        return
    error = NothingHere("There is nothing under this path.", hint="/openapi.json lists the paths.")
    await response_of(error)(scope, receive, send)


class Document:
    """Serves the OpenAPI document."""

    def __init__(self, described: bytes) -> None:
        self._described = described

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in {"GET", "HEAD"}:
            await _method_refused(scope["method"], ["GET", "HEAD"])(scope, receive, send)
            return
        headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
        response = Response(self._described, 200, headers, "application/json")
        await response(scope, receive, send)


class Endpoint:
    """All operations of one path."""

    def __init__(self, service: Service, declared: Sequence[Operation]) -> None:
        self._service = service
        self._by_method: Mapping[str, Operation] = {o.method: o for o in declared}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        operation = self._by_method.get(method)
        if operation is None:
            known = [*self._by_method, *(["HEAD"] if "GET" in self._by_method else [])]
            await _method_refused(scope["method"], known)(scope, receive, send)
            return
        request = Request(scope, receive)
        with span(f"{method} {operation.path}", "server", parent=request.headers):
            response = await self._answer(operation, request)
        response.headers["X-Content-Type-Options"] = "nosniff"
        self._service.requests[operation.run.__name__, response.status_code] += 1
        await response(scope, receive, send)

    async def _answer(self, operation: Operation, request: Request) -> Response:
        caller = _NOBODY
        try:
            caller = await self._caller(operation, request)
            query = operation.values(request)
            response = await operation.run(Call(self._service, request, caller, query))
        except (HeadwaterError, psycopg.Error) as error:
            response = response_of(_known(error, request))
        except Exception:  # noqa: BLE001 - whatever it was, the caller gets an answer
            _log.exception("%s %s", request.method, request.url.path)
            response = response_of(HeadwaterError())
        if caller is not _NOBODY:
            response.headers["RateLimit-Policy"] = self._service.gate.rate_policy
            response.headers.update(self._service.gate.rate_headers(caller))
        return response

    async def _caller(self, operation: Operation, request: Request) -> Caller:
        if operation.scope is None:
            return _NOBODY
        gate = self._service.gate
        ticket = request.query_params.get("ticket") if operation.by_ticket else None
        if ticket is not None:
            view = request.path_params.get("name")
            return await gate.redeem_ticket(ticket, channel_of(view))
        caller = await gate.caller(request.headers.get("authorization"))
        gate.admit(caller)
        if operation.scope != "any":
            caller.may(operation.scope)
        return caller


def _method_refused(method: str, known: Sequence[str]) -> Response:
    response = response_of(
        MethodRefused(
            f"{method[:20]} is not a method of this path.", hint=f"Use {', '.join(known)}."
        )
    )
    response.headers["Allow"] = ", ".join(known)
    return response


def _known(error: HeadwaterError | psycopg.Error, request: Request) -> HeadwaterError:
    """Headwater's error for whatever was raised; what has no meaning here is logged."""
    if isinstance(error, HeadwaterError):
        if response_of(error).status_code == 500:
            _log.error("%s %s: %s", request.method, request.url.path, error)
        return error
    translation = translate(error)
    if translation is not None:
        return translation
    if isinstance(error, psycopg.OperationalError):
        return DatabaseUnavailable(hint="Try again.")
    if isinstance(error, psycopg.DataError):
        return RequestRefused(f"Postgres cannot read it: {error.diag.message_primary}.")
    _log.error("%s %s: %s", request.method, request.url.path, error)
    return HeadwaterError()
