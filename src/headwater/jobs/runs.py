"""Runs of schedules as facts: what ended is appended in the commit that settles its job."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast

from headwater.jobs.schedule import ScheduleRan
from headwater.jobs.taken import SQL, RunningJob, Settlement
from headwater.log.database import Connection, Database
from headwater.log.failures import translated
from headwater.log.writing import append_group, group_of

Outcome = Literal["done", "dead", "cancelled"]


@dataclass(frozen=True, slots=True)
class Runs:
    """Records runs, as the relay."""

    database: Database

    async def ended(self, running: RunningJob, settlement: Settlement) -> None:
        """Records a run that has ended for good, and settles its job; another attempt is no end."""
        taken = running.taken
        told = settlement.special[0] if settlement.special else {"outcome": "done"}
        if told["outcome"] not in {"done", "dead", "cancelled"} or "schedule" not in taken.carried:
            return
        fact = ScheduleRan(
            schedule=taken.carried["schedule"],
            planned=datetime.fromisoformat(taken.carried["planned"]),
            job=taken.id,
            outcome=cast("Outcome", told["outcome"]),
            seconds=round(time.monotonic() - taken.began, 6),
            attempts=taken.attempt,
            reason=told.get("reason"),
        )
        async with self.database.transaction(taken.tenant) as connection:
            await record(connection, taken.tenant, fact)
            if not taken.settled:
                parameters = settlement.parameters() | {"worker": running.worker, "queue": running.queue}  # fmt: skip
                with translated():
                    await connection.execute(SQL["jobs.settle"], parameters)
        taken.settled = True
        settlement.finished.clear()
        settlement.kept.clear()
        settlement.special.clear()


async def record(connection: Connection, tenant: str, fact: ScheduleRan) -> None:
    """Appends a run that has ended, once, and lets the schedule go on."""
    parameters: dict[str, Any] = {
        "schedule": fact.schedule,
        "job": fact.job,
        "planned": fact.planned,
        "outcome": fact.outcome,
    }
    cursor = await connection.execute(SQL["schedules.ended"], parameters)
    if cursor.rowcount:
        with translated():
            await append_group(connection, group_of(tenant, [fact]))
