"""Commands about sagas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import click

from headwater.app import App
from headwater.entrances.cli import output
from headwater.entrances.cli.commands import json_option
from headwater.entrances.cli.main import cli, command
from headwater.sagas.operating import State

_COLUMNS = ("saga", "tenant", "version", "state", "detail", "todo", "due_at", "started_at")
_RECORDS = ("version", "recorded_at", "type", "data")

tenant_option = click.option("--tenant", help="Whose; needed where several tenants have one of this name.")  # fmt: skip
note_option = click.option("--note", help="Why, for the record.")


@cli.group()
def sagas() -> None:
    """List sagas, show what one did, and steer it."""


@command(below=sagas)
@click.argument("saga", required=False)
@click.option("--state", "states", type=click.Choice(get_args(State)), multiple=True, help="Only in this state; may be given several times.")  # fmt: skip
@click.option("--ended", is_flag=True, help="Those that have ended, too.")
@click.option("--tenant", help="Only of this tenant.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True)
@json_option
async def sagas_list(
    app: App,
    saga: str | None,
    states: Sequence[str],
    ended: bool,
    tenant: str | None,
    limit: int,
    as_json: bool,
) -> int:
    """List instances that have not ended, of SAGA or all, the newest first."""
    found = await app.sagas_now.instances(
        saga, states=states or None, ended=ended, tenant=tenant, limit=limit
    )
    rows = [
        (s.name, s.tenant, s.version, s.state, s.detail, s.todo, s.due_at, s.started_at)
        for s in found
    ]
    return output.listed(_COLUMNS, rows, "There is no such saga.", as_json=as_json)


@command(below=sagas)
@click.argument("name", metavar="SAGA/ID")
@tenant_option
@json_option
async def sagas_show(app: App, name: str, tenant: str | None, as_json: bool) -> int:
    """Show an instance: how it stands, and everything that is recorded of it."""
    history = await app.sagas_now.show(name, tenant=tenant)
    if as_json:
        output.json(history)
        return 0
    state = history.state
    output.say(f"{state.name}, version {state.version}: {state.state}")
    for told in (state.detail, state.todo and f"To do: {state.todo}"):
        if told:
            output.say(told)
    rows = [(r.version, r.recorded_at, r.type, bytes(r.data).decode()) for r in history.records]
    return output.listed(_RECORDS, rows, "Nothing is recorded.", as_json=False)


@command(below=sagas)
@click.argument("name", metavar="SAGA/ID")
@tenant_option
@note_option
async def sagas_pause(app: App, name: str, tenant: str | None, note: str | None) -> None:
    """Let nothing new of an instance begin; what is under way is recorded."""
    output.say(f"{name}: {await app.sagas_now.pause(name, tenant=tenant, note=note)}")


@command(below=sagas)
@click.argument("name", metavar="SAGA/ID")
@tenant_option
@note_option
async def sagas_resume(app: App, name: str, tenant: str | None, note: str | None) -> None:
    """Let a paused instance go on."""
    output.say(f"{name}: {await app.sagas_now.resume(name, tenant=tenant, note=note)}")


@command(below=sagas)
@click.argument("name", metavar="SAGA/ID")
@tenant_option
@note_option
async def sagas_retry(app: App, name: str, tenant: str | None, note: str | None) -> None:
    """Try again where an instance stopped, or what could not be undone."""
    output.say(f"{name}: {await app.sagas_now.retry(name, tenant=tenant, note=note)}")


@command(below=sagas)
@click.argument("name", metavar="SAGA/ID")
@tenant_option
@note_option
async def sagas_resolve(app: App, name: str, tenant: str | None, note: str | None) -> None:
    """Say that a person did what was handed over. The steps before it are undone next."""
    output.say(f"{name}: {await app.sagas_now.resolve(name, tenant=tenant, note=note)}")


@command(below=sagas)
@click.argument("name", metavar="SAGA/ID")
@click.option("--undo", is_flag=True, help="Undo first what it did.")
@tenant_option
@note_option
async def sagas_abandon(
    app: App, name: str, undo: bool, tenant: str | None, note: str | None
) -> None:
    """Give an instance up, as it is."""
    state = await app.sagas_now.abandon(name, undo=undo, tenant=tenant, note=note)
    output.say(f"{name}: {state}")


@command(below=sagas)
@click.argument("saga")
async def sagas_retire(app: App, saga: str) -> None:
    """Have SAGA, which no app declares any more, start no instances. Those that have begun go on."""
    await app.sagas_now.retire(saga)
    output.say(f"{saga}: starts no more")
