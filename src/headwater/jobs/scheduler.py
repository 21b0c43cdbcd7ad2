"""Enqueues the runs of schedules: each once, whichever process comes first."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg

from headwater.errors import HeadwaterError
from headwater.jobs.runs import record
from headwater.jobs.schedule import Schedule, ScheduleRan
from headwater.jobs.taken import SQL
from headwater.log.database import Connection, Database
from headwater.log.writing import enqueue

_log = logging.getLogger("headwater.jobs")
_LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Scheduler:
    """The schedules of an app. Every process looks; the schedule's row is locked by the one that enqueues."""

    database: Database
    schedules: Sequence[Schedule]
    tenant: str | None

    async def deploy(self, operator: Database) -> None:
        """Registers the schedules. A changed one is planned anew; one that is no longer declared is not looked at."""
        now = datetime.now(UTC)
        async with operator.transaction() as connection:
            for one in self.schedules:
                planned = one.after(now)
                parameters = {
                    "schedule": one.name,
                    "definition": msgspec.json.encode(one.definition).decode(),
                    "tenant": one.tenant or self.tenant,
                    "planned": planned,
                    "due": one.due(planned),
                }
                await connection.execute(SQL["schedules.register"], parameters)

    async def run(self) -> None:
        """Looks for runs that are due until cancelled."""
        while True:
            try:
                await self.look()
            except (psycopg.Error, HeadwaterError, OSError) as error:
                _log.warning(
                    "schedules: %s: %s", type(error).__name__, str(error).partition("\n")[0]
                )
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self, now: datetime | None = None) -> list[str]:
        """Enqueues what is due; the names of the schedules that a run was enqueued of."""
        begun = []
        for one in self.schedules:
            async with self.database.connection() as connection:
                parameters: dict[str, Any] = {"schedule": one.name, "now": now or datetime.now(UTC)}
                cursor = await connection.execute(SQL["schedules.due"], parameters)
                if await cursor.fetchone() is None:
                    continue
                async with connection.transaction():
                    if await self._begin(connection, one, parameters):
                        begun.append(one.name)
        return begun

    async def _begin(
        self, connection: Connection, schedule: Schedule, parameters: dict[str, Any]
    ) -> bool:
        cursor = await connection.execute(SQL["schedules.lock"], parameters)
        row = await cursor.fetchone()
        if row is None:  # another process was first
            return False
        planned_at, tenant, active, active_planned, outcome, reason = row
        if active is not None:
            # It ended without its worker recording it: cancelled before it began, or settled just before a kill.
            await connection.execute(SQL["schedules.set_tenant"], {"tenant": tenant})
            fact = ScheduleRan(schedule.name, active_planned, active, outcome or "done", 0.0, 1, reason)  # fmt: skip
            await record(connection, tenant, fact)
        planned, following = schedule.turn(planned_at, parameters["now"])
        job = None
        if planned is not None:
            told = {"schedule": schedule.name, "planned": planned.isoformat()}
            wanted = msgspec.structs.replace(schedule.job, metadata=told)
            job = (await enqueue(connection, tenant, [wanted], {})).id
        await connection.execute(
            SQL["schedules.planned"],
            parameters | {"planned": following, "due": schedule.due(following), "active": job, "active_planned": planned},
        )  # fmt: skip
        return job is not None
