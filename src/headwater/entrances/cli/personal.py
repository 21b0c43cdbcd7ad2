"""Commands about personal data: keys, and who is forgotten."""

from __future__ import annotations

from typing import Any

import click

from headwater.app import App
from headwater.entrances.cli import output
from headwater.entrances.cli.commands import json_option
from headwater.entrances.cli.main import cli, command
from headwater.personal import Certificate, MasterKeys, Retention
from headwater.personal.signing import Signer


@cli.group()
def keys() -> None:
    """Make keys for personal data, and change the master key."""


@keys.command("new")
@click.argument("name")
def new_key(name: str) -> None:
    """Print a new master key under NAME. Keep it as you keep a password, and outside the database."""
    entry = MasterKeys.new(name)
    MasterKeys.of(entry)
    output.say(entry)


@keys.command("signing")
def signing_key() -> None:
    """Print a new key to sign with who was forgotten."""
    output.say(Signer.new())


@command(app_needed=True, below=keys)
async def rotate(app: App) -> int:
    """Wrap all persons' keys by the newest master key; what was wrapped by it stays."""
    done = await (await app.forgetting()).rotate()
    output.say(f"{done:,} keys are wrapped by the newest master key now")
    return 0


@command(app_needed=True)
@click.argument("subject")
@click.option("--tenant", help="Whose person; the app's only tenant by default.")
@click.option("--reason", help="Kept with the request, and not in the log.")
@click.option("--verify", is_flag=True, help="Look again whether the person is forgotten.")
@json_option
async def forget(
    app: App, subject: str, tenant: str | None, reason: str | None, verify: bool, as_json: bool
) -> int:
    """Forget SUBJECT: destroy the person's key, so that nothing that it sealed can be read again.

    Interrupted and started again, it goes on where it was. Exit code 1 where something could still be opened.
    """
    forgetting, whose = await app.forgetting(), app.tenant_of(tenant)
    certificate = (
        await forgetting.verify(subject, whose)
        if verify
        else await forgetting.forget(subject, whose, reason)
    )
    if as_json:
        output.json(certificate)
    else:
        _show(certificate)
    return int(not certificate.holds)


@command(app_needed=True)
@json_option
async def retain(app: App, as_json: bool) -> int:
    """End what is kept for a time and due: destroy its keys, and purge what was opened by them.

    Run it every day. Interrupted and started again, it goes on where it was.
    """
    done = await Retention(await app.forgetting()).apply()
    if as_json:
        output.json(done)
        return 0
    total = sum(done.keys.values())
    output.say(f"{total:,} keys of what was kept until {done.upto} or before are destroyed")
    rows = [(f.where, f.purged, f.note) for f in done.places]
    if rows:
        output.table(("place", "purged", "note"), rows)
    return 0


def _show(certificate: Certificate) -> None:
    told: list[tuple[str, Any]] = [
        ("subject", f"{certificate.subject} of {certificate.tenant}"),
        ("request", certificate.request),
        ("requested", certificate.requested_at),
        ("due", f"{certificate.due_at}{', done late' if certificate.late else ''}"),
        ("forgotten", certificate.forgotten_at),
        ("key destroyed", certificate.key_destroyed),
        ("in the ledger", certificate.in_ledger),
        ("fact in the log, signed", certificate.fact_signed),
        ("events with sealed texts", certificate.sealed_events),
        ("of these texts tried", certificate.canaries),
        ("could be opened", certificate.opened),
        ("signature", certificate.signature),
    ]
    output.table(("", "certificate"), told)
    if certificate.places:
        output.say("")
        rows = [(f.where, f.purged, f.left, f.note) for f in certificate.places]
        output.table(("place", "purged", "left", "note"), rows)
    output.say("\nWhat remains:")
    for text in certificate.remains:
        output.say(f"- {text}")
    if not certificate.holds:
        output.note("The person is not forgotten yet: run headwater forget again.")
