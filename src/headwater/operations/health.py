"""What an operator asks first: is the log moving, who holds it back, where are the views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from headwater.log.database import Connection, Database
from headwater.log.statements import Statements
from headwater.views import StoredView

SQL = Statements("headwater.operations")

Level = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True):
    """One thing examined: what was found and, where it needs attention, what to do."""

    level: Level
    check: str
    finding: str
    remedy: str | None = None


async def examine(operator: Database, views: Mapping[str, StoredView]) -> list[Finding]:
    """Examines an installation by an operator's connection."""
    async with operator.connection() as connection:
        findings = [
            await _order(connection),
            *await _appenders(connection),
            await _relays(connection),
            await _blocks(connection),
            await _security(connection),
            await _powers(connection),
            await _snapshots(connection),
            *await _jobs(connection),
            *await _sagas(connection),
        ]
    return findings + await _views(operator, views)


async def _order(connection: Connection) -> Finding:
    cache, increment, cycles, owned = await _row(connection, "health.sequence")
    if cache != 1 or increment != 1 or cycles or owned:
        return Finding(
            "fail",
            "order",
            "headwater.position_seq was altered: readers may skip events",
            "ALTER SEQUENCE headwater.position_seq CACHE 1 INCREMENT 1 NO CYCLE OWNED BY NONE; then verify all views.",
        )
    drawn, safe = await _row(connection, "health.positions")
    return Finding("ok", "order", f"published up to {safe}, drawn up to {drawn}")


async def _appenders(connection: Connection) -> list[Finding]:
    (limit,) = await _row(connection, "health.limits")
    cursor = await connection.execute(SQL["health.appenders"])
    findings = []
    for pid, gid, state, age, idle, name, login in await cursor.fetchall():
        who = (
            f"prepared transaction {gid!r}"
            if gid
            else f"process {pid} ({name or 'unnamed'}, login {login})"
        )
        what = f"{who} appended {age or 0:.0f} s ago and has not ended ({state})"
        stalled = gid is not None or (idle or 0) > limit / 2 or (age or 0) > 60
        remedy = (
            f"ROLLBACK PREPARED '{gid}' or COMMIT it."
            if gid
            else f"It is ended when idle for {limit} s."
        )
        findings.append(
            Finding("warn" if stalled else "ok", "appenders", what, remedy if stalled else None)
        )
    return findings or [Finding("ok", "appenders", "no open transaction holds readers back")]


async def _relays(connection: Connection) -> Finding:
    (relays,) = await _row(connection, "health.relays")
    if relays:
        return Finding("ok", "relays", f"{relays} alive")
    return Finding(
        "warn",
        "relays",
        "no relay is alive: nothing is published, views stand still",
        "Run headwater up.",
    )


async def _blocks(connection: Connection) -> Finding:
    (ahead,) = await _row(connection, "health.blocks")
    if ahead:
        return Finding("ok", "blocks", f"{ahead} attached ahead")
    return Finding(
        "fail",
        "blocks",
        "no block of positions is attached for the coming months",
        "Run headwater up; it attaches them.",
    )


async def _security(connection: Connection) -> Finding:
    bypassing = [
        row[0] for row in await (await connection.execute(SQL["health.bypassing"])).fetchall()
    ]
    unforced = [
        row[0] for row in await (await connection.execute(SQL["health.unforced"])).fetchall()
    ]
    if bypassing:
        return Finding(
            "fail",
            "security",
            f"{', '.join(bypassing)} bypass row-level security",
            "ALTER ROLE ... NOSUPERUSER NOBYPASSRLS.",
        )
    if unforced:
        return Finding(
            "fail",
            "security",
            f"row-level security is not forced on {', '.join(unforced)}",
            "Run headwater init.",
        )
    return Finding("ok", "security", "row-level security is forced on all tenants' tables")


async def _powers(connection: Connection) -> Finding:
    (granted,) = await _row(connection, "health.signal")
    if granted:
        return Finding("ok", "powers", "idle appending transactions can be named and ended")
    return Finding(
        "warn",
        "powers",
        "idle appending transactions cannot be ended",
        "As a superuser: GRANT pg_read_all_stats, pg_signal_backend TO headwater_owner.",
    )


async def _snapshots(connection: Connection) -> Finding:
    age, seconds = await _row(connection, "health.oldest_snapshot")
    if seconds > 300:
        return Finding(
            "warn",
            "snapshots",
            f"a snapshot is held for {seconds:.0f} s ({age} transactions): hot rows of views bloat",
            "End the long transaction; pg_stat_activity names it by backend_xmin.",
        )
    return Finding("ok", "snapshots", f"the oldest is {seconds:.0f} s old")


async def _jobs(connection: Connection) -> list[Finding]:
    """What keeps jobs from being run, or their tables from being emptied."""
    queues, dead, unworked, dead_tuples, filled = await _row(connection, "health.jobs")
    if not queues:
        return []
    findings = []
    if unworked:
        findings.append(
            Finding("warn", "jobs", f"nobody works, and jobs wait in {unworked}", "Run headwater work.")
        )  # fmt: skip
    if dead:
        findings.append(
            Finding("warn", "jobs", f"{dead:,} dead letters", "See headwater jobs --dead, then --replay.")
        )  # fmt: skip
    if filled > 3:
        findings.append(
            Finding(
                "warn",
                "jobs",
                f"all {filled} segments are in use: an old job or a long transaction keeps them from being emptied",
                "See headwater jobs for what waits longest, and the finding on snapshots.",
            )
        )
    if dead_tuples > 1_000_000:
        findings.append(
            Finding(
                "warn",
                "jobs",
                f"{dead_tuples:,} dead rows in the tables of jobs: keys, delays and retries slow down",
                "End the transaction that the finding on snapshots names; vacuum does the rest.",
            )
        )
    return findings or [Finding("ok", "jobs", f"{queues} queues, {dead_tuples:,} dead rows")]


async def _sagas(connection: Connection) -> list[Finding]:
    """What sagas wait for a person."""
    unfinished, handed, stopped = await _row(connection, "health.sagas")
    hint = "See headwater sagas list --state 'handed over' --state stopped."
    if handed or stopped:
        told = f"{handed:,} handed over to a person, {stopped:,} stopped"
        return [Finding("warn", "sagas", told, hint)]
    return [Finding("ok", "sagas", f"{unfinished:,} under way")] if unfinished else []


async def _views(operator: Database, views: Mapping[str, StoredView]) -> list[Finding]:
    findings = []
    differing = {row[0]: row for row in await _sampled(operator) if row[1]}
    for row in await view_rows(operator, views):
        name, _, status, _, behind, parked, state, _, detail = row
        if status == "stale":
            findings.append(
                Finding(
                    "warn",
                    f"view {name}",
                    "its definition has changed",
                    f"Run headwater rebuild {name}.",
                )
            )
        elif name in differing:
            _, count, detail, _ = differing[name]
            findings.append(
                Finding(
                    "fail",
                    f"view {name}",
                    f"{count:,} of the keys that were compared differ from the log: {detail}",
                    f"Run headwater verify {name}, and headwater rebuild {name}.",
                )
            )
        elif parked:
            findings.append(
                Finding(
                    "warn",
                    f"view {name}",
                    f"{parked:,} {'event is' if parked == 1 else 'events are'} parked",
                    f"Run headwater parked --view {name}.",
                )
            )
        elif behind and state is None and status != "building":
            findings.append(
                Finding(
                    "warn",
                    f"view {name}",
                    f"no relay drives it, and {behind:,} events wait",
                    "Run headwater up, with the view among those it drives.",
                )
            )
        elif state not in {"running", None, "released"}:
            findings.append(
                Finding(
                    "warn",
                    f"view {name}",
                    f"{state}: {detail}",
                    "Mend the cause; it goes on by itself.",
                )
            )
        else:
            findings.append(Finding("ok", f"view {name}", f"{behind:,} events behind"))
    return findings


async def _sampled(operator: Database) -> list[tuple[str, int, str | None, float | None]]:
    """What the newest comparisons found: view, how many differ, which, and when, in seconds since 1970."""
    async with operator.connection() as connection:
        return await (await connection.execute(SQL["health.sampled"])).fetchall()


ViewRow = tuple[str, str, str, int, int, int, str | None, str | None, str | None]


async def view_rows(operator: Database, views: Mapping[str, StoredView]) -> list[ViewRow]:
    """Each view: name, kind, status, position, events behind, parked, state, who drives it, detail.

    Events behind are counted up to a million.
    """
    rows: list[ViewRow] = []
    async with operator.connection() as connection:
        _, safe = await _row(connection, "health.positions")
        cursor = await connection.execute(SQL["health.views"])
        for (
            view,
            kind,
            fingerprint,
            position,
            state,
            detail,
            holder,
            parked,
        ) in await cursor.fetchall():
            known = views.get(view.removesuffix("~next"))
            status = "unknown" if known is None else "current"
            if view.endswith("~next"):
                status = "building"
            elif known is not None and known.definition.fingerprint != fingerprint:
                status = "stale"
            (behind,) = await _row(connection, "health.behind", {"after": position, "upto": safe})
            rows.append(
                (
                    view,
                    kind,
                    status,
                    position,
                    behind,
                    parked,
                    state,
                    holder,
                    detail,
                )
            )
    return rows


async def metrics_text(operator: Database) -> str:
    """Metrics of the log and its views in Prometheus's text format."""
    lines: list[str] = []

    def metric(name: str, about: str, samples: list[tuple[dict[str, str], float]]) -> None:
        lines.extend([f"# HELP headwater_{name} {about}", f"# TYPE headwater_{name} gauge"])
        for labels, value in samples:
            inside = ",".join(f'{k}="{_escaped(v)}"' for k, v in labels.items())
            lines.append(
                f"headwater_{name}{{{inside}}} {value:.12g}"
                if inside
                else f"headwater_{name} {value:.16g}"
            )

    rows = await view_rows(operator, {})
    async with operator.connection() as connection:
        drawn, safe = await _row(connection, "health.positions")
        (relays,) = await _row(connection, "health.relays")
        cursor = await connection.execute(SQL["health.appenders"])
        appenders = await cursor.fetchall()
        _, snapshot_seconds = await _row(connection, "health.oldest_snapshot")
    metric("drawn_position", "The last position drawn.", [({}, drawn)])
    metric("safe_position", "The published watermark.", [({}, safe)])
    metric("relays", "Relays alive.", [({}, relays)])
    metric("oldest_snapshot_seconds", "Age of the oldest snapshot held.", [({}, snapshot_seconds)])
    metric(
        "appender_age_seconds",
        "Age of each open transaction that has appended and so holds readers back.",
        [
            ({"pid": str(a[0] or ""), "gid": a[1] or "", "state": a[2]}, a[3] or 0)
            for a in appenders
        ],
    )
    for name, about, samples in [*_of_views(rows), *_of_samples(await _sampled(operator))]:
        metric(name, about, samples)
    return "\n".join(lines)


def _of_views(rows: list[ViewRow]) -> list[tuple[str, str, list[tuple[dict[str, str], float]]]]:
    """What is told of each view: a metric's name, what it is, its samples."""
    return [
        (
            "view_behind_events",
            "Published events that a view has not applied.",
            [({"view": r[0]}, r[4]) for r in rows],
        ),
        (
            "view_parked_events",
            "Events that a view has parked.",
            [({"view": r[0]}, r[5]) for r in rows],
        ),
        (
            "view_driven",
            "Whether a relay drives the view.",
            [({"view": r[0]}, float(r[7] is not None)) for r in rows],
        ),
        (
            "view_state",
            "1 for the state that a view's relay tells of; not_driven where there is none.",
            [({"view": r[0], "state": r[6] or "not_driven"}, 1.0) for r in rows],
        ),
    ]


def _of_samples(
    found: list[tuple[str, int, str | None, float | None]],
) -> list[tuple[str, str, list[tuple[dict[str, str], float]]]]:
    """What is told of comparisons with the log."""
    return [
        (
            "verify_differing",
            "Keys that differed from the log in the newest comparison of a view.",
            [({"view": r[0]}, float(r[1])) for r in found],
        ),
        (
            "verify_at_seconds",
            "When a view, or a sample of it, was last compared with the log, in seconds since 1970.",
            [({"view": r[0]}, r[3]) for r in found if r[3] is not None],
        ),
    ]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


async def _row(
    connection: Connection, statement: str, parameters: dict[str, Any] | None = None
) -> Any:
    row = await (await connection.execute(SQL[statement], parameters or {})).fetchone()
    assert row is not None
    return row
