"""Tickets: how a browser, which cannot send a header there, opens a live channel."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from headwater.app import App
from headwater.entrances.http.access import Gate
from headwater.entrances.http.limits import Limits
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


async def ticket(
    app: App, channel: str, *, tenant: str | None = None, limits: Limits | None = None
) -> str:
    """A ticket for one channel, for a browser that your own application has let in.

    ``channel`` is ``events`` or ``views/NAME``; the ticket opens no other. Raises TenantMissing.
    """
    gate = Gate(app.database(), limits or Limits())
    return await gate.issue_ticket(app.tenant_of(tenant), channel)
