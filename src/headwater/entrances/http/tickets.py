"""Tickets: how a browser, which cannot send a header there, opens a live channel."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from headwater.entrances.http.routes import Call


class Ticket(msgspec.Struct):
    """What to pass as ``ticket`` in the query of one live channel."""

    ticket: str
    seconds: int


async def create_ticket(call: Call) -> Response:
    """POST /v1/tickets."""
    ticket = await call.service.gate.issue_ticket(call.caller.whose)
    body = msgspec.json.encode(Ticket(ticket, call.service.limits.ticket_seconds))
    return Response(body, 201, {"Cache-Control": "no-store"}, "application/json")
