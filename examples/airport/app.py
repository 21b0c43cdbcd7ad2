"""The airport's events and views."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from headwater import App, Document, Event

VIEWS = Path(__file__).parent / "sql" / "views"

Clock = Annotated[int, Meta(ge=0, le=2400)]
"""A clock reading at an airport as hhmm, of a day and a time zone that the fact does not tell."""


class Scheduled(Event, type="flight.scheduled", stream="flight/{flight}"):
    """A flight is planned. Not every flight has an aircraft yet, and some never get one."""

    flight: str
    carrier: str
    number: int
    origin: str
    dest: str
    tail: str | None
    distance_miles: int
    departs_at: datetime
    arrives_clock: Clock


class Departed(Event, type="flight.departed", stream="flight/{flight}"):
    """A flight left the gate; the delay is negative when it left early."""

    flight: str
    carrier: str
    origin: str
    dest: str
    tail: str
    delay_minutes: int


class Arrived(Event, type="flight.arrived", stream="flight/{flight}"):
    """A flight reached its destination."""

    flight: str
    carrier: str
    origin: str
    dest: str
    tail: str
    clock: Clock
    delay_minutes: int
    air_minutes: int


class Diverted(Event, type="flight.diverted", stream="flight/{flight}"):
    """A flight departed and landed elsewhere; some have a time of arrival all the same."""

    flight: str
    carrier: str
    origin: str
    dest: str
    tail: str
    clock: Clock | None


class Cancelled(Event, type="flight.cancelled", stream="flight/{flight}"):
    """A flight that did not depart."""

    flight: str
    carrier: str
    origin: str
    dest: str
    tail: str | None


app = App("airport", events=[Scheduled, Departed, Arrived, Diverted, Cancelled], tenant="new-york")


class CarrierDelays(Struct):
    """How late a carrier's flights departed."""

    carrier: str
    departures: int
    cancellations: int
    delay_minutes: Decimal | None
    mean_delay_minutes: Decimal | None
    longest_delay_minutes: int | None


class Route(Struct):
    """What became of the flights between two airports."""

    origin: str
    dest: str
    arrivals: int
    diversions: int
    mean_air_minutes: Decimal | None
    mean_delay_minutes: Decimal | None


class AirportHour(Struct):
    """An airport's traffic in one hour; the hour is None where the instant is unknown."""

    airport: str
    hour: datetime | None
    departures: int
    arrivals: int
    mean_departure_delay_minutes: Decimal | None


carrier_delays = app.sql(
    "carrier_delays", row=CarrierDelays, key=["carrier"], sql=VIEWS / "carrier_delays.sql"
)
routes = app.sql("routes", row=Route, key=["origin", "dest"], sql=VIEWS / "routes.sql")
airport_hours = app.sql(
    "airport_hours", row=AirportHour, key=["airport", "hour"], sql=VIEWS / "airport_hours.sql"
)


class Aircraft(Document, frozen=True):
    """Where an aircraft was last and what it has flown, told by its flights from New York."""

    airport: str | None = None
    flights: int = 0
    minutes_flown: int = 0
    last_delay_minutes: int | None = None


@app.fold(key="tail")
def aircraft(state: Aircraft, event: Departed | Arrived) -> Aircraft:
    """One document per tail number. A diverted aircraft was last seen where it departed."""
    if isinstance(event, Departed):
        return state.but(
            airport=event.origin, flights=state.flights + 1, last_delay_minutes=event.delay_minutes
        )
    return state.but(
        airport=event.dest,
        minutes_flown=state.minutes_flown + event.air_minutes,
        last_delay_minutes=event.delay_minutes,
    )
