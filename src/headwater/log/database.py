"""Connections to Postgres, each in one of Headwater's roles.

Every connection takes its role as it opens and is refused if the login could step around row-level
security. Sessions run in UTC, and a client that is gone is noticed.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from headwater import errors
from headwater.log import arrays
from headwater.log.failures import translate, translated
from headwater.log.statements import Statements
from headwater.log.tasks import heed_cancellation
from headwater.log.tokens import LogIdentity

Role = Literal["headwater_app", "headwater_relay", "headwater_operator"]
Connection = AsyncConnection[tuple[Any, ...]]

SQL = Statements("headwater.log")

_SESSION = {
    "headwater_app": "-c timezone=UTC",
    "headwater_operator": "-c timezone=UTC",
    # The relay's statements name every schema, and a paused relay must not sit on a checkpoint.
    "headwater_relay": "-c timezone=UTC -c search_path=pg_catalog -c idle_in_transaction_session_timeout=5s",
}


class Database:
    """A pool of connections in one role. ``open`` and ``close`` are idempotent."""

    def __init__(
        self,
        url: str,
        role: Role,
        *,
        max_size: int = 10,
        wait_seconds: float = 30.0,
        name: str = "headwater",
        statement_seconds: float | None = None,
    ) -> None:
        options = _SESSION[role]
        if statement_seconds is not None:  # work in the background: on one core, and not for long
            limit = round(statement_seconds * 1000)
            options += f" -c statement_timeout={limit} -c max_parallel_workers_per_gather=0"
        self.url = url
        self.role: Role = role
        self._identity: LogIdentity | None = None
        self._opening = asyncio.Lock()
        self._pool = AsyncConnectionPool(
            url,
            min_size=0 if role == "headwater_operator" else 1,
            max_size=max_size,
            timeout=wait_seconds,
            max_idle=60,
            open=False,
            name=f"{name}-{role}",
            kwargs={
                "autocommit": True,
                "application_name": name,
                "options": options,
                "connect_timeout": 10,
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
            },
            configure=self._configure,
            reset=_reset,
            check=_still_there,
        )

    async def open(self) -> None:
        """Connects, checks the login's role and learns which log this is."""
        if self._identity is not None:
            return
        async with self._opening:
            if self._identity is None:
                identity = await verify_login(self.url, self.role)
                await self._pool.open()  # last, so that a refusal leaves no pool behind
                self._identity = identity

    async def close(self) -> None:
        """Closes all connections."""
        self._identity = None
        await self._pool.close()

    async def identify(self) -> LogIdentity:
        """Reads again which log this is: its epoch changes when it is restored or fails over."""
        async with self.connection() as connection:
            self._identity = await read_identity(connection)
            return self._identity

    @property
    def identity(self) -> LogIdentity:
        """Which log this is. The database must be open."""
        if self._identity is None:
            raise errors.DatabaseUnavailable(
                "The database is not open.", hint="Use `async with app:` around what needs it."
            )
        return self._identity

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection in autocommit mode, given back at the end. Opens the pool if need be."""
        await self.open()
        with translated():
            async with self._pool.connection() as connection:
                heed_cancellation()
                yield connection

    @asynccontextmanager
    async def transaction(self, tenant: str | None = None) -> AsyncIterator[Connection]:
        """A connection inside a transaction, for one tenant where one is given."""
        async with self.connection() as connection, connection.transaction():
            if tenant is not None:
                await connection.execute(SQL["log.set_tenant"], {"tenant": tenant})
            yield connection

    async def _configure(self, connection: Connection) -> None:
        arrays.register(connection)
        await connection.execute(SQL["log.take_role"], {"role": self.role})


async def _still_there(connection: Connection) -> None:
    """Notices a server that is gone without asking it: a closed socket is readable."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    while poll.poll(0):  # its last words may come before the end
        connection.pgconn.consume_input()
        if connection.pgconn.status != psycopg.pq.ConnStatus.OK:
            raise psycopg.OperationalError("the server closed the connection")


async def _reset(connection: Connection) -> None:
    """A connection comes back in autocommit mode and without a tenant; SET LOCAL has seen to it."""
    if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        await connection.rollback()


async def connect(url: str, role: Role, *, name: str = "headwater") -> Connection:
    """One connection outside any pool, for a service that keeps its own."""
    with translated():
        connection = await AsyncConnection.connect(
            url, autocommit=True, application_name=name, options=_SESSION[role], connect_timeout=10
        )
        arrays.register(connection)
        await connection.execute(SQL["log.take_role"], {"role": role})
        return connection


async def read_identity(connection: Connection) -> LogIdentity:
    """Which log a connection talks to. Raises NotInitialized."""
    with translated():
        row = await (await connection.execute(SQL["log.identity"])).fetchone()
    if row is None:
        raise errors.NotInitialized(hint="Run headwater init with an administrator's URL.")
    return LogIdentity(*row)


async def verify_login(url: str, role: Role) -> LogIdentity:
    """Which log this is; refuses a login that could step around row-level security, or that may not take the role.

    Raises RoleBypassesSecurity, RoleMissing, NotInitialized or DatabaseUnavailable.
    """
    with translated():
        connection = await AsyncConnection.connect(url, autocommit=True, connect_timeout=10)
    async with connection:
        cursor = await connection.execute(SQL["log.login"], {"role": role})
        row = await cursor.fetchone()
        assert row is not None
        login, _, superuser, bypass, member = row
        if superuser or bypass:
            what = "is a superuser" if superuser else "has BYPASSRLS"
            raise errors.RoleBypassesSecurity(
                f"The login {login!r} {what}, so row-level security does not bind it.",
                hint="Run `headwater init --login NAME` once with this URL as HEADWATER_ADMIN_DATABASE_URL, "
                "then use the new login in HEADWATER_DATABASE_URL.",
            )
        if not member:
            raise errors.RoleMissing(
                f"The login {login!r} is not a member of {role}, or the role does not exist.",
                hint=f"Run `headwater init --login {login}` with an administrator's URL.",
            )
        await connection.execute(SQL["log.take_role"], {"role": role})
        return await read_identity(connection)


__all__ = [
    "SQL",
    "Connection",
    "Database",
    "Role",
    "connect",
    "read_identity",
    "translate",
    "verify_login",
]
