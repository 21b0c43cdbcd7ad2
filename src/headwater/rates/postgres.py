"""Counters in the log's own database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headwater.log.database import Database
from headwater.log.statements import Statements
from headwater.rates.plan import Taken, Want

SQL = Statements("headwater.rates")


class Installation(Protocol):
    """An app, which is open when requests come."""

    def database(self) -> Database:
        """The pool of connections in the application's role."""
        ...


class PostgresCounters:
    """Counts in an unlogged table: after a crash of the server everyone begins anew."""

    def __init__(self, app: Installation) -> None:
        self._app = app

    async def take(self, wants: Sequence[Want]) -> Sequence[Taken]:
        """Counts requests; see Counters."""
        parameters = {
            "keys": [want.key for want in wants],
            "every": [want.plan.every_seconds for want in wants],
            "bursts": [want.plan.at_once for want in wants],
            "wanted": [want.count for want in wants],
        }
        async with self._app.database().connection() as connection:
            cursor = await connection.execute(SQL["rates.take"], parameters, prepare=True)
            rows = await cursor.fetchall()
        found = {key: Taken(granted, due) for key, granted, due in rows}
        return [found[want.key] for want in wants]
