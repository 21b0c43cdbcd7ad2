"""Other queues on Postgres, behind what the measurement needs of them."""

from __future__ import annotations

import asyncio
import os
from typing import Any


def installed() -> list[str]:
    """The peers that are installed: the extra ``bench`` brings them."""
    found = []
    for name in PEERS:
        try:
            __import__(name)
        except ImportError:
            continue
        found.append(name)
    return found


def procrastinate_app(url: str) -> Any:
    """An app with one empty task."""
    import procrastinate

    from bench.job_waits import began

    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))

    async def empty(at_ns: int) -> None:
        began(at_ns)

    app.task(name="empty", queue="plain")(empty)
    return app


class PgQueuerPeer:
    """PgQueuer."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def open(self) -> None:
        import asyncpg
        from pgqueuer import AsyncpgDriver, Queries

        self.connection = await asyncpg.connect(self.url)
        self.queries = Queries(AsyncpgDriver(self.connection))
        await self.queries.install()

    async def enqueue(self, at_ns: int, count: int) -> None:
        for start in range(0, count, 1000):
            some = min(1000, count - start)
            await self.queries.enqueue(["empty"] * some, [str(at_ns).encode()] * some, [0] * some)

    async def busy(self) -> bool:
        return bool(await self.connection.fetchval("SELECT EXISTS (SELECT FROM pgqueuer)"))

    async def close(self) -> None:
        await self.connection.close()


class ProcrastinatePeer:
    """Procrastinate."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def open(self) -> None:
        self.app = procrastinate_app(self.url)
        self.opened = self.app.open_async()
        await self.opened.__aenter__()
        await self.app.schema_manager.apply_schema_async()

    async def enqueue(self, at_ns: int, count: int) -> None:
        task = self.app.tasks["empty"]
        for start in range(0, count, 1000):
            some = min(1000, count - start)
            await task.batch_defer_async(*[{"at_ns": at_ns}] * some)

    async def busy(self) -> bool:
        found = await self.app.connector.execute_query_one_async(
            "SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing')) AS left"
        )
        return bool(found["left"])

    async def close(self) -> None:
        await self.opened.__aexit__(None, None, None)


def dbos_config(url: str) -> Any:
    """DBOS on a database, saying nothing and told to nobody."""
    version = "1"  # of the application: what is enqueued is only taken by the same
    # A worker's concurrency is counted by executor: https://docs.dbos.dev/python/reference/queues
    executor = str(os.getpid())
    return {"name": "bench", "system_database_url": url, "run_admin_server": False, "log_level": "ERROR", "application_version": version, "executor_id": executor}  # fmt: skip


class DbosPeer:
    """DBOS: a workflow without steps, in a queue."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def open(self) -> None:
        import sqlalchemy
        from dbos import DBOSClient, run_dbos_database_migrations

        await asyncio.to_thread(run_dbos_database_migrations, self.url)
        self.engine = sqlalchemy.create_engine(
            self.url.replace("postgresql://", "postgresql+psycopg://", 1)
        )
        self.client = DBOSClient(system_database_url=self.url)

    async def enqueue(self, at_ns: int, count: int) -> None:
        options: Any = {"workflow_name": "empty", "queue_name": "plain", "app_version": "1"}

        def some() -> None:
            with self.engine.begin() as connection:
                for _ in range(count):
                    self.client.enqueue_in_transaction(connection, options, at_ns)

        await asyncio.to_thread(some)

    async def busy(self) -> bool:
        from sqlalchemy import text

        with self.engine.begin() as connection:
            found = connection.execute(
                text(
                    "SELECT EXISTS (SELECT FROM dbos.workflow_status WHERE status IN ('ENQUEUED', 'PENDING'))"
                )
            )
            return bool(found.scalar())

    async def close(self) -> None:
        self.client.destroy()
        self.engine.dispose()


PEERS: dict[str, Any] = {
    "pgqueuer": PgQueuerPeer,
    "procrastinate": ProcrastinatePeer,
    "dbos": DbosPeer,
}
