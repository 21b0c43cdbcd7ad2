"""Looks at the rules: each state changes once, whichever process looks, and what is told are jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from headwater.errors import HeadwaterError
from headwater.events import Event
from headwater.jobs.alerts.rule import Alert, AlertRaised, AlertResolved, Facts
from headwater.jobs.taken import SQL
from headwater.log.database import Connection, Database
from headwater.log.enqueuing import Enqueue
from headwater.log.failures import translated
from headwater.log.writing import append_group, enqueue, group_of

_log = logging.getLogger("headwater.jobs")
EVERY_SECONDS = 10.0

Tell = Callable[[str, str, str, str], Enqueue]
"""Makes the job that tells a channel: its name, the alert's, its state, and the detail."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How an alert stood when it was last looked at."""

    since: datetime | None
    raised_at: datetime | None
    told: bool
    silenced: bool


@dataclass(frozen=True, slots=True)
class Alerting:
    """The alerts of an app. Every process looks; the rows are locked by the one that was first."""

    database: Database
    alerts: Mapping[str, Alert]
    facts: Callable[[], Awaitable[Facts]]
    tell: Tell
    every_seconds: float = EVERY_SECONDS

    async def deploy(self, operator: Database) -> None:
        """Registers the alerts. One that is no longer declared is not looked at."""
        async with operator.transaction() as connection:
            for one in self.alerts.values():
                parameters = {"alert": one.name, "tenant": one.tenant}
                await connection.execute(SQL["alerts.register"], parameters)

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            try:
                await self.look()
            except (psycopg.Error, HeadwaterError, OSError) as error:
                told = str(error).partition("\n")[0]
                _log.warning("alerts: %s: %s", type(error).__name__, told)
            await asyncio.sleep(self.every_seconds / 5)

    async def look(self) -> list[str]:
        """Looks at what is due; the alerts that were raised or resolved."""
        parameters = {"alerts": list(self.alerts), "every": self.every_seconds}
        async with self.database.connection() as connection:
            cursor = await connection.execute(SQL["alerts.due"], parameters)
            if await cursor.fetchone() is None:
                return []
        facts = await self.facts()
        changed = []
        async with self.database.transaction() as connection:
            cursor = await connection.execute(SQL["alerts.lock"], parameters)
            for name, since, raised_at, told, silenced, now in await cursor.fetchall():
                standing = Standing(since, raised_at, told, silenced)
                if await self._turn(connection, self.alerts[name], standing, facts, now):
                    changed.append(name)
        return changed

    async def _turn(
        self, connection: Connection, alert: Alert, standing: Standing, facts: Facts, now: datetime
    ) -> bool:
        detail = alert.when.holds(facts)
        since, raised_at, told = standing.since, standing.raised_at, standing.told
        event: Event | None = None
        if detail is None:
            if raised_at is not None:
                seconds = (now - raised_at).total_seconds()
                event = AlertResolved(alert.name, round(seconds, 3))
                if told:
                    await self._tell(connection, alert, "resolved", f"after {seconds:.0f} s")
            since, raised_at, told = None, None, False
        else:
            since = since or now
            if raised_at is None and (now - since).total_seconds() >= alert.for_seconds:
                raised_at = now
                event = AlertRaised(alert.name, detail)
            if raised_at is not None and not told and not standing.silenced:
                await self._tell(connection, alert, "raised", detail)
                told = True
        state: dict[str, Any] = {"alert": alert.name, "since": since, "raised_at": raised_at, "told": told, "detail": detail}  # fmt: skip
        await connection.execute(SQL["alerts.looked"], state)
        if event is not None:
            with translated():
                await append_group(connection, group_of(alert.tenant, [event]))
        return event is not None

    async def _tell(self, connection: Connection, alert: Alert, state: str, detail: str) -> None:
        jobs = [self.tell(channel, alert.name, state, detail) for channel in alert.to]
        if jobs:
            await enqueue(connection, alert.tenant, jobs, {"key": f"alert {alert.name}"})
