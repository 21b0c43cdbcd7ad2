"""SQLAlchemy 2: blocking sessions and connections, whatever driver is below them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from headwater.log.driver import Call, Rows
from headwater.log.drivers import named
from headwater.log.drivers.heard import heard


@dataclass(frozen=True, slots=True)
class SqlAlchemy:
    """Runs calls in a session's or connection's transaction, which a first statement begins."""

    session: Session | Connection

    def run(self, call: Call) -> Rows:
        """See BlockingDriver. What the session holds back is flushed first, in the order of the code."""
        with heard():
            if not isinstance(self.session, Connection):
                self.session.flush()
            result = self.session.execute(text(named(call)), call.parameters)
        return [tuple(row) for row in result]


def driver(session: Session | Connection) -> SqlAlchemy:
    """The driver of a session or connection."""
    return SqlAlchemy(session)
