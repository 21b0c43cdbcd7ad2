"""Commands about access tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import click

from headwater.app import App
from headwater.entrances.cli import output
from headwater.entrances.cli.main import cli, command
from headwater.operations.access import (
    SCOPES,
    Scope,
    Secret,
    create_token,
    list_tokens,
    revoke_token,
    rotate_token,
)

_DAY_SECONDS = 86_400.0

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
_days = click.option(
    "--days",
    type=click.FloatRange(0, 36_500, min_open=True),
    help="The token expires after so many days; default never.",
)


@cli.group()
def token() -> None:
    """Create, list, rotate and revoke access tokens for HTTP."""


_subcommand = command(below=token)


def _show(secret: Secret, *, as_json: bool) -> None:
    if as_json:
        output.json({"id": secret.id, "token": secret.text})
    else:
        output.say(secret.text)
        output.note("This is shown once. Keep it as you keep a password.")


@_subcommand
@click.argument("name")
@click.option("--tenant", help="The tenant that it opens; default the app's only one.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    help="What it may do; default read.",
)
@_days
@_json
async def create(
    app: App,
    name: str,
    tenant: str | None,
    scopes: Sequence[str],
    days: float | None,
    as_json: bool,
) -> int:
    """Create a token called NAME; its secret is shown once."""
    wanted = cast("Sequence[Scope]", scopes or ("read",))
    whose = tenant if "operate" in wanted else app.tenant_of(tenant)
    seconds = None if days is None else days * _DAY_SECONDS
    operator = app.database("headwater_operator")
    made = await create_token(operator, name=name, tenant=whose, scopes=wanted, seconds=seconds)
    _show(made, as_json=as_json)
    return 0


@_subcommand
@click.option("--tenant", help="Only this tenant's.")
@_json
async def list_(app: App, tenant: str | None, as_json: bool) -> int:
    """List tokens; secrets are not kept."""
    rows = await list_tokens(app.database("headwater_operator"), tenant=tenant)
    columns = ("id", "name", "tenant", "scopes", "created", "expires", "last_used", "status")
    shown = [
        (r.id, r.name, r.tenant, " ".join(r.scopes), r.created_at, r.expires_at, r.last_used_at, r.status)
        for r in rows
    ]  # fmt: skip
    if as_json:
        output.json([output.as_record(columns, row) for row in shown])
    elif rows:
        output.table(columns, shown)
    else:
        output.note("There are no tokens.")
    return 0


@_subcommand
@click.argument("token_id", metavar="ID")
@click.option(
    "--overlap-hours",
    type=click.FloatRange(0, 8_760),
    default=24.0,
    show_default=True,
    help="How long the old token stays valid.",
)
@_days
@_json
async def rotate(
    app: App, token_id: str, overlap_hours: float, days: float | None, as_json: bool
) -> int:
    """Create a token in place of token ID, which stays valid for a while."""
    made = await rotate_token(
        app.database("headwater_operator"),
        token_id,
        overlap_seconds=overlap_hours * 3600,
        seconds=None if days is None else days * _DAY_SECONDS,
    )
    _show(made, as_json=as_json)
    return 0


@_subcommand
@click.argument("token_id", metavar="ID")
async def revoke(app: App, token_id: str) -> int:
    """End token ID at once; processes that have just seen it learn so within 5 seconds."""
    await revoke_token(app.database("headwater_operator"), token_id)
    output.say(f"{token_id} is revoked")
    return 0
