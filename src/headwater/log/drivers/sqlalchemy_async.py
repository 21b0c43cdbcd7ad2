"""SQLAlchemy 2: asynchronous sessions and connections, which need more of it than blocking ones."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from headwater.log.driver import Answer, Request
from headwater.log.drivers.heard import heard
from headwater.log.drivers.sqlalchemy import APPEND


@dataclass(frozen=True, slots=True)
class AsyncSqlAlchemy:
    """Appends in a session's or connection's transaction, which a first statement begins."""

    session: AsyncSession | AsyncConnection

    async def append(self, request: Request) -> Answer:
        """See AsyncDriver. What the session holds back is flushed first, in the order of the code."""
        with heard():
            if not isinstance(self.session, AsyncConnection):
                await self.session.flush()
            result = await self.session.execute(APPEND, msgspec.structs.asdict(request))
        return [(row[0], row[1], row[2], row[3]) for row in result]


def driver(session: AsyncSession | AsyncConnection) -> AsyncSqlAlchemy:
    """The driver of a session or connection."""
    return AsyncSqlAlchemy(session)
