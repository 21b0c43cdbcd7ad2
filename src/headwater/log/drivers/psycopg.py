"""psycopg 3, blocking. Its asynchronous connections take Headwater's own way, see Writer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from psycopg import Connection
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from headwater.errors import TransactionMissing
from headwater.log.driver import Answer, Request
from headwater.log.drivers import SQL
from headwater.log.drivers.heard import heard


@dataclass(frozen=True, slots=True)
class Psycopg:
    """Appends on a blocking connection."""

    connection: Connection[Any]

    def append(self, request: Request) -> Answer:
        """See BlockingDriver."""
        if (
            self.connection.autocommit
            and self.connection.info.transaction_status == TransactionStatus.IDLE
        ):
            raise TransactionMissing(hint="Use `with connection.transaction():` around both.")
        with heard(), self.connection.cursor(row_factory=tuple_row) as cursor:
            cursor.execute(SQL["append.formatted"], msgspec.structs.asdict(request))
            return cursor.fetchall()


def driver(connection: Connection[Any]) -> Psycopg:
    """The driver of a connection."""
    return Psycopg(connection)
