"""Where it is measured: a durable embedded server, a database of its own for each figure."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psycopg
from psycopg import sql

from bench import shop
from headwater import App, Settings
from headwater.log.statements import Statements
from headwater.operations.embedded import EmbeddedPostgres
from headwater.operations.migrate import create_login, migrate

SQL = Statements("bench")
LOGIN = "headwater_login"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Figure:
    """What was reached, beside its limit and its aim."""

    name: str
    reached: float
    unit: str
    limit: float | None = None
    aim: str = ""
    met: bool | None = None

    @property
    def ratio(self) -> float | None:
        """Reached over limit."""
        return None if not self.limit else self.reached / self.limit


@dataclass(frozen=True)
class Ground:
    """One server for the whole run."""

    server: EmbeddedPostgres

    @asynccontextmanager
    async def app(
        self, make: Callable[[Settings], App] = shop.make
    ) -> AsyncIterator[tuple[App, str]]:
        """The app on a fresh database, and an administrator's URL for it."""
        name = f"bench_{next(_numbers)}"
        with psycopg.connect(self.server.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        admin_url = self.server.url(name)
        await migrate(admin_url)
        await create_login(admin_url, LOGIN, database_owner=True)
        with psycopg.connect(admin_url, autocommit=True) as admin:
            admin.execute("CREATE SCHEMA bench")
            admin.execute("CREATE SEQUENCE bench.positions")
            for table in ("bare", "twin", "by_hand_table"):
                admin.execute(SQL[f"bench.{table}"])
            admin.execute("GRANT USAGE ON SCHEMA bench TO PUBLIC")
            admin.execute("GRANT ALL ON ALL TABLES IN SCHEMA bench TO PUBLIC")
            admin.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA bench TO PUBLIC")
        app = make(Settings(database_url=self.server.url(name, user=LOGIN), pool_size=40))
        try:
            async with app:
                await app.deploy()
                yield app, admin_url
        finally:
            with psycopg.connect(self.server.url(), autocommit=True) as connection:
                connection.execute(
                    sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
                )


def ground(folder: Path) -> Ground:
    """The server, durable as in production."""
    return Ground(EmbeddedPostgres(folder, settings={"shared_buffers": "1GB"}))


async def alternating(
    rounds: int, ours: Callable[[], Awaitable[float]], limit: Callable[[], Awaitable[float]]
) -> tuple[float, float]:
    """Medians of both, measured in turn, so that a drifting machine favours neither."""
    reached, limits = [], []
    for _ in range(rounds):
        limits.append(await limit())
        reached.append(await ours())
    return median(reached), median(limits)
