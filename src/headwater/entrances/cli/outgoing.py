"""Commands about alerts, and about other people's endpoints."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import click

from headwater.app import App
from headwater.entrances.cli import output
from headwater.entrances.cli.commands import json_option
from headwater.entrances.cli.main import cli, command

_ENDPOINTS = ("endpoint", "tenant", "url", "types", "state", "position", "pending", "failing_since", "detail")  # fmt: skip
_ALERTS = ("alert", "state", "since", "raised_at", "detail", "silenced_until")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
Run = Callable[..., Awaitable[int | None]]


class Duration(click.ParamType[float]):
    """A time such as 90s, 30m, 2h or 7d, in seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Raises click.BadParameter."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"([0-9]{1,9})([smhd])", str(value))
        if found is None:
            self.fail(f"{value!r} is no time such as 90s, 30m, 2h or 7d.", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


@cli.group()
def alerts() -> None:
    """List and silence alerts."""


@command(below=alerts)
@json_option
async def alerts_list(app: App, as_json: bool) -> int:
    """List alerts and how they stand."""
    rows = await app.outgoing_now.alerts()
    return output.listed(_ALERTS, rows, "There is no alert.", as_json=as_json)


@command(below=alerts)
@click.argument("alert")
@click.option("--for", "seconds", type=Duration(), required=True, help="For so long, such as 30m, 2h or 7d; 0s ends the silence.")  # fmt: skip
async def alerts_silence(app: App, alert: str, seconds: float) -> int:
    """Tell nobody of ALERT for a while. Its events go on; what is still raised then is told."""
    await app.outgoing_now.silence(alert, seconds)
    output.say(f"alert {alert}: silent for {seconds:.0f} s")
    return 0


@cli.group()
def webhooks() -> None:
    """List, add and change the endpoints that events are sent to."""


@command(below=webhooks)
@json_option
async def webhooks_list(app: App, as_json: bool) -> int:
    """List endpoints; secrets are not shown."""
    rows = await app.outgoing_now.endpoints()
    return output.listed(_ENDPOINTS, rows, "There is no endpoint.", as_json=as_json)


@command(below=webhooks)
@click.argument("endpoint")
@click.argument("url")
@click.option("--tenant", help="Whose events; default the app's only tenant.")
@click.option("--type", "types", multiple=True, help="Only events of this type; may be given several times.")  # fmt: skip
@click.option("--after", type=click.IntRange(0), metavar="POSITION", help="Begin after this position; default now.")  # fmt: skip
@click.option("--private", is_flag=True, help="Allow addresses of private networks.")
async def webhooks_add(
    app: App,
    endpoint: str,
    url: str,
    tenant: str | None,
    types: Sequence[str],
    after: int | None,
    private: bool,
) -> int:
    """Send events to URL under the name ENDPOINT; its secret is shown once."""
    whose = app.tenant_of(tenant)
    secret = await app.outgoing_now.add(
        endpoint, url, tenant=whose, types=types or None, private=private, after=after
    )
    output.say(secret)
    output.note("This is shown once. Give it to the receiver, who checks signatures by it.")
    return 0


@command(below=webhooks)
@click.argument("endpoint")
@click.option("--overlap", type=Duration(), default="1d", show_default=True, help="How long the old secret signs too.")  # fmt: skip
async def webhooks_rotate(app: App, endpoint: str, overlap: float) -> int:
    """Give ENDPOINT a new secret; both sign for a while."""
    output.say(await app.outgoing_now.rotate(endpoint, seconds=overlap))
    return 0


@command(below=webhooks)
@click.argument("endpoint")
async def webhooks_remove(app: App, endpoint: str) -> int:
    """Forget ENDPOINT and what is pending for it."""
    await app.outgoing_now.remove(endpoint)
    output.say(f"endpoint {endpoint}: removed")
    return 0


@command(below=webhooks)
@click.argument("endpoint")
async def webhooks_pause(app: App, endpoint: str) -> int:
    """Send nothing to ENDPOINT until it is resumed."""
    await app.outgoing_now.pause(endpoint)
    output.say(f"endpoint {endpoint}: paused")
    return 0


@command(below=webhooks)
@click.argument("endpoint")
async def webhooks_resume(app: App, endpoint: str) -> int:
    """Go on with what is pending for ENDPOINT, parked or paused."""
    await app.outgoing_now.resume(endpoint)
    output.say(f"endpoint {endpoint}: goes on")
    return 0


@command(below=webhooks)
@click.argument("endpoint")
@click.option("--after", type=click.IntRange(0), required=True, metavar="POSITION", help="Send all after this position again.")  # fmt: skip
async def webhooks_replay(app: App, endpoint: str, after: int) -> int:
    """Send ENDPOINT its events again, from a position on."""
    await app.outgoing_now.replay(endpoint, after)
    output.say(f"endpoint {endpoint}: replayed after {after}")
    return 0
