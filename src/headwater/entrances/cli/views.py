"""Commands about views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from headwater.app import App
from headwater.entrances.cli import output
from headwater.entrances.cli.commands import json_option
from headwater.entrances.cli.main import cli, command
from headwater.errors import HeadwaterError, UnknownView
from headwater.examined import metrics_of
from headwater.operations.health import view_rows
from headwater.operations.sampling import note
from headwater.receiving.operating import ParkedMessage
from headwater.views.definition import Sample
from headwater.views.driving.rebuilding import Rebuild

_ = cli


@command()
@json_option
async def views(app: App, as_json: bool) -> int:
    """Show each view: where it is, how far behind, who drives it, what is parked."""
    operator = app.database("headwater_operator")
    await operator.open()
    rows = await view_rows(operator, {name: app.stored(name) for name in app.views})
    columns = (
        "view",
        "kind",
        "status",
        "position",
        "behind",
        "parked",
        "state",
        "driven_by",
        "detail",
    )
    if as_json:
        output.json([output.as_record(columns, row) for row in rows])
    else:
        output.table(columns, [[*row[:3], str(row[3]), *row[4:]] for row in rows])
        if not rows:
            output.note("No views are deployed. Run headwater init or up with your app.")
    return 0


@command()
async def metrics(app: App) -> int:
    """Print metrics in Prometheus's text format."""
    await app.database("headwater_operator").open()
    output.say(await metrics_of(app))
    return 0


@command(app_needed=True)
@click.argument("view", nargs=-1, metavar="[VIEW]...")
@click.option(
    "--sample",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="SHARE",
    help="Compare about this share of the keys, other ones each time.",
)
@click.option(
    "--by",
    metavar="FEED",
    help="Compare SQL views with what DuckDB or ClickHouse computes of the events in this feed.",
)
@json_option
async def verify(
    app: App, view: Sequence[str], sample: float | None, by: str | None, as_json: bool
) -> int:
    """Compare views, or all, with the fold of the log; exit code 1 where they differ.

    With --by, a SQL view is recomputed in full by another engine, from the events of a feed in a lake or in ClickHouse.
    What that engine would compute otherwise is refused with the reason.
    """
    if by is not None and (sample is not None or not view):
        raise click.UsageError(
            "--by recomputes the views that are named, whole: leave --sample out."
        )
    failed = False
    results = []
    await app.database("headwater_relay").open()
    with output.progress_bar() as bar:
        for name in view or app.views:
            task = bar.add_task(name, total=1)

            def report(done: int, total: int, task: Any = task) -> None:
                bar.update(task, completed=done, total=total)

            if by is not None:
                results.append(await app.verify_by(name, by))
                failed |= not results[-1].equal
                report(1, 1)
                continue
            chosen = None if sample is None else Sample.of(sample)
            verified = await app.stored(name).verify(report, sample=chosen)
            failed |= not verified.equal
            results.append(verified)
            if (
                chosen is None or not verified.equal
            ):  # another sample proves nothing of what differed
                async with app.database("headwater_relay").connection() as connection:
                    await note(connection, verified, chosen)
    if as_json:
        output.json([{**_plain(verified), "equal": verified.equal} for verified in results])
        return int(failed)
    output.table(
        ("view", "position", "rows", "result"),
        [(v.view, str(v.position), v.rows, v.summary) for v in results],
    )
    for verified in results:
        if verified.excluded:
            output.note(
                f"{verified.view}: {', '.join(verified.excluded)} left out, since approximations differ by engine"
            )
        for d in verified.differences:
            output.say(
                f"{verified.view} {d.tenant} {d.key}: expected {d.expected}, stored {d.stored}"
            )
    return int(failed)


def _plain(verified: Any) -> dict[str, Any]:
    return {
        "view": verified.view,
        "position": verified.position,
        "rows": verified.rows,
        "differing": verified.differing,
        "parked_keys": verified.parked_keys,
        "excluded": list(verified.excluded),
        "differences": [
            {"tenant": d.tenant, "key": d.key, "expected": d.expected, "stored": d.stored}
            for d in verified.differences
        ],
    }


@command(app_needed=True)
@click.argument("view", nargs=-1, metavar="[VIEW]...")
@click.option("--stale", is_flag=True, help="All views whose definition has changed.")
@click.option("--in-place", is_flag=True, help="Empty the view; a relay refills it.")
@click.option(
    "--share",
    type=click.FloatRange(0.01, 1.0),
    default=0.5,
    show_default=True,
    help="The part of the time that building may take.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="How many processes build a fold, each its slice of the keys.",
)
@click.option(
    "--from-beginning",
    is_flag=True,
    help="Leave the view's baseline aside; see headwater baseline.",
)
@click.option("--no-verify", is_flag=True, help="Swap without comparing with the log.")
async def rebuild(
    app: App,
    view: Sequence[str],
    stale: bool,
    in_place: bool,
    share: float,
    processes: int,
    from_beginning: bool,
    no_verify: bool,
) -> int:
    """Build each VIEW anew by its definition of now, beside the one that is read, and swap.

    Interrupted and started again, it goes on where it was. A view that cannot stand beside itself is emptied,
    and a relay refills it: one that reads a fold's documents or is read by such a view, and one that derives
    events.
    """
    await app.database("headwater_relay").open()
    names = list(view) or [name for name in app.views if stale and await _is_stale(app, name)]
    if not names and not stale:
        raise click.UsageError("Name a view, or use --stale.")
    if not names:
        output.say("no view is stale")
    results = []
    for name in names:
        beside = None
        if not in_place:
            beside = app.rebuilding(
                name, share=share, processes=processes, from_baseline=not from_beginning,
                say=output.note,
            )  # fmt: skip
        results.append(await _rebuilt(app, name, beside, not no_verify))
    return int(not all(results))


async def _is_stale(app: App, view: str) -> bool:
    return await app.stored(view).status() == "stale"


async def _rebuilt(app: App, view: str, beside: Rebuild | None, check: bool) -> bool:
    """Rebuilds one view, in place where nothing can stand beside it; whether it was swapped or emptied."""
    if beside is None:
        await app.stored(view).rebuild()
        is_published = app.stored(view).definition.kind == "publication"
        done = "follows its definition of now" if is_published else "is empty and starts over"
        output.say(f"{view} {done}; headwater views shows how far it is")
        return True
    with output.progress_bar() as bar:
        task = bar.add_task(view, total=1)
        began: list[int] = []

        def report(done: int, total: int) -> None:
            began.append(done)
            bar.update(task, completed=done - began[0], total=max(total - began[0], 1))

        verified = await beside.run(report, check=check)
    if verified is not None and not verified.equal:
        output.say(
            f"{view} was not swapped: what was built differs from the log ({verified.summary})"
        )
        return False
    result = "" if verified is None else f", {verified.summary} to the log"
    begun = f" from its baseline at position {beside.began_at}" if beside.began_at else ""
    output.say(
        f"{view} is rebuilt{begun}{result}; headwater rollback {view} gives back what it was"
    )
    return True


@command(app_needed=True)
@click.argument("view")
@click.argument("key", nargs=-1)
@click.option("--tenant", help="Whose row; the app's only tenant by default.")
@click.option(
    "--limit", type=click.IntRange(1, 1_000), default=20, show_default=True, help="The newest."
)
@json_option
async def explain(
    app: App, view: str, key: Sequence[str], tenant: str | None, limit: int, as_json: bool
) -> int:
    """Name the events behind the row of VIEW with this KEY, and how it changed at each."""
    await app.database("headwater_relay").open()
    found = await app.stored(view).explain(key, tenant=app.tenant_of(tenant), limit=limit)
    if as_json:
        output.json(found)
        return 0
    if not found.events:
        output.say(f"No event up to position {found.position} is behind this key.")
        return 0
    output.table(
        ("position", "stream", "version", "type", "data", "row after it"),
        [
            [
                str(change.position), change.stream, change.version, change.type,
                bytes(change.data).decode(),
                f"({change.left_out})" if change.left_out else msgspec.json.encode(change.row, enc_hook=str).decode(),
            ]
            for change in found.changes
        ],
    )  # fmt: skip
    output.say(f"{len(found.changes)} of {found.events:,} events, up to position {found.position}")
    return 0


@command(app_needed=True)
@click.argument("view", nargs=-1, metavar="[VIEW]...")
@click.option("--drop", is_flag=True, help="Remove the baselines of these views.")
@json_option
async def baseline(app: App, view: Sequence[str], drop: bool, as_json: bool) -> int:
    """Keep each VIEW as it is now, compared with the log, so that a rebuild may begin there; without one, list what is kept.

    Exit code 1 where a view differs from the log: then the baseline before it stays.
    """
    if drop and not view:
        raise click.UsageError("Name a view to drop its baseline.")
    await app.database("headwater_relay").open()
    failed = False
    for name in view:
        baselines = app.baselines(name)
        if drop:
            await baselines.drop()
            continue
        verified = await baselines.keep()
        failed |= not verified.equal
        if not verified.equal:
            output.say(f"{name} is not kept: it differs from the log ({verified.summary})")
    kept = [await app.baselines(name).kept() for name in view or app.views]
    rows = [(each.view, each.position, each.kept_at, each.fits) for each in kept if each]
    columns = ("view", "position", "kept_at", "fits")
    if as_json:
        output.json([output.as_record(columns, row) for row in rows])
    elif rows:
        fits = {True: "yes", False: "no: the definition has changed"}
        output.table(columns, [[row[0], str(row[1]), row[2], fits[row[3]]] for row in rows])
    else:
        output.say("No baseline is kept.")
    return int(failed)


@command(app_needed=True)
@click.argument("view")
async def rollback(app: App, view: str) -> int:
    """Give VIEW back what it was before its last rebuild; it goes on from there."""
    await app.database("headwater_relay").open()
    beside = app.rebuilding(view)
    if beside is None:
        raise HeadwaterError(
            f"The view {view!r} is rebuilt in place, so nothing is kept.", hint="Rebuild it again."
        )
    await beside.roll_back()
    output.say(f"{view} is what it was before its last rebuild")
    return 0


@command()
@click.option("--view", help="Only this view.")
@click.option("--show", type=int, metavar="POSITION", help="Show this event whole.")
@click.option("--replay", is_flag=True, help="Apply the view's parked events again.")
@click.option(
    "--discard", type=int, multiple=True, metavar="POSITION", help="Give these events up."
)
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True)
@json_option
async def parked(
    app: App,
    view: str | None,
    show: int | None,
    replay: bool,
    discard: Sequence[int],
    limit: int,
    as_json: bool,
) -> int:
    """List parked events; show, replay or discard them."""
    if replay or discard:
        return await _change(app, view, discard, replay=replay)
    if show is not None and view in app.inboxes:
        (found,) = await _message(app, view, show)
        output.json(msgspec.Raw(found.message))
        return 0
    operator = app.database("headwater_operator")
    await operator.open()
    async with operator.connection() as connection:
        from headwater.operations.health import SQL

        if show is not None:
            cursor = await connection.execute(SQL["health.event"], {"position": show})
            row = await cursor.fetchone()
            if row is None:
                raise HeadwaterError(f"There is no event at position {show}.")
            output.json(row[0])
            return 0
        if view is not None and view not in app.inboxes:
            known = await (await connection.execute(SQL["health.views"])).fetchall()
            if view not in {row[0] for row in known}:
                raise UnknownView(
                    f"No view {view!r} is deployed.", hint="headwater views lists them."
                )
        cursor = await connection.execute(SQL["health.parked"], {"view": view, "limit": limit})
        rows = await cursor.fetchall()
    rows += [
        (m.inbox, m.position, m.tenant, [m.stream], m.reason, m.culprit, m.status, m.parked_at)
        for m in await app.inboxes_now.parked(view, limit=limit - len(rows))
    ]
    columns = ("view", "position", "tenant", "keys", "reason", "culprit", "status", "parked_at")
    if as_json:
        output.json([output.as_record(columns, row) for row in rows])
    elif rows:
        output.table(
            columns[:-1],
            [[r[0], str(r[1]), r[2], ", ".join(r[3] or ["unknown"]), *r[4:7]] for r in rows],
        )
    else:
        output.say("Nothing is parked.")
    return 0


async def _change(app: App, view: str | None, discard: Sequence[int], *, replay: bool) -> int:
    if view is None:
        raise HeadwaterError("No view is named.", hint="Pass --view NAME.")
    await app.database("headwater_relay").open()
    if view in app.inboxes:
        if discard:
            output.say(f"{await app.inboxes_now.discard(view, discard)} given up")
        if replay:
            output.say(f"{await app.inboxes_now.replay(view)} replayed")
        return 0
    stored = app.stored(view)
    if discard:
        output.say(f"{await stored.discard(discard)} given up")
    if replay:
        output.say(f"{await stored.replay()} replayed")
    return 0


async def _message(app: App, inbox: str, position: int) -> list[ParkedMessage]:
    await app.database("headwater_operator").open()
    found = await app.inboxes_now.parked(inbox, positions=[position], limit=1)
    if not found:
        raise HeadwaterError(f"No message of position {position} is parked in {inbox}.")
    return found
