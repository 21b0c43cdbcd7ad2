"""The command that queries a lake."""

from __future__ import annotations

from typing import Any

import click

from headwater.app import App
from headwater.entrances.cli import output
from headwater.entrances.cli.commands import json_option
from headwater.entrances.cli.main import command
from headwater.errors import QueryRefused


@command(app_needed=True)
@click.argument("sql")
@click.option("--feed", help="Read the tables of this feed; default all feeds in lakes.")
@click.option("--tenant", help="Only this tenant's rows; default those of all.")
@click.option("--at-least", metavar="TOKEN", help="Wait until the feeds have reached this token.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True)
@json_option
async def query(
    app: App,
    sql: str,
    feed: str | None,
    tenant: str | None,
    at_least: str | None,
    limit: int,
    as_json: bool,
) -> int:
    """Run a SELECT over the events in a lake: FROM order.placed, and so on."""
    from headwater.stores.lake.query import answer

    tables: dict[str, Any] = {}
    positions: dict[str, int] = {}
    for view in app.feeds:
        if view.store.kind != "lake" or feed not in {None, view.name}:
            continue
        positions[view.name], found = await view.tables(tenant=tenant, at_least=at_least)
        if twice := sorted(tables.keys() & found.keys()):
            raise QueryRefused(f"Two feeds hold {twice[0]}.", hint="Name one with --feed.")
        tables |= found
    if not positions:
        raise QueryRefused(
            f"The app {app.name!r} has no such feed in a lake.",
            hint='Declare one: app.feed("archive", types=[...], store=Lake("archive")).',
        )
    found_rows = await answer(sql, tables, limit)
    if as_json:
        rows = [output.as_record(found_rows.columns, row) for row in found_rows.rows]
        output.json({"positions": positions, "rows": rows, "more": found_rows.more})
        return 0
    output.table(found_rows.columns, found_rows.rows)
    for name, position in positions.items():
        output.note(f"{name} at position {position}")
    if found_rows.more:
        output.note(f"There are more rows than {limit}: pass --limit.")
    return 0
