"""Django: ``django.db.connection``, or another of its connections, inside ``atomic``."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from headwater.errors import TransactionMissing
from headwater.log.driver import Answer, Request
from headwater.log.drivers import SQL
from headwater.log.drivers.heard import heard


class _Connection(Protocol):
    in_atomic_block: bool

    def cursor(self) -> AbstractContextManager[Any]: ...


@dataclass(frozen=True, slots=True)
class Django:
    """Appends on a connection of Django's."""

    connection: _Connection

    def append(self, request: Request) -> Answer:
        """See BlockingDriver."""
        if not self.connection.in_atomic_block:
            raise TransactionMissing(hint="Use `with transaction.atomic():` around both.")
        with heard(), self.connection.cursor() as cursor:
            cursor.execute(SQL["append.formatted"], msgspec.structs.asdict(request))
            rows: Answer = cursor.fetchall()
        return rows


def driver(connection: _Connection) -> Django:
    """The driver of a connection."""
    return Django(connection)
