"""What monitors ask: is the process alive, is it ready, how is the log."""

from __future__ import annotations

import msgspec
import psycopg
from starlette.responses import Response

from headwater.entrances.http.access import SQL
from headwater.entrances.http.routes import Call
from headwater.errors import HeadwaterError
from headwater.examined import examined, metrics_of
from headwater.operations.migrate import migrations


class Check(msgspec.Struct):
    """One thing looked at. What is not ``required`` is shown, and does not keep the process from being ready."""

    check: str
    ok: bool
    finding: str
    required: bool = True


class Readiness(msgspec.Struct):
    """Whether this process can serve, and what it looked at."""

    ready: bool
    checks: list[Check]


_encode = msgspec.json.Encoder().encode
_NO_STORE = {"Cache-Control": "no-store"}


async def healthz(call: Call) -> Response:
    """GET /healthz: no I/O."""
    _ = call
    return Response(b"alive\n", 200, _NO_STORE, "text/plain")


async def readyz(call: Call) -> Response:
    """GET /readyz."""
    checks = [await _schema(call)]
    ready = all(check.ok for check in checks)
    if ready:
        checks += await _views(call)
    return Response(
        _encode(Readiness(ready, checks)), 200 if ready else 503, _NO_STORE, "application/json"
    )


async def _schema(call: Call) -> Check:
    newest = max(migration.number for migration in migrations())
    try:
        async with call.service.app.database().connection() as connection:
            row = await (await connection.execute(SQL["http.schema_number"])).fetchone()
    except (HeadwaterError, psycopg.Error) as error:
        reason = error.message if isinstance(error, HeadwaterError) else type(error).__name__
        return Check("database", False, reason)
    number = 0 if row is None else row[0]
    if number < newest:
        return Check(
            "database", False, f"the schema is at {number}, older than {newest}: run headwater init"
        )
    return Check("database", True, f"reached, schema at {number}")


async def _views(call: Call) -> list[Check]:
    """How the views are. One that is parked, or waits for its store, harms no other and no writer.

    Whoever asks needs no token, so reasons are not told.
    """
    try:
        async with call.service.app.database("headwater_operator").connection() as connection:
            cursor = await connection.execute(SQL["http.view_health"])
            rows = await cursor.fetchall()
    except (HeadwaterError, psycopg.Error) as error:
        reason = error.message if isinstance(error, HeadwaterError) else type(error).__name__
        return [Check("views", False, reason, required=False)]
    checks = []
    for view, state, parked, differing in rows:
        finding = f"{state}, {parked:,} parked" if parked else state
        finding += ", differs from the log" if differing else ""
        fine = state == "running" and not parked and not differing
        checks.append(Check(f"view {view}", fine, finding, False))
    return checks


async def metrics(call: Call) -> Response:
    """GET /metrics: those of the log, and this process's own."""
    service = call.service
    lines = [await metrics_of(service.app)]
    lines.append("# HELP headwater_http_requests_total Requests answered, by operation and status.")
    lines.append("# TYPE headwater_http_requests_total counter")
    lines.extend(
        f'headwater_http_requests_total{{operation="{operation}",status="{status}"}} {count}'
        for (operation, status), count in sorted(service.requests.items())
    )
    live = service.live
    lines.append("# HELP headwater_http_live_channels Live channels that are open.")
    lines.append("# TYPE headwater_http_live_channels gauge")
    lines.append(f"headwater_http_live_channels {live.open}")
    lines.append(
        "# HELP headwater_http_live_dropped_total Clients dropped because they took too little."
    )
    lines.append("# TYPE headwater_http_live_dropped_total counter")
    lines.append(f"headwater_http_live_dropped_total {live.dropped}")
    return Response(
        "\n".join(lines) + "\n", 200, _NO_STORE, "text/plain; version=0.0.4; charset=utf-8"
    )


async def doctor(call: Call) -> Response:
    """GET /v1/doctor."""
    app = call.service.app
    return Response(_encode(await examined(app)), 200, _NO_STORE, "application/json")
