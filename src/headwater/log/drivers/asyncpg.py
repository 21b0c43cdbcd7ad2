"""asyncpg: connections, and those that its pool lends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from headwater.errors import TransactionMissing
from headwater.log.driver import Answer, Request
from headwater.log.drivers import SQL
from headwater.log.drivers.heard import heard


class _Connection(Protocol):
    def is_in_transaction(self) -> bool: ...
    async def fetch(self, query: str, *parameters: str | None) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class Asyncpg:
    """Appends on an asyncpg connection."""

    connection: _Connection

    async def append(self, request: Request) -> Answer:
        """See AsyncDriver."""
        if not self.connection.is_in_transaction():
            raise TransactionMissing(hint="Use `async with connection.transaction():` around both.")
        with heard():
            rows = await self.connection.fetch(
                SQL["append.numbered"], request.tenant, request.events, request.idempotency_key
            )
        return [tuple(row) for row in rows]


def driver(connection: _Connection) -> Asyncpg:
    """The driver of a connection."""
    return Asyncpg(connection)
