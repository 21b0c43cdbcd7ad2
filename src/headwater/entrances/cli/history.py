"""Commands about the past."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from headwater.app import App, FoldView
from headwater.entrances.cli import output
from headwater.entrances.cli.commands import json_option
from headwater.entrances.cli.main import command
from headwater.readers.history import Moment

_encode = msgspec.json.Encoder(decimal_format="string").encode


@command(app_needed=True)
@click.argument("view")
@click.argument("key")
@click.argument("moment")
@click.option("--since", metavar="MOMENT", help="Show what differs from this moment.")
@click.option(
    "--clock",
    type=click.Choice(["recorded", "occurred"]),
    default="recorded",
    show_default=True,
    help="What a time counts by.",
)
@click.option("--tenant", help="Whose document; the app's only tenant by default.")
@json_option
async def as_of(
    app: App, view: str, key: str, moment: str, since: str | None, clock: str, tenant: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Show the document of KEY in the fold VIEW as it was at MOMENT.

    MOMENT is a position, or a time with a zone such as 2026-01-31T12:00:00Z.
    """
    fold = app.view(view)
    if not isinstance(fold, FoldView):
        raise click.UsageError(f"{view} is no fold; see headwater explain {view}.")
    until = Moment.of(moment, clock)
    if since is None:
        document = await fold.history.as_of(key, until, tenant=tenant)
        if document is None and not as_json:
            output.say(f"There was no document of {key}.")
        else:
            output.json(_plain(document))
        return 0
    change = await fold.history.between(key, Moment.of(since, clock), until, tenant=tenant)
    if as_json:
        output.json(
            {
                "before": _plain(change.before),
                "after": _plain(change.after),
                "positions": [event.position for event in change.events],
            }
        )
        return 0
    output.table(
        ("field", "before", "after"),
        [(name, _text(old), _text(new)) for name, (old, new) in change.fields.items()],
    )
    output.say(f"{len(change.events):,} events between")
    return 0


def _plain(value: object) -> Any:
    return msgspec.json.decode(_encode(value))


def _text(value: object) -> str:
    return "-" if value is None else _encode(value).decode()
