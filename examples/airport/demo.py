"""The demo: replays the year, kills the relay in the middle, and checks what came of it."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

import msgspec
from rich.console import Console

from examples.airport import elsewhere, replay, screen
from examples.airport.app import aircraft, airport_hours, app, carrier_delays, routes
from examples.airport.checks import Check, checks, expectations
from examples.airport.files import queries
from examples.airport.live import LiveReplay, Source
from examples.airport.relay_process import RelayProcess
from examples.airport.replay import Progress
from examples.airport.second_act import second_act
from examples.redis_process import redis

VIEWS = (carrier_delays, routes, airport_hours, aircraft)
RESULTS = ("carriers", "routes", "hours", "weather", "aircraft")


class Refused(Exception):
    """The demo cannot run here, and the message says why and what to do."""


class ViewReport(msgspec.Struct):
    """A view, and whether it equals the fold of the log."""

    position: int
    rows: int
    verified: bool


class Report(msgspec.Struct):
    """What ``demo.json`` holds. ``seconds_total`` is this run's; the rate is the whole replay's.

    The head is that of the first act, which the views are of.
    """

    days: int
    events: int
    head_position: int
    append_events_per_second: float
    seconds_total: float
    relay_kills: int
    checks: dict[str, bool]
    views: dict[str, ViewReport]


async def run(folder: Path, days: int, console: Console) -> bool:
    """Everything, in order; whether all checks passed.

    Raises Refused, RelayEnded, Overtaken, SourceMissing and HeadwaterError.
    """
    began = time.monotonic()
    with ExitStack() as engines:
        return await _run(folder, days, console, began, _stores(folder, console, engines))


def _stores(folder: Path, console: Console, engines: ExitStack) -> list[str]:
    """Starts the engines that are installed, and declares the views in them; the views' names."""
    absent = elsewhere.missing()
    elsewhere.place(folder, absent)
    for name, packages in absent.items():
        console.print(f"Without a view in {name}: install {packages}.", style="yellow")
    if "redis" not in absent:
        engines.enter_context(redis(folder))
    return elsewhere.declare()


async def _run(folder: Path, days: int, console: Console, began: float, others: list[str]) -> bool:
    """The demo, with the views in other stores that are declared."""
    console.print("[bold]A year at New York's airports[/], replayed in time order", "")
    console.print("Starting an embedded Postgres, and reading the source.", style="dim")
    reading = asyncio.create_task(asyncio.to_thread(Source.read, days))
    async with app:
        for view, status in (await app.deploy()).items():
            if status == "stale":
                console.print(f"The definition of {view} has changed: it is rebuilt.")
                await app.stored(view).rebuild()
        source = await reading
        progress = await replay.prepare(app, days)
        _greet(console, folder, source, progress, others)
        with (
            RelayProcess(folder / "relay.log") as relay,
            screen.Screen(console, len(source.changes)) as shown,
        ):
            await LiveReplay(source, progress, relay, shown).run()
        progress = await replay.progress(app)
        await _show_results(console, progress)
        made, views = await _prove(console, source, progress, others)
        head = await app.log.safe()
        made += await second_act(folder, console)
        screen.checks(console, made)
        report = Report(
            days=days,
            events=progress.changes_done,
            head_position=head,
            append_events_per_second=round(progress.changes_done / progress.seconds, 1),
            seconds_total=round(time.monotonic() - began, 1),
            relay_kills=progress.relay_kills,
            checks={check.name: check.passed for check in made},
            views=views,
        )
    _write(report, folder.with_suffix(".json"), console)
    return all(report.checks.values())


def _greet(
    console: Console, folder: Path, source: Source, progress: Progress, others: list[str]
) -> None:
    total = len(source.changes)
    if progress.days != source.days:
        raise Refused(
            f"{folder} holds a replay of {progress.days} days. Pass --days {progress.days} to go on "
            "with it, --fresh to start anew, or another --folder."
        )
    if progress.changes_done == total:
        console.print(f"The replay of {total:,} events is done. Checking it again.")
    elif progress.changes_done:
        console.print(f"Going on after {progress.changes_done:,} of {total:,} events.")
    else:
        console.print(
            f"{len(source.flights):,} flights make {total:,} events; four views follow them live"
            + (f", and {', '.join(others)} in other stores." if others else ".")
        )


async def _show_results(console: Console, progress: Progress) -> None:
    """The results, each read no earlier than the last write."""
    console.print()
    found = queries("results")
    for query in (found[name] for name in RESULTS):
        title, _, _ = query.removeprefix("-- ").partition("\n")
        rows = await app.query(query, views=VIEWS, at_least=progress.token)
        screen.results(console, title, rows)


async def _prove(
    console: Console, source: Source, progress: Progress, others: list[str]
) -> tuple[list[Check], dict[str, ViewReport]]:
    """Verifies every view, and makes the checks."""
    with console.status("Verifying each view against the log") as status:
        compared = await elsewhere.compared(others, progress.token)
        names = [*(view.name for view in VIEWS), *others]
        verified = await asyncio.gather(*(app.stored(name).verify() for name in names))
        views = {
            name: ViewReport(view.position, view.rows, view.equal)
            for name, view in zip(names, verified, strict=True)
        }
        made: list[Check] = []
        async for check in checks(app, expectations(source.flights, source.days)):
            status.update(f"Checked: {check.name.replace('_', ' ')}")
            made.append(check)
    made += compared
    made += [Check(f"{name}_verified", view.verified) for name, view in views.items()]
    made += [Check("relay_killed_in_the_middle", progress.relay_kills > 0)]
    return made, views


def _write(report: Report, file: Path, console: Console) -> None:
    file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    passed = sum(report.checks.values())
    style = "bold green" if passed == len(report.checks) else "bold red"
    console.print(f"[{style}]{passed} of {len(report.checks)} checks passed.[/]", highlight=False)
    console.print(
        f"{report.events:,} events at {report.append_events_per_second:,.0f}/s, table and log in one "
        f"commit, views live. {report.seconds_total:.0f} s in all. Written to {file}.",
        highlight=False,
    )
