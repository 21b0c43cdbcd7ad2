"""Orders of the library `eventsourcing`: an aggregate, and a projection that counts. Only for its own environment."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresTrackingRecorder
from eventsourcing.projection import Projection
from eventsourcing.utils import get_topic
from psycopg.sql import SQL


def settings(url: str, pool: int) -> dict[str, str]:
    """For `eventsourcing.postgres`: https://eventsourcing.readthedocs.io/en/stable/topics/persistence.html."""
    parts = urlsplit(url)
    asked = parse_qs(parts.query)
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": parts.path.lstrip("/"),
        "POSTGRES_HOST": asked["host"][0],
        "POSTGRES_PORT": asked["port"][0],
        "POSTGRES_USER": parts.username or "",
        "POSTGRES_PASSWORD": "none",  # it must be set; the server asks for none
        "POSTGRES_POOL_SIZE": str(pool),  # else a writer waits for another's connection
        "POSTGRES_ENABLE_DB_FUNCTIONS": "y",  # one round trip for the lock and the inserts: 1.7 times its default here
    }


class Order(Aggregate):
    """What is placed on, as a tutorial's aggregate."""

    @event("Began")
    def __init__(self) -> None:
        self.placed: tuple[str, str, str, int] | None = None

    @event("Placed")
    def place(self, order: str, customer: str, total: str, lines: int) -> None:
        """One event."""
        self.placed = (order, customer, total, lines)


class Counts(PostgresTrackingRecorder):
    """A view in Postgres, as https://eventsourcing.readthedocs.io/en/stable/topics/projection.html builds one."""

    def __init__(self, *values: Any, **named: Any) -> None:
        super().__init__(*values, **named)
        create = (
            "CREATE TABLE IF NOT EXISTS counts (stream text PRIMARY KEY, placed bigint NOT NULL)"
        )
        self.sql_create_statements.append(SQL(create).format())

    def count(self, order: str, tracking: Tracking) -> None:
        """Counts one event and notes its position, in one transaction."""
        add = "INSERT INTO counts AS c VALUES (%s, 1) ON CONFLICT (stream) DO UPDATE SET placed = c.placed + 1"
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(SQL(add), (order,), prepare=True)


class Counted(Projection[Counts]):
    """Counts events by order."""

    name = "counted"
    topics = (get_topic(Order.Placed),)  # type: ignore[attr-defined, unused-ignore]

    @singledispatchmethod
    def process_event(self, _event: Any, tracking: Tracking) -> None:
        """Counts it."""
        self.view.count(_event.order, tracking)
