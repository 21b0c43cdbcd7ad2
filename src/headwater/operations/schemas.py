"""Before a deploy: whether code and log understand each other, in both directions.

The schemas are compared, and the log's history is read through the upcasters: by Python, and by SQL as views
in Postgres read it, field by field.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import msgspec
import psycopg
from psycopg import sql

from headwater.events import Column, EventType, EventTypes
from headwater.events.compatibility import Issue, going_back, reading_old
from headwater.log.database import Connection, Database
from headwater.log.statements import Statements

SQL = Statements("headwater.operations")

Report = Callable[[str, int, int], None]
"""Called with a type, how many of its events were read, and how many will be."""

State = Literal["new", "same", "changed", "older", "newer"]
_AS_THEY_ARE = (datetime, date, Decimal, UUID)
_AT_ONCE = 1000
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Compared:
    """One version of one event type beside what the app declares: the outcome, and what was read of it.

    ``state``: new, same, changed, older, newer. ``events`` are in the log; ``replayed`` were read through
    the upcasters; ``failed`` of those could not be, or Python and SQL read them differently.
    """

    type: str
    version: int
    declared: int
    state: State
    events: int = 0
    replayed: int = 0
    failed: int = 0
    issues: tuple[Issue, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether this code reads such events. Issues of going back do not count."""
        return not self.failed and all(issue.level != "fail" for issue in self.issues)


async def check_schemas(
    operator: Database,
    types: EventTypes,
    *,
    sample: int | None = 1000,
    report: Report | None = None,
) -> list[Compared]:
    """Compares an app's event types with the registry, and reads the log's events of other versions.

    Of each version up to ``sample`` events are read, the oldest and the newest; None reads all. By an
    operator's connection, since it reads all tenants.
    """
    names = [declared.name for declared in types]
    found: list[Compared] = []
    async with operator.connection() as connection:
        cursor = await connection.execute(SQL["schemas.registered"], {"types": names})
        registered = await cursor.fetchall()
        cursor = await connection.execute(SQL["schemas.counts"], {"types": names})
        counts = {(type_, version): n for type_, version, n in await cursor.fetchall()}
        for declared in types:
            known = [row for row in registered if row[0] == declared.name]
            for _, version, pattern, schema in known:
                events = counts.get((declared.name, version), 0)
                compared = _compared(declared, version, pattern, schema, events)
                if compared.state in {"older", "newer"}:
                    compared = await _replayed(connection, declared, compared, sample, report)
                found.append(compared)
            if (version := declared.schema_version) not in {row[1] for row in known}:
                found.append(Compared(declared.name, version, version, "new"))
    return found


def _compared(
    declared: EventType, version: int, pattern: str, schema: dict[str, Any], events: int
) -> Compared:
    own = declared.schema_version
    state: State
    if version == own:
        same = schema == declared.schema and pattern == declared.stream_pattern
        remedy = f"Declare version={own + 1}; events of version {own} exist or may exist."
        changed = Issue("fail", "the class has changed, and its version has not", remedy)
        state, issues = ("same", []) if same else ("changed", [changed])
    elif version > own:
        remedy = "What this code does not know of it, it passes by."
        state, issues = "newer", [Issue("warn", "the log has a newer version", remedy)]
    else:
        state = "older"
        issues = [*reading_old(declared, version, schema), *going_back(declared, version, schema)]
    return Compared(declared.name, version, own, state, events, issues=tuple(issues))


async def _replayed(
    connection: Connection, declared: EventType, compared: Compared,
    sample: int | None, report: Report | None,
) -> Compared:  # fmt: skip
    """Reads events of a version through the upcasters."""
    total = compared.events if sample is None else min(compared.events, sample)
    replayed = failed = 0
    issues: list[Issue] = []
    async for positions in _positions(connection, compared, sample):
        for position, problem in await _read(connection, declared, compared.version, positions):
            failed += 1
            if len(issues) < _SHOWN:
                told = f"the event at {position}: {problem}"
                issues.append(Issue("fail", told, "Correct the steps."))
        replayed += len(positions)
        if report is not None:
            report(compared.type, replayed, total)
    return replace(compared, replayed=replayed, failed=failed, issues=(*compared.issues, *issues))


async def _positions(
    connection: Connection, compared: Compared, sample: int | None
) -> AsyncIterator[list[int]]:
    asked = {"type": compared.type, "schema_version": compared.version}
    if sample is not None:
        half = {"half": (sample + 1) // 2}
        cursor = await connection.execute(SQL["schemas.some"], asked | half)
        positions = [row[0] for row in await cursor.fetchall()][:sample]
        for start in range(0, len(positions), _AT_ONCE):
            yield positions[start : start + _AT_ONCE]
        return
    after = 0
    while True:
        page = {"after": after, "max_rows": _AT_ONCE}
        cursor = await connection.execute(SQL["schemas.next"], asked | page)
        if not (positions := [row[0] for row in await cursor.fetchall()]):
            return
        yield positions
        after = positions[-1]


async def _read(
    connection: Connection, declared: EventType, version: int, positions: Sequence[int]
) -> list[tuple[int, str]]:
    """What is wrong with events: the position and why. Python reads each, then SQL reads the same."""
    cursor = await connection.execute(SQL["schemas.data"], {"positions": list(positions)})
    problems: list[tuple[int, str]] = []
    values: dict[int, dict[str, Any]] = {}
    for position, data in await cursor.fetchall():
        try:
            event = declared.decode(data, version)
        except msgspec.ValidationError as error:
            problems.append((position, str(error)))
        else:
            values[position] = msgspec.to_builtins(event, builtin_types=_AS_THEY_ARE)
    if declared.upcasting.confined:
        return problems
    own = declared.schema["properties"]
    columns = [c for c in declared.relation.columns if c.name in own and c.sql_type != "jsonb"]
    if not columns or not values:
        return problems
    query = _selecting(columns)
    try:
        rows = await _rows(connection, query, list(values))
    except psycopg.DataError:
        return problems + await _one_by_one(connection, query, list(values))
    return problems + [
        (
            position,
            f"{column.name} is {values[position][column.name]!r} in Python and {value!r} in SQL",
        )
        for position, *found in rows
        for column, value in zip(columns, found, strict=True)
        if values[position][column.name] != value
    ]


async def _rows(
    connection: Connection, query: sql.Composed, positions: list[int]
) -> list[tuple[Any, ...]]:
    return await (await connection.execute(query, {"positions": positions})).fetchall()


async def _one_by_one(
    connection: Connection, query: sql.Composed, positions: list[int]
) -> list[tuple[int, str]]:
    """The events that SQL cannot read, where it cannot read all."""
    problems = []
    for position in positions:
        try:
            await _rows(connection, query, [position])
        except psycopg.DataError as error:
            problems.append((position, f"SQL: {error.diag.message_primary}"))
    return problems


def _selecting(columns: Sequence[Column]) -> sql.Composed:
    """The query of columns as views in Postgres read them. Their SQL is made by the event type."""
    values = [sql.SQL(c.expression.replace("%", "%%")) for c in columns]
    return sql.SQL(
        "SELECT e.position, {} FROM headwater.events AS e WHERE e.position = ANY (%(positions)s)"
    ).format(sql.SQL(", ").join(values))
