"""Commands about inboxes: what comes from other services."""

from __future__ import annotations

import click
import msgspec

from headwater.app import App
from headwater.entrances.cli import output
from headwater.entrances.cli.commands import json_option
from headwater.entrances.cli.main import cli, command
from headwater.receiving.operating import InboxState


@cli.group()
def inboxes() -> None:
    """Show what comes from other services, and take a source that has changed."""


@command(below=inboxes)
@json_option
async def inboxes_list(app: App, as_json: bool) -> int:
    """List inboxes: how far each is, what is parked, who drives it, what holds it up."""
    operator = app.database("headwater_operator")
    await operator.open()
    rows = [msgspec.structs.astuple(state) for state in await app.inboxes_now.states()]
    columns = InboxState.__struct_fields__
    return output.listed(columns, rows, "Nothing is received.", as_json=as_json)


@command(below=inboxes, app_needed=True)
@click.argument("inbox")
@click.option("--after", type=click.IntRange(0), metavar="POSITION", help="Go on after this position of the source; default: after the last one taken.")  # fmt: skip
async def inboxes_accept(app: App, inbox: str, after: int | None) -> int:
    """Take the source of INBOX as it is now, though it was restored or has a gap.

    What is at or below the position is passed by. What was received before stays.
    """
    await app.database("headwater_relay").open()
    position = await app.inboxes_now.accept(inbox, after=after)
    output.say(f"{inbox} goes on after position {position}")
    return 0
