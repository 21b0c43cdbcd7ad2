"""A durable server that tests may crash."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg
import pytest
from marked import prepare

from headwater.operations.embedded import EmbeddedPostgres
from headwater.operations.migrate import create_login, migrate

LOGIN = "headwater_login"
TEMPLATE = "headwater_template"
# Nobody writes the log of a commit that did not ask for it, so a crash loses all it can.
LOSE_MUCH = {"wal_writer_delay": "10s", "autovacuum": "off", "shared_buffers": "128MB"}
_numbers = count(1)


@dataclass(frozen=True)
class DurableLog:
    """A fresh log on a server with fsync on, of which the test may do what it likes."""

    postgres: EmbeddedPostgres
    name: str

    @property
    def url(self) -> str:
        return self.postgres.url(self.name, user=LOGIN)

    @property
    def admin_url(self) -> str:
        return self.postgres.url(self.name)

    def admin(self) -> psycopg.Connection:
        return psycopg.connect(self.admin_url, autocommit=True)

    def hold_back_wal(self) -> int:
        """From here on only a commit that asks for it is written; returns whom to kill."""
        with self.admin() as admin:
            admin.execute("CHECKPOINT")
            (pid,) = admin.execute(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'"
            ).fetchone()
        os.kill(pid, signal.SIGSTOP)
        return pid

    def crash(self, walwriter: int) -> None:
        """Loses whatever was not written, and recovers."""
        os.kill(walwriter, signal.SIGKILL)
        self.postgres.restart("immediate")

    def kill_and_start(self) -> None:
        """SIGKILL to the postmaster."""
        self.postgres.kill()
        self.postgres.start()


@pytest.fixture(scope="session")
def _durable_server() -> Iterator[EmbeddedPostgres]:
    with tempfile.TemporaryDirectory(prefix="headwater-test-") as folder:
        Path(folder).chmod(0o711)
        with EmbeddedPostgres(Path(folder) / "postgres", settings=LOSE_MUCH) as postgres:
            with psycopg.connect(postgres.url(), autocommit=True) as admin:
                admin.execute(f"CREATE DATABASE {TEMPLATE}")
            asyncio.run(migrate(postgres.url(TEMPLATE)))
            asyncio.run(create_login(postgres.url(TEMPLATE), LOGIN))
            asyncio.run(prepare(postgres.url(TEMPLATE, user=LOGIN)))
            yield postgres


@pytest.fixture
def durable_log(_durable_server: EmbeddedPostgres) -> Iterator[DurableLog]:
    name = f"durable_{next(_numbers)}"
    with psycopg.connect(_durable_server.url(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        # A clone's sequence believes that the template logged its next 32 positions, and would draw
        # them again after a crash. After a checkpoint it logs anew.
        admin.execute("CHECKPOINT")
    yield DurableLog(_durable_server, name)
    with psycopg.connect(_durable_server.url(), autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
