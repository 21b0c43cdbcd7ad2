"""When long work may go on: in a window of the day, at a rate, and while live views keep up.

Rebuilds and backfills ask between two batches, with nothing open. So a pause holds nobody back.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from datetime import time as clock_time
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from headwater.errors import SettingError
from headwater.log.database import Database
from headwater.log.statements import Statements

SQL = Statements("headwater.operations")

_WINDOW = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])(?: (\S+))?")
_LOOK_SECONDS = 1.0
_LONGEST_SLEEP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Window:
    """A part of the day in a zone, such as 22:00 to 06:00; it may go past midnight."""

    start: clock_time
    end: clock_time
    zone: ZoneInfo

    @staticmethod
    def of(text: str) -> Window:
        """``22:00-06:00 Europe/Berlin``; without a zone UTC. Raises SettingError."""
        found = _WINDOW.fullmatch(text)
        try:
            zone = ZoneInfo((found and found[5]) or "UTC")
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise SettingError(f"There is no time zone {text!r}.", hint="Write Europe/Berlin.") from error  # fmt: skip
        if found is None or found.group(1, 2) == found.group(3, 4):
            raise SettingError(
                f"{text!r} is no window of the day.",
                hint="Write a start and another end, such as 22:00-06:00 Europe/Berlin.",
            )
        hour, minute, last_hour, last_minute = (int(part) for part in found.group(1, 2, 3, 4))
        return Window(clock_time(hour, minute), clock_time(last_hour, last_minute), zone)

    def waits(self, now: datetime) -> timedelta:
        """How long until the window is open; zero within it."""
        local = now.astimezone(self.zone)
        moment = local.time()
        if self.start < self.end:
            within = self.start <= moment < self.end
        else:
            within = moment >= self.start or moment < self.end
        if within:
            return timedelta(0)
        opens = datetime.combine(local.date(), self.start, self.zone)
        if opens <= local:
            opens = datetime.combine(local.date() + timedelta(days=1), self.start, self.zone)
        return opens.astimezone(UTC) - now.astimezone(
            UTC
        )  # in one zone Python ignores the clocks' change


@dataclass(slots=True)
class Allowance:
    """Asked before each batch of long work; returns once it may go on.

    ``rate`` is in events or rows a second, 0 for no limit. ``lag_seconds`` is how far live views that are
    driven may be behind before the work pauses, 0 for any. ``say`` hears why it waits, once for each
    reason.
    """

    database: Database
    window: Window | None = None
    rate: int = 0
    lag_seconds: float = 5.0
    say: Callable[[str], None] = lambda _: None
    now: Callable[[], datetime] = lambda: datetime.now().astimezone()
    _due: float = 0.0
    _said: str = field(default="", repr=False)

    async def __call__(self, count: int) -> None:
        """Waits until so many events or rows more may be done."""
        while (why := await self._why_not()) is not None:
            reason, seconds = why
            if reason != self._said:
                self._said = reason
                self.say(f"paused: {reason}")
            await asyncio.sleep(min(seconds, _LONGEST_SLEEP_SECONDS))
        if self._said:
            self._said = ""
            self.say("going on")
        if self.rate:
            moment = time.monotonic()
            self._due = max(self._due, moment) + count / self.rate
            await asyncio.sleep(self._due - count / self.rate - moment)

    async def _why_not(self) -> tuple[str, float] | None:
        """Why it may not go on, and for how many seconds it is no use to ask again."""
        if self.window is not None and (wait := self.window.waits(self.now())):
            opens = f"{self.window.start:%H:%M} {self.window.zone.key}"
            return f"until {opens}, when the window opens", max(wait.total_seconds(), 0.01)
        if self.lag_seconds:
            async with self.database.connection() as connection:
                row = await (await connection.execute(SQL["allowance.lag"])).fetchone()
            if row is not None and row[1] > self.lag_seconds:
                return f"the view {row[0]} is behind by more than {self.lag_seconds:g} s", _LOOK_SECONDS  # fmt: skip
        return None
