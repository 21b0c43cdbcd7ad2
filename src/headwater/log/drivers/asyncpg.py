"""asyncpg: connections, and those that its pool lends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from headwater.errors import TransactionMissing
from headwater.log.driver import Call, Rows
from headwater.log.drivers import numbered
from headwater.log.drivers.heard import heard


class _Connection(Protocol):
    def is_in_transaction(self) -> bool: ...
    async def fetch(self, query: str, *parameters: str | None) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class Asyncpg:
    """Runs calls on an asyncpg connection."""

    connection: _Connection

    async def run(self, call: Call) -> Rows:
        """See AsyncDriver."""
        if not self.connection.is_in_transaction():
            raise TransactionMissing(hint="Use `async with connection.transaction():` around both.")
        with heard():
            statement, parameters = numbered(call)
            rows = await self.connection.fetch(statement, *parameters)
        return [tuple(row) for row in rows]


def driver(connection: _Connection) -> Asyncpg:
    """The driver of a connection."""
    return Asyncpg(connection)
