"""Where rounds take place: one durable embedded Postgres, and a migrated template to clone for each."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from headwater.operations.embedded import EmbeddedPostgres
from headwater.operations.migrate import create_login, migrate
from simulation.shop import SQL

LOGIN = "headwater_login"
TEMPLATE = "simulation_template"


class Ground:
    """A folder with a server; ``fresh`` gives a database and a folder for one round."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres = EmbeddedPostgres(
            folder / "postgres", settings={"shared_buffers": "128MB", "max_connections": "200"}
        )
        self._numbers = itertools.count(1)

    async def prepare(self) -> None:
        """Migrates the template."""
        await self._run(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
        admin_url = self.postgres.url(TEMPLATE)
        await migrate(admin_url)
        await create_login(admin_url, LOGIN, database_owner=True)
        async with await psycopg.AsyncConnection.connect(admin_url, autocommit=True) as admin:
            await admin.execute(SQL["simulation.prepare"])

    @asynccontextmanager
    async def fresh(self) -> AsyncIterator[tuple[str, Path]]:
        """A database's name and a folder, until the end of the block."""
        name = f"round_{next(self._numbers)}"
        folder = self.folder / name
        folder.mkdir()
        identifiers = sql.Identifier(name), sql.Identifier(TEMPLATE)
        await self._run(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*identifiers))
        # A clone's sequence believes that its next 32 positions are logged; after a checkpoint it logs anew.
        await self._run(sql.SQL("CHECKPOINT"))
        try:
            yield name, folder
        finally:
            await asyncio.to_thread(self.postgres.start)
            await self._run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifiers[0]))

    async def _run(self, statement: sql.SQL | sql.Composed) -> None:
        async with await psycopg.AsyncConnection.connect(
            self.postgres.url(), autocommit=True
        ) as admin:
            await admin.execute(statement)


@asynccontextmanager
async def ground() -> AsyncIterator[Ground]:
    """The ground, stopped and removed at the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="headwater-simulation-"))
    folder.chmod(0o711)
    made = Ground(folder)
    await asyncio.to_thread(made.postgres.start)
    try:
        await made.prepare()
        yield made
    finally:
        await asyncio.to_thread(made.postgres.stop)
        shutil.rmtree(folder, ignore_errors=True)
