"""What a run of an instance reads and records, under its job and fence."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from headwater.events import Event, EventType, EventTypes, encode
from headwater.jobs.taken import RunningJob
from headwater.log.carrying import carried
from headwater.log.enqueuing import Enqueue
from headwater.log.failures import translated
from headwater.log.writing import enqueue
from headwater.sagas.events import RECORDED
from headwater.sagas.statements import SQL

TYPES = EventTypes(RECORDED)


@dataclass(frozen=True, slots=True)
class Other:
    """An event that a record points to."""

    type: str
    schema_version: int
    data: str

    def event(self, types: EventTypes) -> Event:
        """The event itself. Raises UnknownEventType or msgspec.ValidationError."""
        return types.named(self.type).decode(self.data, self.schema_version)


@dataclass(frozen=True, slots=True)
class Answer:
    """What has come for a step: an event, or ``late``, that its time is over and none came."""

    step: int
    late: bool
    position: int | None
    other: Other | None


@dataclass(slots=True)
class Record:
    """The stream of one instance, as far as this run knows it."""

    saga: str
    instance: str
    job: RunningJob
    version: int = 0
    standing: str = "unknown"
    others: dict[int, Other] = field(default_factory=dict)
    first: tuple[datetime, int] | None = None
    """When it was started, and the position of that record."""
    correlation: str | None = None
    """What the instance belongs to, as its start says."""
    _offset: tuple[datetime, float] | None = None

    def now(self) -> datetime:
        """The moment, by the database's clock."""
        assert self._offset is not None
        moment, at = self._offset
        return moment + timedelta(seconds=time.monotonic() - at)

    async def begin(self, *, timer: bool = False) -> list[Event]:
        """Takes the instance for this job, and returns what its stream holds beyond what is known."""
        asked = self._named() | {"timer": timer, "after": self.version}
        async with self.job.relay_database.connection() as connection:
            cursor = await connection.execute(SQL["sagas.begin"], asked, prepare=True)
            rows = await cursor.fetchall()
        self.standing = rows[0][0]
        self._offset = rows[0][1], time.monotonic()
        events: list[Event] = []
        for _, _, version, type_, data, metadata, recorded_at, position, *other in rows:
            if version is None:
                continue
            event = TYPES.named(type_).decode(data)
            if other[0] is not None:
                self.others[event.position] = Other(*other)  # type: ignore[attr-defined]
            if self.first is None:
                self.first = recorded_at, position
                self.correlation = msgspec.json.decode(metadata).get(
                    "correlation", self.correlation
                )
            self.version = version
            events.append(event)
        return events

    async def write(
        self,
        *events: Event,
        state: str | None = None,
        detail: str | None = None,
        todo: str | None = None,
        due: datetime | None = None,
        release: bool = False,
        jobs: Sequence[Enqueue] = (),
    ) -> bool:
        """Records events, and how the instance stands, and creates jobs with them; whether it was let go.

        Raises LeaseLost where another job runs it, and VersionConflict where somebody else has recorded something.
        """
        metadata = carried(None) or {}
        told = [
            {
                "type": EventType.of(type(event)).name,
                "data": msgspec.Raw(encode(event)),
                "metadata": metadata,
            }
            for event in events
        ]
        asked = self._named() | {
            "expected": self.version,
            "events": msgspec.json.encode(told).decode(),
            "state": state,
            "detail": detail,
            "todo": todo,
            "due": due,
            "release": release,
        }
        database = self.job.relay_database
        async with database.transaction() if jobs else database.connection() as connection:
            with translated():
                cursor = await connection.execute(SQL["sagas.record"], asked, prepare=True)
                row = await cursor.fetchone()
                if jobs:
                    await enqueue(connection, self.job.tenant, jobs, {})
        self.version += len(events)
        return bool(row and row[0])

    async def answers(self, steps: Sequence[int], overdue: Sequence[int]) -> list[Answer]:
        """What has come for steps that wait."""
        asked = self._named() | {"steps": list(steps), "overdue": list(overdue)}
        async with self.job.relay_database.connection() as connection:
            cursor = await connection.execute(SQL["sagas.answers"], asked, prepare=True)
            rows = await cursor.fetchall()
        found = []
        for step, late, position, *other in rows:
            if position is not None:
                self.others[position] = Other(*other)
            found.append(Answer(step, late, position, self.others.get(position)))
        return found

    def _named(self) -> dict[str, Any]:
        return {
            "tenant": self.job.tenant,
            "saga": self.saga,
            "instance": self.instance,
            "job": self.job.id,
            "fence": self.job.fence,
        }
