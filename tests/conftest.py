"""Real servers for tests: one embedded Postgres a version, a migrated template, a clone per test."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from headwater.operations.embedded import Binaries, EmbeddedPostgres
from headwater.operations.migrate import create_login, migrate
from headwater.readers import received

if TYPE_CHECKING:
    from together import Together

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
LOGIN = "headwater_login"
MEMORY_BYTES = 8 * 2**30
# A slow machine is not a fault: a read that does not say how long it waits has time here.
received.DEFAULT_TIMEOUT_SECONDS = 60.0
_numbers = itertools.count(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """Who runs what, where several workers share the tests."""
    from together import Together

    return Together(config, log)


@dataclass(frozen=True)
class TestServer:
    """A running Postgres and the name of its migrated template database."""

    __test__ = False

    postgres: EmbeddedPostgres
    version: int
    template: str = "headwater_template"


@dataclass(frozen=True)
class TestDatabase:
    """A migrated database of a test's own: ``url`` for Headwater's login, ``admin_url`` for the
    server's administrator."""

    __test__ = False

    server: TestServer
    name: str

    @property
    def url(self) -> str:
        return self.server.postgres.url(self.name, user=LOGIN)

    @property
    def admin_url(self) -> str:
        return self.server.postgres.url(self.name, user="postgres")

    def admin(self) -> psycopg.Connection:
        """A superuser's connection in autocommit mode."""
        return psycopg.connect(self.admin_url, autocommit=True)


def _versions() -> list[int]:
    return [18, 15] if DEBIAN_15.exists() else [18]


def _memory() -> Path | None:
    """A file system in memory with room enough, where there is one.

    Each test's database is some 700 files, made and removed. Where as many were removed a moment ago, ext4 takes a third of a
    second of the kernel's time to make them; in memory it is a fiftieth.
    """
    memory = Path("/dev/shm")
    is_there = memory.is_dir() and shutil.disk_usage(memory).free > MEMORY_BYTES
    return memory if is_there else None


def _serve(
    version: int, settings: dict[str, str], where: Path | None = None
) -> Iterator[TestServer]:
    binaries = Binaries.from_wheel() if version == 18 else Binaries.at(DEBIAN_15)
    with tempfile.TemporaryDirectory(prefix="headwater-test-", dir=where) as folder:
        Path(folder).chmod(0o711)
        postgres = EmbeddedPostgres(Path(folder) / "postgres", binaries=binaries, settings=settings)
        postgres.start()
        try:
            server = TestServer(postgres, version)
            with psycopg.connect(postgres.url(), autocommit=True) as connection:
                connection.execute(
                    sql.SQL("CREATE DATABASE {}").format(sql.Identifier(server.template))
                )
            admin_url = postgres.url(server.template)
            asyncio.run(migrate(admin_url))
            asyncio.run(create_login(admin_url, LOGIN, database_owner=True, replication=True))
            yield server
        finally:
            postgres.stop()


@pytest.fixture(scope="session")
def _servers() -> Iterator[dict[int, TestServer]]:
    running: dict[int, TestServer] = {}
    services = []
    # Data that outlives no test needs no fsync; durability has tests of its own, on servers of
    # their own.
    for version in _versions():
        settings = {"fsync": "off", "shared_buffers": "128MB", "wal_level": "logical"}
        service = _serve(version, settings | {"max_wal_size": "256MB"}, _memory())
        services.append(service)
        running[version] = next(service)
    yield running
    for service in services:
        next(service, None)


@pytest.fixture(params=_versions(), ids=lambda version: f"postgres{version}")
def server(request: pytest.FixtureRequest, _servers: dict[int, TestServer]) -> TestServer:
    """Every supported Postgres that is installed, in turn."""
    return _servers[request.param]


@pytest.fixture
def server18(_servers: dict[int, TestServer]) -> TestServer:
    """The wheel's Postgres alone, for tests whose outcome does not hang on the version."""
    return _servers[18]


@pytest.fixture
def database(server: TestServer) -> Iterator[TestDatabase]:
    """A migrated database of the test's own, on every supported Postgres."""
    yield from _cloned(server)


@pytest.fixture
def database18(server18: TestServer) -> Iterator[TestDatabase]:
    """A migrated database of the test's own, on the wheel's Postgres."""
    yield from _cloned(server18)


@pytest.fixture
def another18(server18: TestServer) -> Iterator[TestDatabase]:
    """A second database beside ``database18``, of another service: its log has an id of its own."""
    for database in _cloned(server18):
        _be_another(database)
        yield database


@pytest.fixture
def another(server: TestServer) -> Iterator[TestDatabase]:
    """A second database beside ``database``, of another service."""
    for database in _cloned(server):
        _be_another(database)
        yield database


@pytest.fixture
def four18(server18: TestServer) -> Iterator[list[TestDatabase]]:
    """Databases of four services."""
    with ExitStack() as cloned:
        databases = [cloned.enter_context(contextmanager(_cloned)(server18)) for _ in range(4)]
        for database in databases:
            _be_another(database)
        yield databases


def _be_another(database: TestDatabase) -> None:
    with database.admin() as connection:
        connection.execute(
            "UPDATE headwater.log SET log_id = left(replace(gen_random_uuid()::text, '-', ''), 8)"
        )


def _cloned(server: TestServer) -> Iterator[TestDatabase]:
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server.postgres.url(), autocommit=True) as connection:
        connection.execute(
            # Copied as files and not through the log: four to seven times faster on Postgres 18.
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                sql.Identifier(name), sql.Identifier(server.template)
            )
        )
        connection.execute(
            sql.SQL("GRANT CREATE ON DATABASE {} TO headwater_app, headwater_owner").format(
                sql.Identifier(name)
            )
        )
    try:
        yield TestDatabase(server, name)
    finally:
        with psycopg.connect(server.postgres.url(), autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            )


@pytest.fixture
def own_server() -> Iterator[TestDatabase]:
    """A durable server of the test's own, which it may crash, with one migrated database."""
    for server in _serve(18, {"shared_buffers": "64MB", "wal_level": "logical"}):
        yield TestDatabase(server, server.template)


@pytest.fixture
def plain_server() -> Iterator[TestDatabase]:
    """A server as it comes, whose WAL is not for logical replication, with one migrated database."""
    for server in _serve(18, {"shared_buffers": "64MB", "fsync": "off", "wal_level": "replica"}):
        yield TestDatabase(server, server.template)
