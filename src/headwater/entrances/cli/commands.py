"""Commands about the installation and the log."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import click
import msgspec
import psycopg

from headwater.app import App
from headwater.entrances.cli import output
from headwater.entrances.cli.http import DEFAULT_ADDRESS, run_loop, serving_http
from headwater.entrances.cli.main import _run, cli, command, load_app
from headwater.errors import HeadwaterError, InvalidEvent
from headwater.examined import examined
from headwater.log.database import SQL as LOG
from headwater.log.database import Database
from headwater.log.reading import safe_position
from headwater.log.tasks import ended
from headwater.log.ticker import Ticker
from headwater.operations.health import ViewRow, view_rows
from headwater.operations.migrate import admit_application, create_login, migrate

_REPORT_SECONDS = 5

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
tenant_option = click.option("--tenant", help="The tenant; default the app's only one.")


@cli.command()
@click.option(
    "--login", metavar="NAME", help="Also create this login, able to take Headwater's roles."
)
@click.option(
    "--application",
    metavar="LOGIN",
    help="Also let this existing login, the application's own, append in its own transactions.",
)
@click.option(
    "--replication",
    is_flag=True,
    help="The login of --login may read a replication slot: for tables captured by replication.",
)
@click.pass_context
def init(
    context: click.Context, login: str | None, application: str | None, replication: bool
) -> None:
    """Create or upgrade the schema and its roles; register the app's events, create its views."""
    import sys

    sys.exit(_run(lambda: _init(context.find_root().obj, login, application, replication)))


async def _init(
    app_path: str | None, login: str | None, application: str | None, replication: bool
) -> int:
    app = load_app(app_path, needed=False)
    server = app.settings.server(output.note)
    await server.open()
    try:
        done = await migrate(server.admin_url)
        for migration in done:
            output.say(f"migrated to {migration.number:04} {migration.name}")
        if not done:
            output.say("the schema is up to date")
        if login is not None:
            await create_login(
                server.admin_url, login, database_owner=True, replication=replication
            )
            output.say(
                f"login {login}: may take headwater_app, headwater_relay and headwater_operator"
            )
            output.say(f"  give it a password with: ALTER ROLE {login} PASSWORD '...'")
        if application is not None:
            await admit_application(server.admin_url, application)
            output.say(f"login {application}: may append and read as headwater_app")
        if app_path or app.settings.app:
            async with app:
                for view, status in (await app.deploy()).items():
                    output.say(f"view {view}: {'created' if status == 'missing' else status}")
    finally:
        await server.close()
    return 0


@command(app_needed=True, run_with=run_loop)
@click.option("--only", multiple=True, metavar="VIEW", help="Drive only these views.")
@click.option(
    "--http", "address", metavar="HOST:PORT", help=f"Serve HTTP here; default {DEFAULT_ADDRESS}."
)
@click.option("--no-http", is_flag=True, help="Serve no HTTP.")
@click.option("--work", is_flag=True, help="Also run the app's jobs; see headwater work.")
async def up(app: App, only: Sequence[str], address: str | None, no_http: bool, work: bool) -> int:
    """Drive the app's views and serve HTTP until interrupted."""
    for view, status in (await app.deploy()).items():
        if status == "stale":
            output.note(
                f"view {view} is stale: its definition has changed; run headwater rebuild {view}"
            )
    operator = app.database("headwater_operator")
    async with app.relay(*only):
        driven = only or (*app.views, *app.inboxes)
        output.say(f"driving {', '.join(driven) or 'no views'}; stop with Ctrl-C")
        working = app.working() if work else contextlib.nullcontext()
        async with serving_http(app, address, off=no_http), working:
            await _report(operator)
    return 0


async def _report(operator: Database) -> None:
    before: list[ViewRow] = []
    while True:
        await asyncio.sleep(_REPORT_SECONDS)
        try:
            rows = await view_rows(operator, {})
        except (HeadwaterError, psycopg.Error) as error:
            output.note(f"no report: {error}; the relay goes on trying")
            continue
        if rows != before:
            output.note(
                "  ".join(f"{row[0]}: {row[4]:,} behind, {row[5]:,} parked" for row in rows)
            )
            before = rows


@command()
@click.argument("event_type")
@click.argument("data")
@click.option("--stream", required=True, help="The stream, such as order/42.")
@click.option(
    "--expect",
    type=click.IntRange(0, 2**31 - 1),
    help="The version the stream must have; 0: must not exist.",
)
@click.option("--key", "idempotency_key", help="An idempotency key.")
@click.option("--schema-version", type=int, default=1, show_default=True)
@tenant_option
@json_option
async def append(
    app: App,
    event_type: str,
    data: str,
    stream: str,
    expect: int | None,
    idempotency_key: str | None,
    schema_version: int,
    tenant: str | None,
    as_json: bool,
) -> int:
    """Append one event of EVENT_TYPE with DATA, a JSON object."""
    try:
        msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise InvalidEvent(
            f"The data is not JSON: {error}.", hint="Pass one JSON object, quoted."
        ) from error
    async with app.transaction(tenant) as tx:
        cursor = await tx.connection.execute(
            LOG["log.append"],
            {
                "tenant": app.tenant_of(tenant),
                "stream": stream,
                "type": event_type,
                "data": data,
                "expected_version": expect,
                "metadata": "{}",
                "idempotency_key": idempotency_key,
                "id": None,
                "keys": None,
                "occurred_at": None,
                "schema_version": schema_version,
            },
        )
        row = await cursor.fetchone()
    assert row is not None
    columns = ("position", "version", "token", "duplicate")
    if as_json:
        output.json(output.as_record(columns, row))
    else:
        output.table(columns, [[str(row[0]), *row[1:]]])
    return 0


_LOG_COLUMNS = ("position", "recorded", "tenant", "stream", "version", "type", "data")


@command()
@click.option(
    "--after", type=int, default=None, help="Start after this position; default the last 20."
)
@click.option("--type", "types", multiple=True, help="Only these types.")
@click.option("--tenant", help="Only this tenant.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True)
@click.option("--follow", "-f", is_flag=True, help="Go on as events come.")
@json_option
async def log(
    app: App,
    after: int | None,
    types: Sequence[str],
    tenant: str | None,
    limit: int,
    follow: bool,
    as_json: bool,
) -> int:
    """Show events in order, the newest by default."""
    operator = app.database("headwater_operator")
    await operator.open()
    async with operator.connection() as connection, _ticking(app):
        safe = await safe_position(connection)
        filters = {"types": list(types) or None, "tenant": tenant}
        if after is None:
            parameters = {"upto": safe, "max_rows": limit, **filters}
            rows = await (await connection.execute(LOG["log.newest"], parameters)).fetchall()
            after = rows[-1][0] - 1 if rows else safe
        while True:
            parameters = {"after": after, "upto": safe, "max_rows": limit, **filters}
            rows = await (await connection.execute(LOG["log.read"], parameters)).fetchall()
            _print_events(rows, as_json=as_json)
            if not follow:
                return 0
            after = rows[-1][0] if len(rows) == limit else safe
            while (safe := await safe_position(connection)) <= after:
                await asyncio.sleep(0.1)


@command()
@click.argument("stream_name", metavar="STREAM")
@click.option("--after-version", type=int, default=0, show_default=True)
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True)
@tenant_option
@json_option
async def stream(
    app: App, stream_name: str, after_version: int, limit: int, tenant: str | None, as_json: bool
) -> int:
    """Show one stream's events."""
    whose = app.tenant_of(tenant)
    async with app.transaction(whose) as tx:
        parameters = {
            "tenant": whose,
            "stream": stream_name,
            "after_version": after_version,
            "types": None,
            "max_rows": limit,
        }
        rows = await (await tx.connection.execute(LOG["log.stream"], parameters)).fetchall()
    _print_events(rows, as_json=as_json)
    if not rows and not as_json:
        output.note(f"No events in {stream_name} of tenant {whose}.")
    return 0


def _print_events(rows: Sequence[tuple[Any, ...]], *, as_json: bool) -> None:
    if as_json:
        names = ("position", "tenant", "stream", "version", "type", "schema_version", "id", "recorded_at",
                 "occurred_at", "data", "metadata", "keys")  # fmt: skip
        for row in rows:
            record = dict(zip(names, row, strict=True))
            record |= {
                "data": msgspec.Raw(row[9].encode()),
                "metadata": msgspec.Raw(row[10].encode()),
            }
            output.json({k: str(v) if isinstance(v, UUID) else v for k, v in record.items()})
    elif rows:
        shown = [
            (str(r[0]), f"{r[7]:%Y-%m-%d %H:%M:%S}", r[1], r[2], r[3], r[4], r[9]) for r in rows
        ]
        output.table(_LOG_COLUMNS, shown)


@contextlib.asynccontextmanager
async def _ticking(app: App) -> Any:
    """Publishes the watermark while no relay does; a second ticker is harmless."""
    from headwater.log.database import connect

    relay = app.database("headwater_relay")
    await relay.open()
    async with await connect(relay.url, "headwater_relay") as connection:
        ticker = Ticker(connection)
        deadline = time.monotonic() + 1.0
        while await ticker.tick() and time.monotonic() < deadline:
            await asyncio.sleep(0.002)
        task = asyncio.create_task(_tick_on(ticker))
        try:
            yield
        finally:
            await ended([task])


async def _tick_on(ticker: Ticker) -> None:
    while True:
        await asyncio.sleep(0.005 if await ticker.tick() else 0.05)


@command()
@json_option
async def doctor(app: App, as_json: bool) -> int:
    """Examine the installation; exit code 1 where something needs attention."""
    operator = app.database("headwater_operator")
    await operator.open()
    findings = await examined(app)
    if as_json:
        output.json([msgspec.structs.asdict(finding) for finding in findings])
    else:
        rows = [(f.level, f.check, f.finding, f.remedy) for f in findings]
        output.table(("", "check", "finding", "what to do"), rows)
    return 1 if any(finding.level != "ok" for finding in findings) else 0
