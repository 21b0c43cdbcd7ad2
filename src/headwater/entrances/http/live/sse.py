"""Server-sent events: GET /v1/live/events and /v1/live/views/{name}."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from headwater.entrances.http.live.channel import Follower
from headwater.entrances.http.live.messages import Filter, channel_of
from headwater.entrances.http.routes import Call
from headwater.errors import RequestRefused

SLOW = "the client took too little"
_RETRY = b"retry: 2000\n\n"


async def live_events(call: Call) -> Response:
    """GET /v1/live/events."""
    wanted = Filter(
        frozenset(call.texts("type")), call.text("stream"), call.text("category"), frozenset(call.texts("key"))
    )  # fmt: skip
    return await _stream(call, None, wanted)


async def live_view(call: Call) -> Response:
    """GET /v1/live/views/{name}."""
    return await _stream(call, call.text("name"), Filter(keys=frozenset(call.texts("key"))))


async def _stream(call: Call, view: str | None, wanted: Filter) -> Response:
    """Opens the channel before it answers, so that a refusal is an ordinary one."""
    resume = call.request.headers.get("last-event-id") or call.text("after")
    if resume is not None and len(resume) > 40:
        raise RequestRefused("The Last-Event-ID is no token.", hint="Pass the id of an event.")
    hub, tenant = call.service.live, call.caller.whose
    stack = AsyncExitStack()
    try:
        follower = await stack.enter_async_context(hub.following(tenant, view, wanted, resume))
        room = call.text("room") or channel_of(view)
        await stack.enter_async_context(hub.presence.of(tenant, room, call.text("member")))
    except BaseException:
        await stack.aclose()
        raise
    return EventStream(call, follower, stack)


class EventStream(Response):
    """The events of a follower, until the client goes, is dropped, or the server stops."""

    def __init__(self, call: Call, follower: Follower, stack: AsyncExitStack) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Connection": "close"}
        super().__init__(None, 200, headers, "text/event-stream")
        del self.headers["content-length"]
        self._call, self._follower, self._stack = call, follower, stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b""})
                return
            gone = asyncio.create_task(_gone(receive, self._follower))
            try:
                await self._send_all(send)
            finally:
                gone.cancel()

    async def _send_all(self, send: Send) -> None:
        follower = self._follower
        token_of = self._call.service.app.database().identity.token
        await send(_body(_RETRY + _id(token_of(follower.position))))
        try:
            async for messages in follower.follow():
                body = b"".join([m.sse for m in messages])
                with follower.sending():
                    await send(_body(body or b":\n" + _id(token_of(follower.position))))
        except TimeoutError:
            follower.drop(SLOW)
            self._call.service.live.dropped += 1
        with suppress(TimeoutError), follower.sending():
            await send(_body(_dropped(follower.dropped or ""), more=False))


async def _gone(receive: Receive, follower: Follower) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    follower.drop("the client is gone")


def _body(body: bytes, *, more: bool = True) -> dict[str, object]:
    return {"type": "http.response.body", "body": body, "more_body": more}


def _id(token: str) -> bytes:
    return b"id: %b\n\n" % token.encode()


def _dropped(reason: str) -> bytes:
    return b"event: dropped\ndata: %b\n\n" % msgspec.json.encode({"reason": reason})
