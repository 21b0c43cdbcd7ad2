"""Commands about captured tables."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Literal

import click

from headwater.app import App
from headwater.capture import (
    Captured,
    CaptureOptions,
    backfill,
    begin_resync,
    captures,
    check_requirements,
    close_slot,
    compare,
    make_told,
    problems,
    readiness,
    release,
)
from headwater.capture import capture as capture_table
from headwater.capture.sources import RegisteredType, python_source, typescript_source
from headwater.capture.tables import SQL, find
from headwater.entrances.cli import output
from headwater.entrances.cli.commands import json_option
from headwater.entrances.cli.main import command
from headwater.errors import AlreadyCaptured, CaptureRefused
from headwater.log.database import Database


@command()
@click.argument("table")
@click.option("--as", "name", metavar="NAME", help="The events' name; default the table's.")
@click.option("--tenant", help="The tenant of every row.")
@click.option("--tenant-column", metavar="COLUMN", help="The column that names a row's tenant.")
@click.option("--session-tenant", is_flag=True, help="The writing session's tenant.")
@click.option("--only", multiple=True, metavar="COLUMN", help="Capture only these columns.")
@click.option("--leave-out", multiple=True, metavar="COLUMN", help="Leave these columns out.")
@click.option("--rename", multiple=True, metavar="COLUMN=FIELD", help="Name a column's field.")
@click.option(
    "--personal",
    multiple=True,
    metavar="COLUMN=SUBJECT",
    help="A personal column, and the column that names the person; left out for now.",
)
@click.option("--no-backfill", is_flag=True, help="Leave out the rows that exist.")
@click.option(
    "--by",
    "way",
    type=click.Choice(["triggers", "replication"]),
    default="triggers",
    show_default=True,
    help="In the writer's transaction, or after it, by logical replication.",
)
@click.option(
    "--again", is_flag=True, help="Go on with the streams of a capture that was released."
)
async def capture(
    app: App,
    table: str,
    name: str | None,
    tenant: str | None,
    tenant_column: str | None,
    session_tenant: bool,
    only: Sequence[str],
    leave_out: Sequence[str],
    rename: Sequence[str],
    personal: Sequence[str],
    no_backfill: bool,
    way: Literal["triggers", "replication"],
    again: bool,
) -> int:
    """Append an event for each change of TABLE's rows, and for each row that exists."""
    operator = app.database("headwater_operator")
    await operator.open()
    options = CaptureOptions(
        name=name,
        tenant=tenant,
        tenant_column=tenant_column,
        session_tenant=session_tenant,
        only=tuple(only) or None,
        left_out=tuple(leave_out),
        renamed=_pairs("--rename", rename),
        personal=_pairs("--personal", personal),
        backfill=not no_backfill,
        way=way,
        again=again,
    )
    if way == "replication":
        await check_requirements(operator, app.replication_url)
    captured = await _captured_or_unfinished(operator, table, options)
    for column in options.personal:
        output.note(f"{column} is personal: it is left out until events can be sealed")
    await _backfill(app, operator, captured)
    return 0


@command()
@click.argument("names", nargs=-1, metavar="[TABLE]...")
async def resync(app: App, names: Sequence[str]) -> int:
    """Compare captured tables with the log, and append what it missed; default those that are lost."""
    operator = app.database("headwater_operator")
    await operator.open()
    lost = [captured.name for captured in await captures(operator) if captured.state == "lost"]
    for name in names or lost:
        captured = await find(operator, name)
        await begin_resync(operator, captured)
        await _backfill(app, operator, await find(operator, captured.name))
    if not names and not lost:
        await close_slot(
            operator, app.replication_url
        )  # which a release that was killed may have left
        output.note("No capture is lost. Name one to compare it all the same.")
    return 0


async def _captured_or_unfinished(
    operator: Database, table: str, options: CaptureOptions
) -> Captured:
    """A new capture; or the one whose backfill was interrupted, where no options are given."""
    if options == CaptureOptions():
        known = {captured.table: captured for captured in await captures(operator)}
        found = known.get(table) or known.get(f"public.{table}")
        if found is not None and found.state == "backfilling":
            output.say(f"goes on with the backfill of {table}, as {found.name}")
            return await find(operator, found.name)
        if found is not None:
            raise AlreadyCaptured(
                f"{table} is captured already, as {found.name!r}.",
                hint="headwater captures shows it; headwater release takes it out.",
            )
    captured = await capture_table(operator, table, options)
    output.say(f"captured {table} as {captured.name}: {captured.name}.inserted, .updated, .deleted")
    return captured


async def _backfill(app: App, operator: Database, captured: Captured) -> None:
    if captured.state != "backfilling":
        return
    ready = await readiness(operator, captured.id)
    async with AsyncExitStack() as reading:
        if ready.way == "replication":
            output.note("waiting for the transactions that are open now to end")
            await make_told(operator, app.replication_url, captured.id)
            # One reader at a time: this one reads where no relay does.
            await reading.enter_async_context(app.replicating())
        steps = compare if ready.compares else backfill
        rows = 0
        allowed = app.settings.allowance(operator, output.note)
        await allowed(0)
        with output.progress_bar() as bar:
            task = bar.add_task(captured.name, total=None)
            async for progress in steps(operator, captured):
                await allowed(max(progress.rows - rows, 0))  # between two steps nothing is open
                rows = progress.rows
                label = f"{captured.name} {progress.rows_per_second:,.0f} rows/s"
                bar.update(task, completed=rows, total=max(progress.total, rows), description=label)
    output.say(f"{'compared' if ready.comparing else 'backfilled'} {rows:,} rows")


def _pairs(option: str, values: Sequence[str]) -> dict[str, str]:
    pairs = dict(value.partition("=")[::2] for value in values)
    if not all(pairs.values()):
        raise CaptureRefused(
            f"{option} needs COLUMN=OTHER, not {', '.join(values)}.",
            hint=f"Write {option} email=customer_id.",
        )
    return pairs


@command()
@click.argument("name", metavar="TABLE")
async def release_(app: App, name: str) -> int:
    """Stop capturing TABLE: its triggers go, its events stay."""
    operator = app.database("headwater_operator")
    await operator.open()
    output.say(f"released {await release(operator, name)}; its events stay in the log")
    await close_slot(operator, app.replication_url)
    return 0


@command()
@json_option
async def captures_(app: App, as_json: bool) -> int:
    """Show captured tables; exit code 1 where one needs attention."""
    operator = app.database("headwater_operator")
    await operator.open()
    found = await captures(operator)
    wrong = {problem.capture: problem for problem in await problems(operator)}
    columns = ("capture", "table", "by", "state", "version", "tenant", "backfilled", "problem")
    rows = [
        (c.name, c.table, c.way, c.state, c.schema_version, c.tenant, c.backfilled_rows,
         wrong[c.name].finding if c.name in wrong else None)
        for c in found
    ]  # fmt: skip
    if as_json:
        output.json([output.as_record(columns, row) for row in rows])
    elif rows:
        output.table(columns, rows)
    else:
        output.note("No table is captured. Run headwater capture TABLE.")
    return int(bool(wrong))


@command()
@click.option("--python", "language", flag_value="python", help="Print Event classes.")
@click.option("--typescript", "language", flag_value="typescript", help="Print TypeScript types.")
@click.option("--only", metavar="PREFIX", help="Only types that begin with this, such as orders.")
async def types(app: App, language: str | None, only: str | None) -> int:
    """Print the registry's event types, in their newest version, as source."""
    operator = app.database("headwater_operator")
    like = None if only is None else f"{only.replace('_', chr(92) + '_')}%"
    async with operator.connection() as connection:
        cursor = await connection.execute(SQL["capture.types"], {"like": like})
        registered = [RegisteredType(*row) for row in await cursor.fetchall()]
    if language is None:
        rows = [(t.type, t.schema_version, t.stream_pattern) for t in registered]
        output.table(("type", "version", "stream"), rows)
    else:
        write = python_source if language == "python" else typescript_source
        output.say(write(registered).rstrip())
    return 0
