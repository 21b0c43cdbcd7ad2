"""Where it is measured: a durable embedded server, a database of its own for each figure."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
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

    @contextmanager
    def database(self, name: str) -> Iterator[str]:
        """An administrator's URL for a fresh database, which is dropped at the end with the slots that read it."""
        self._drop(name)
        with psycopg.connect(self.server.url(), autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield self.server.url(name)
        finally:
            self._drop(name)

    def _drop(self, name: str) -> None:
        with psycopg.connect(self.server.url(), autocommit=True) as admin:
            admin.execute(SQL["bench.end_sessions"], {"database": name})
            admin.execute(SQL["bench.drop_slots"], {"database": name})
            admin.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )

    async def migrated(self, admin_url: str, name: str) -> str:
        """Headwater's own schema in a fresh database; a login's URL for it."""
        await migrate(admin_url)
        await create_login(admin_url, LOGIN, database_owner=True)
        return self.server.url(name, user=LOGIN)

    @asynccontextmanager
    async def app(
        self, make: Callable[[Settings], App] = shop.make
    ) -> AsyncIterator[tuple[App, str]]:
        """The app on a fresh database, and an administrator's URL for it."""
        name = f"bench_{next(_numbers)}"
        with self.database(name) as admin_url:
            async with self._app(name, admin_url, make) as app:
                yield app, admin_url

    @asynccontextmanager
    async def _app(
        self, name: str, admin_url: str, make: Callable[[Settings], App]
    ) -> AsyncIterator[App]:
        url = await self.migrated(admin_url, name)
        with psycopg.connect(admin_url, autocommit=True) as admin:
            admin.execute("CREATE SCHEMA bench")
            admin.execute("CREATE SEQUENCE bench.positions")
            for table in ("bare", "twin", "by_hand_table"):
                admin.execute(SQL[f"bench.{table}"])
            admin.execute("GRANT USAGE ON SCHEMA bench TO PUBLIC")
            admin.execute("GRANT ALL ON ALL TABLES IN SCHEMA bench TO PUBLIC")
            admin.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA bench TO PUBLIC")
        app = make(Settings(database_url=url, pool_size=40))
        async with app:
            await app.deploy()
            yield app


def ground(folder: Path, **settings: str) -> Ground:
    """The server, durable as in production."""
    return Ground(EmbeddedPostgres(folder, settings={"shared_buffers": "1GB", **settings}))


async def alternating(
    rounds: int, ours: Callable[[], Awaitable[float]], limit: Callable[[], Awaitable[float]]
) -> tuple[float, float]:
    """Medians of both, measured in turn, so that a drifting machine favours neither."""
    reached, limits = [], []
    for _ in range(rounds):
        limits.append(await limit())
        reached.append(await ours())
    return median(reached), median(limits)
