"""When a schedule runs: cron or an interval, in a time zone; and what becomes of runs that were missed. Pure.

Cron is Debian's, by cronsim. Where clocks go forward, a run planned for an hour that is skipped is at once
after it; where they go back, a run at a fixed hour is not repeated, and one of every hour or minute goes on by
the time that passes. Intervals count from 1970 in UTC, so they know no such hour.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from headwater.errors import JobDefinitionError
from headwater.events import Event
from headwater.log.enqueuing import Enqueue

Missed = Literal["skip", "once", "all"]
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


class ScheduleRan(Event, type="schedule.ran", stream="schedule/{schedule}"):
    """A run of a schedule has ended: what it was planned for, how long its last attempt took, what came of it."""

    schedule: str
    planned: datetime
    job: int
    outcome: Literal["done", "dead", "cancelled"]
    seconds: float
    attempts: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """A job that is enqueued at planned times, one run at a time.

    Runs missed, since nobody worked or the run before took too long: ``skip`` leaves those out that are more
    than ``late_seconds`` late, ``once`` makes up for all of them by the last, ``all`` runs each. Each run is
    put off by up to ``jitter_seconds``.
    """

    name: str
    job: Enqueue
    tenant: str | None = None
    cron: str | None = None
    every_seconds: float | None = None
    zone: str = "UTC"
    missed: Missed = "once"
    late_seconds: float = 60.0
    jitter_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise JobDefinitionError(
                f"The schedule's name {self.name!r} is malformed.",
                hint="Use up to 63 lower-case letters, digits, _ and -, a letter first.",
            )
        if (self.cron is None) == (self.every_seconds is None):
            raise JobDefinitionError(
                f"The schedule {self.name!r} does not say when it runs.",
                hint="Give it cron or every_seconds, and not both.",
            )
        if self.every_seconds is not None and self.every_seconds < 1:
            raise JobDefinitionError(
                f"The schedule {self.name!r} runs more than once a second.",
                hint="Use every_seconds=1 or more.",
            )
        try:
            self.after(datetime(2026, 1, 1, tzinfo=UTC))
        except (CronSimError, ZoneInfoNotFoundError, ValueError, StopIteration) as error:
            raise JobDefinitionError(
                f"The schedule {self.name!r} cannot be read: {str(error) or type(error).__name__}.",
                hint="Cron has five fields, such as 30 3 * * MON; zones are named as Europe/Berlin.",
            ) from error

    def after(self, moment: datetime) -> datetime:
        """The first planned time after a moment, in UTC."""
        if self.every_seconds is not None:
            times = int(moment.timestamp() // self.every_seconds) + 1
            return datetime.fromtimestamp(times * self.every_seconds, UTC)
        assert self.cron is not None
        found: datetime = next(CronSim(self.cron, moment.astimezone(ZoneInfo(self.zone))))
        return found.astimezone(UTC)

    def turn(self, planned: datetime, now: datetime) -> tuple[datetime | None, datetime]:
        """At a time that a run is due: which planned time is run, None where it is left out; and the next."""
        if self.missed == "all":
            return planned, self.after(planned)
        last = planned
        while (following := self.after(last)) <= now:
            last = following
            if self.every_seconds is not None:
                last = max(last, self.after(now - timedelta(seconds=self.every_seconds)))
        late = (now - last).total_seconds() > self.late_seconds + self.jitter_seconds
        return None if self.missed == "skip" and late else last, following

    def due(self, planned: datetime, chance: float | None = None) -> datetime:
        """When the run of a planned time begins."""
        drawn = random.random() if chance is None else chance  # noqa: S311 - no secret
        return planned + timedelta(seconds=self.jitter_seconds * drawn)

    @property
    def definition(self) -> dict[str, object]:
        """As it is listed."""
        when = self.cron if self.cron is not None else f"every {self.every_seconds:g} s"
        return {"when": when, "zone": self.zone, "missed": self.missed, "queue": self.job.queue, "job": self.job.job}  # fmt: skip
