"""Captured tables: taking them in, letting them go, and what is wrong with them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec
import psycopg

from headwater.errors import TableBusy
from headwater.log.database import Database
from headwater.log.failures import translated
from headwater.log.statements import Statements

SQL = Statements("headwater.capture")

_LOCK_MILLISECONDS = 500
_ATTEMPTS = 20


class CaptureOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a table is captured.

    One of ``tenant``, ``tenant_column`` and ``session_tenant`` says whose the events are. Columns are
    named as in the table; ``renamed`` maps them to fields, ``personal`` to the column that names the
    person. A personal column is left out until events can be sealed. ``again`` goes on with the streams
    of a capture of that name that was released.
    """

    name: str | None = None
    tenant: str | None = None
    tenant_column: str | None = None
    session_tenant: bool = False
    only: tuple[str, ...] | None = None
    left_out: tuple[str, ...] = ()
    renamed: dict[str, str] = {}
    personal: dict[str, str] = {}
    backfill: bool = True
    way: Literal["triggers", "replication"] = "triggers"
    again: bool = False


class Captured(msgspec.Struct, frozen=True):
    """A capture that was made or found."""

    id: int
    name: str
    state: Literal["backfilling", "live", "broken"]


class Capture(msgspec.Struct, frozen=True):
    """A captured table as an operator sees it."""

    id: int
    name: str
    table: str
    state: str
    schema_version: int
    tenant: str | None
    way: str
    backfilled_rows: int
    detail: str | None
    captured_at: datetime


class Problem(msgspec.Struct, frozen=True):
    """Something about a capture that needs attention."""

    capture: str
    finding: str
    remedy: str


async def capture(operator: Database, table: str, options: CaptureOptions) -> Captured:
    """Makes the triggers of a table; the rows that exist are left to ``backfill``.

    Creating a trigger waits for transactions that have written to the table, and new writers would
    queue behind it. So each attempt is short, and up to 20 are made.

    Raises CaptureRefused, AlreadyCaptured, UnknownCapture or TableBusy; then nothing is left behind.
    """
    parameters = {"table": table, "options": msgspec.json.encode(options).decode()}
    row = await briefly_locked(operator, "capture.capture", parameters, table)
    return Captured(*row)


async def release(operator: Database, name: str) -> str:
    """Drops a capture's triggers and functions; its events stay. ``name`` is the capture's or its table's."""
    row = await briefly_locked(operator, "capture.release", {"name": name}, name)
    return str(row[0])


async def briefly_locked(
    operator: Database, statement: str, parameters: Mapping[str, object], table: str
) -> tuple[Any, ...]:
    for attempt in range(_ATTEMPTS):
        try:
            async with operator.transaction() as connection:
                with translated():
                    timeout = {"milliseconds": str(_LOCK_MILLISECONDS)}
                    await connection.execute(SQL["capture.lock_timeout"], timeout)
                    cursor = await connection.execute(SQL[statement], parameters)
                    row = await cursor.fetchone()
                    assert row is not None
                    return row
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            await asyncio.sleep(random.uniform(0.5, 1.0) * min(attempt + 1, 5))  # noqa: S311
    raise TableBusy(
        f"The table {table} was in use through {_ATTEMPTS} attempts.",
        hint="End the long transaction that writes to it, or try again at a quieter time.",
    )


async def find(operator: Database, name: str) -> Captured:
    """The capture of that name or table. Raises UnknownCapture."""
    async with operator.connection() as connection:
        cursor = await connection.execute(SQL["capture.find"], {"name": name})
        row = await cursor.fetchone()
    assert row is not None
    return Captured(*row)


async def captures(operator: Database) -> list[Capture]:
    """The captured tables, by name."""
    async with operator.connection() as connection:
        cursor = await connection.execute(SQL["capture.captures"])
        return [Capture(*row) for row in await cursor.fetchall()]


async def problems(operator: Database) -> list[Problem]:
    """What is wrong with captured tables."""
    found: list[Problem] = []
    async with operator.connection() as connection:
        cursor = await connection.execute(SQL["capture.problems"])
        for name, was, state, detail, now, disabled, untriggered, unpublished in await cursor.fetchall():  # fmt: skip
            if now is None:
                found.append(Problem(name, f"its table {was} is gone", f"headwater release {name}"))
            elif state == "broken":
                remedy = f"headwater release {name}, mend the table, and capture it again: --again, or under another name."
                found.append(Problem(name, f"it has stopped: {detail}", remedy))
            elif state == "lost":
                finding = f"changes are lost since its slot is: {detail}"
                found.append(Problem(name, finding, f"headwater resync {name}"))
            elif unpublished:
                finding = "its publication is gone or altered: changes are lost"
                remedy = f"headwater release {name}, and headwater capture {now} --again."
                found.append(Problem(name, finding, remedy))
            elif disabled:
                tables = sorted({entry.split(" ")[0] for entry in disabled})
                finding = f"its triggers on {', '.join(tables)} are disabled: changes are lost"
                remedy = f"ALTER TABLE ... ENABLE TRIGGER ..., then headwater resync {name}."
                found.append(Problem(name, finding, remedy))
            elif untriggered:
                finding = f"{', '.join(untriggered)} lacks its triggers: direct writes are lost"
                remedy = f"headwater release {name}, and headwater capture {now} --again."
                found.append(Problem(name, finding, remedy))
            elif state == "backfilling":
                finding = "its backfill is not finished"
                found.append(Problem(name, finding, f"headwater capture {now} goes on with it."))
    return found


async def only_tenant(operator: Database) -> str | None:
    """The tenant of all captured tables, or None where they have several or none that is fixed."""
    async with operator.connection() as connection:
        row = await (await connection.execute(SQL["capture.only_tenant"])).fetchone()
    return None if row is None else row[0]
