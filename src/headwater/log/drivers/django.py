"""Django: ``django.db.connection``, or another of its connections, inside ``atomic``."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from headwater.errors import TransactionMissing
from headwater.log.driver import Call, Rows
from headwater.log.drivers import formatted
from headwater.log.drivers.heard import heard


class _Connection(Protocol):
    in_atomic_block: bool

    def cursor(self) -> AbstractContextManager[Any]: ...


@dataclass(frozen=True, slots=True)
class Django:
    """Runs calls on a connection of Django's."""

    connection: _Connection

    def run(self, call: Call) -> Rows:
        """See BlockingDriver."""
        if not self.connection.in_atomic_block:
            raise TransactionMissing(hint="Use `with transaction.atomic():` around both.")
        with heard(), self.connection.cursor() as cursor:
            cursor.execute(formatted(call), call.parameters)
            rows: Rows = cursor.fetchall()
        return rows


def driver(connection: _Connection) -> Django:
    """The driver of a connection."""
    return Django(connection)
