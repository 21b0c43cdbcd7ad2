"""The Postgres of one round as its administrator sees it, and what befalls it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, LiteralString

import psycopg

from headwater.operations.embedded import EmbeddedPostgres
from simulation.shop import SQL

MOST_PAUSED_SECONDS = 5.0


class Server:
    """One database of the ground's server."""

    def __init__(self, postgres: EmbeddedPostgres, url: str, admin_url: str, salt: str) -> None:
        self.url, self.admin_url = url, admin_url
        self._postgres, self._salt = postgres, salt
        self._paused: Sequence[int] = ()

    async def admin(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of a named statement, as the superuser. Raises psycopg.Error."""
        text: LiteralString = SQL[statement]
        async with await psycopg.AsyncConnection.connect(self.admin_url, autocommit=True) as admin:
            cursor = await admin.execute(text, parameters)
            return await cursor.fetchall() if cursor.description else []

    async def connect(self) -> psycopg.AsyncConnection[tuple[object, ...]]:
        """One more connection of the installation's login. Raises psycopg.OperationalError where none is left."""
        return await psycopg.AsyncConnection.connect(self.url, autocommit=True)

    async def holder(self, name: str) -> int | None:
        """The process that holds a lease."""
        rows = await self.admin("simulation.holder", name=name)
        return rows[0][0] if rows else None

    async def terminate(self, count: int) -> int:
        """Ends so many connections; how many there were."""
        return len(await self.admin("simulation.terminate", salt=self._salt, count=count))

    async def pause(self, count: int) -> int:
        """SIGSTOP to so many backends; how many there were."""
        self.resume()
        self._paused = [pid for (pid,) in await self.admin("simulation.backends", salt=self._salt, count=count)]  # fmt: skip
        for pid in self._paused:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        # Whoever is to resume them may itself wait for a lock that one of them holds.
        asyncio.get_running_loop().call_later(MOST_PAUSED_SECONDS, self.resume)
        return len(self._paused)

    def resume(self) -> None:
        """SIGCONT to all that are paused."""
        for pid in self._paused:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._paused = ()

    def start(self) -> None:
        """Starts the server, unless it runs."""
        self.resume()
        self._postgres.start()

    def kill(self) -> None:
        """Ends it at once. Raises EmbeddedPostgresError."""
        self.resume()
        self._postgres.kill()

    def restart(self) -> None:
        """Ends and starts it at once."""
        self.resume()
        self._postgres.restart("immediate")
