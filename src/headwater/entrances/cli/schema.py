"""Commands about event types and their versions."""

from __future__ import annotations

from typing import Any

import click

from headwater.app import App
from headwater.entrances.cli import output
from headwater.entrances.cli.main import cli, command
from headwater.operations.schemas import Compared, check_schemas


@cli.group()
def schema() -> None:
    """Compare the app's event types with what the log holds."""


@command(app_needed=True, below=schema)
@click.option("--sample", type=click.IntRange(1), default=1000, show_default=True, help="Events to read of each other version: the oldest and the newest.")  # fmt: skip
@click.option("--whole", is_flag=True, help="Read all of the log's events of other versions.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
async def check(app: App, *, sample: int, whole: bool, as_json: bool) -> int:
    """Whether this code reads what the log holds, and the code before it what this writes.

    Reads old events through the upcasters, by Python and by SQL. Exit code 1 where this code cannot read
    them; what only stands in the way of going back is a warning. Changes nothing: run it before a deploy.
    """
    with output.progress_bar() as bar:
        tasks: dict[str, Any] = {}

        def report(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(f"reading {name}", total=total)
            bar.update(tasks[name], completed=done, total=total)

        found = await check_schemas(
            app.database("headwater_operator"), app.events, sample=None if whole else sample, report=report,
        )  # fmt: skip
    if as_json:
        output.json([_as_record(each) for each in found])
    else:
        _show(found)
    return 0 if all(each.ok for each in found) else 1


def _as_record(each: Compared) -> dict[str, Any]:
    names = ("type", "version", "declared", "state", "events", "replayed", "failed", "ok")
    issues = [{"level": i.level, "problem": i.problem, "remedy": i.remedy} for i in each.issues]
    return {name: getattr(each, name) for name in names} | {"issues": issues}


def _show(found: list[Compared]) -> None:
    output.table(
        ["type", "version", "declared", "state", "events", "read", "failed"],
        [(e.type, e.version, e.declared, e.state, e.events, e.replayed, e.failed) for e in found],
    )
    issues = [(e, issue) for e in found for issue in e.issues]
    if issues:
        output.say("")
        output.table(
            ["level", "type", "version", "problem", "remedy"],
            [(issue.level, e.type, e.version, issue.problem, issue.remedy) for e, issue in issues],
        )
    if not all(each.ok for each in found):
        output.note("This code cannot read all that the log holds. Mend it before a deploy.")
