"""A recorder of the library eventsourcing over Headwater's public SQL, for that library's own tests.

A sequence is a stream. Notification ids are positions, counted from the first of the log. An insert returns once readers may
see it, so that whoever inserted reads it.
"""

from __future__ import annotations

import time
from base64 import b64decode, b64encode

import msgspec
import psycopg
from eventsourcing.persistence import (
    ApplicationRecorder,
    IntegrityError,
    Notification,
    StoredEvent,
    Subscription,
)
from psycopg_pool import ConnectionPool

from headwater import Event

TENANT = "main"
LOOK_SECONDS = 0.001
READ_AT_ONCE = 1_000


class Stored(Event, type="peer.stored", stream="peer/{originator}"):
    """What the library stores: a topic, and a state that is bytes."""

    originator: str
    version: int
    topic: str
    state: str


class HeadwaterRecorder(ApplicationRecorder):
    """Inserts, selects, notifies and subscribes by plain SQL, in the application's role."""

    def __init__(self, url, originators):
        self._originators = originators
        self._pool = ConnectionPool(url, min_size=1, max_size=12, open=True)
        with self._connection() as connection:
            (self._before,) = connection.execute("SELECT headwater.safe_position()").fetchone()

    def close(self):
        self._pool.close()

    def _connection(self):
        return Within(self._pool)

    def insert_events(self, stored_events, **_):
        if not stored_events:
            return []
        try:
            with self._connection() as connection:
                rows = connection.execute(
                    "SELECT position FROM headwater.append_many(%s::jsonb)",
                    [msgspec.json.encode(self._facts(connection, stored_events)).decode()],
                ).fetchall()
        except psycopg.Error as error:
            if error.sqlstate == "HW001":
                raise IntegrityError(str(error)) from error
            raise
        positions = [position for (position,) in rows]
        self._until_shown(positions[-1])
        return [position - self._before for position in positions]

    def _facts(self, connection, stored_events):
        """The library's sequences may begin at 0 or at 1, or anywhere; a stream's versions begin at 1."""
        begins = {}
        facts = []
        for event in stored_events:
            originator = str(event.originator_id)
            if originator not in begins:
                found = connection.execute(
                    "SELECT (data->>'version')::int FROM headwater.events WHERE stream = %s AND version = 1",
                    [f"peer/{originator}"],
                ).fetchone()
                begins[originator] = event.originator_version if found is None else found[0]
            facts.append({
                "stream": f"peer/{originator}",
                "type": "peer.stored",
                "expected_version": event.originator_version - begins[originator],
                "data": {
                    "originator": originator,
                    "version": event.originator_version,
                    "topic": event.topic,
                    "state": b64encode(event.state).decode(),
                },
            })  # fmt: skip
        return facts

    def _until_shown(self, position):
        while True:
            with self._connection() as connection:
                (safe,) = connection.execute("SELECT headwater.safe_position()").fetchone()
            if safe >= position:
                return
            time.sleep(LOOK_SECONDS)

    def select_events(self, originator_id, *, gt=None, lte=None, desc=False, limit=None):
        order = "DESC" if desc else "ASC"
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT data FROM headwater.events WHERE stream = %(stream)s"
                " AND (%(gt)s::int IS NULL OR (data->>'version')::int > %(gt)s)"
                " AND (%(lte)s::int IS NULL OR (data->>'version')::int <= %(lte)s)"
                f" ORDER BY version {order} LIMIT %(limit)s",
                {"stream": f"peer/{originator_id}", "gt": gt, "lte": lte, "limit": limit},
            ).fetchall()
        return [StoredEvent(originator_id, d["version"], d["topic"], b64decode(d["state"])) for (d,) in rows]  # fmt: skip

    def select_notifications(self, start, limit, stop=None, topics=(), *, inclusive_of_start=True):
        after = 0 if start is None else start - inclusive_of_start
        found = []
        while len(found) < limit:
            with self._connection() as connection:
                rows = connection.execute(
                    "SELECT position, data FROM headwater.read(%s, %s)",
                    [self._before + after, min(limit, READ_AT_ONCE)],
                ).fetchall()
            if not rows:
                break
            for position, data in rows:
                after = position - self._before
                if stop is not None and after > stop:
                    return found
                if (not topics or data["topic"] in topics) and len(found) < limit:
                    found.append(Notification(self._originators(data["originator"]), data["version"], data["topic"], b64decode(data["state"]), id=after))  # fmt: skip
        return found

    def max_notification_id(self):
        with self._connection() as connection:
            (safe,) = connection.execute("SELECT headwater.safe_position()").fetchone()
            (newest,) = connection.execute(
                "SELECT max(position) FROM headwater.events WHERE position <= %s", [safe]
            ).fetchone()
        return None if newest is None else newest - self._before

    def subscribe(self, gt=None, topics=()):
        return HeadwaterSubscription(recorder=self, gt=gt, topics=topics)


class OneAtATime(HeadwaterRecorder):
    """Inserts wait for each other, so that the ids of one are apart from those of another."""

    def _facts(self, connection, stored_events):
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('peer inserts'))")
        return super()._facts(connection, stored_events)


class HeadwaterSubscription(Subscription):
    """Reads on from where it is, until it is stopped."""

    def __init__(self, **asked):
        super().__init__(**asked)
        self._found = []

    def __next__(self):
        while not self._has_been_stopped:
            if self._found:
                notification = self._found.pop(0)
                self._last_notification_id = notification.id
                return notification
            self._found = self._recorder.select_notifications(
                self._last_notification_id, READ_AT_ONCE, topics=self._topics, inclusive_of_start=False
            )  # fmt: skip
            if not self._found:
                time.sleep(LOOK_SECONDS)
        raise StopIteration


class Within:
    """A transaction of the application's role, for one tenant."""

    def __init__(self, pool):
        self._lent = pool.connection()

    def __enter__(self):
        connection = self._lent.__enter__()
        connection.execute("SET LOCAL ROLE headwater_app")
        connection.execute("SELECT set_config('headwater.tenant', %s, true)", [TENANT])
        return connection

    def __exit__(self, *how):
        return self._lent.__exit__(*how)
