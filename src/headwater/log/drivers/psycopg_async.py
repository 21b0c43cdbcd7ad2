"""psycopg 3, asynchronous. Appends take Headwater's own way, see Writer; what else is called comes here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from headwater.errors import TransactionMissing
from headwater.log.driver import Call, Rows
from headwater.log.drivers import formatted
from headwater.log.drivers.heard import heard


@dataclass(frozen=True, slots=True)
class AsyncPsycopg:
    """Runs calls on an asynchronous connection."""

    connection: AsyncConnection[Any]

    async def run(self, call: Call) -> Rows:
        """See AsyncDriver."""
        connection = self.connection
        if connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
            raise TransactionMissing(hint="Use `async with connection.transaction():` around both.")
        with heard():
            async with connection.cursor(row_factory=tuple_row) as cursor:
                await cursor.execute(formatted(call).encode(), call.parameters)
                return await cursor.fetchall()


def driver(connection: AsyncConnection[Any]) -> AsyncPsycopg:
    """The driver of a connection."""
    return AsyncPsycopg(connection)
