"""SQLAlchemy 2: blocking sessions and connections, whatever driver is below them."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from headwater.log.driver import Answer, Request
from headwater.log.drivers import SQL
from headwater.log.drivers.heard import heard

APPEND = text(SQL["append.named"])


@dataclass(frozen=True, slots=True)
class SqlAlchemy:
    """Appends in a session's or connection's transaction, which a first statement begins."""

    session: Session | Connection

    def append(self, request: Request) -> Answer:
        """See BlockingDriver. What the session holds back is flushed first, in the order of the code."""
        with heard():
            if not isinstance(self.session, Connection):
                self.session.flush()
            result = self.session.execute(APPEND, msgspec.structs.asdict(request))
        return [(row[0], row[1], row[2], row[3]) for row in result]


def driver(session: Session | Connection) -> SqlAlchemy:
    """The driver of a session or connection."""
    return SqlAlchemy(session)
