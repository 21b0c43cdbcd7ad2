"""SQLAlchemy 2: asynchronous sessions and connections, which need more of it than blocking ones."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from headwater.log.driver import Call, Rows
from headwater.log.drivers import named
from headwater.log.drivers.heard import heard


@dataclass(frozen=True, slots=True)
class AsyncSqlAlchemy:
    """Runs calls in a session's or connection's transaction, which a first statement begins."""

    session: AsyncSession | AsyncConnection

    async def run(self, call: Call) -> Rows:
        """See AsyncDriver. What the session holds back is flushed first, in the order of the code."""
        with heard():
            if not isinstance(self.session, AsyncConnection):
                await self.session.flush()
            result = await self.session.execute(text(named(call)), call.parameters)
        return [tuple(row) for row in result]


def driver(session: AsyncSession | AsyncConnection) -> AsyncSqlAlchemy:
    """The driver of a session or connection."""
    return AsyncSqlAlchemy(session)
