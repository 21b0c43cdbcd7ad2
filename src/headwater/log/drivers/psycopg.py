"""psycopg 3, blocking. Its asynchronous connections take Headwater's own way, see Writer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import Connection
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from headwater.errors import TransactionMissing
from headwater.log.driver import Call, Rows
from headwater.log.drivers import formatted
from headwater.log.drivers.heard import heard


@dataclass(frozen=True, slots=True)
class Psycopg:
    """Runs calls on a blocking connection."""

    connection: Connection[Any]

    def run(self, call: Call) -> Rows:
        """See BlockingDriver."""
        if (
            self.connection.autocommit
            and self.connection.info.transaction_status == TransactionStatus.IDLE
        ):
            raise TransactionMissing(hint="Use `with connection.transaction():` around both.")
        with heard(), self.connection.cursor(row_factory=tuple_row) as cursor:
            cursor.execute(formatted(call).encode(), call.parameters)
            return cursor.fetchall()


def driver(connection: Connection[Any]) -> Psycopg:
    """The driver of a connection."""
    return Psycopg(connection)
