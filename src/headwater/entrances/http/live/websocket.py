"""WebSockets: the same channels, one JSON message each, under the same paths."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

import psycopg
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from headwater.entrances.http.access import Caller
from headwater.entrances.http.live.channel import Follower
from headwater.entrances.http.live.messages import Filter, channel_of
from headwater.entrances.http.live.sse import SLOW
from headwater.entrances.http.problems import response_of
from headwater.entrances.http.routes import Operation
from headwater.entrances.http.service import Service
from headwater.errors import DatabaseUnavailable, Forbidden, HeadwaterError
from headwater.log.failures import translate

_TRY_AGAIN_LATER, _GOING_AWAY = 1013, 1001


class Channels:
    """One live path as a WebSocket, with the parameters of its GET."""

    def __init__(self, service: Service, operation: Operation, *, view: bool) -> None:
        self._service, self._operation, self._view = service, operation, view

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        try:
            check_origin(socket)
            values = self._operation.values(socket)
            view = values["name"] if self._view else None
            caller = await self._caller(socket, values.get("ticket"), view)
            tenant = caller.whose
            wanted = Filter(
                frozenset(values.get("type", ())), values.get("stream"), values.get("category"),
                frozenset(values["key"]),
            )  # fmt: skip
            hub = self._service.live
            async with (
                hub.following(tenant, view, wanted, values.get("after")) as follower,
                hub.presence.of(
                    tenant,
                    values.get("room") or channel_of(view),
                    values.get("member"),
                ),
            ):
                await socket.accept()
                await self._send_all(socket, follower)
        except (HeadwaterError, psycopg.Error) as error:
            await _refuse(socket, error)
        except WebSocketDisconnect:
            return

    async def _caller(self, socket: WebSocket, ticket: str | None, view: str | None) -> Caller:
        gate = self._service.gate
        if ticket is not None:
            return await gate.redeem_ticket(ticket, channel_of(view))
        caller = await gate.caller(socket.headers.get("authorization"))
        gate.admit(caller)
        caller.may("read")
        return caller

    async def _send_all(self, socket: WebSocket, follower: Follower) -> None:
        gone = asyncio.create_task(_gone(socket, follower))
        try:
            async for messages in follower.follow():
                with follower.sending():
                    for message in messages:
                        await socket.send_text(message.text)
        except TimeoutError:
            follower.drop(SLOW)
            self._service.live.dropped += 1
        finally:
            gone.cancel()
        if socket.client_state is WebSocketState.CONNECTED:
            code = _TRY_AGAIN_LATER if follower.dropped == SLOW else _GOING_AWAY
            with (
                suppress(TimeoutError, WebSocketDisconnect, RuntimeError),
                follower.sending(),
            ):
                await socket.close(code, follower.dropped)


def check_origin(connection: HTTPConnection) -> None:
    """Refuses a page of another site, which a browser lets open a WebSocket with the user's cookies.

    Raises Forbidden. Programs send no Origin.
    """
    origin = connection.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != connection.headers.get("host"):
        raise Forbidden(
            "The page is of another origin.", hint="Serve the page and the API under one host."
        )


async def _refuse(socket: WebSocket, error: HeadwaterError | psycopg.Error) -> None:
    """Before the handshake a refusal is a problem; after it, a reason."""
    known = (
        error if isinstance(error, HeadwaterError) else translate(error) or DatabaseUnavailable()
    )
    with suppress(RuntimeError, WebSocketDisconnect):
        if socket.application_state is WebSocketState.CONNECTING:
            await socket.send_denial_response(response_of(known))
        else:
            await socket.close(_TRY_AGAIN_LATER, known.code)


async def _gone(socket: WebSocket, follower: Follower) -> None:
    """Reads what the client sends, which means nothing, until it goes."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass
    follower.drop("the client is gone")
