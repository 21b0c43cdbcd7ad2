"""The application: what happens to flights changes its table, and appends the fact, in one commit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from examples.airport import data
from examples.airport.app import Arrived, Cancelled, Departed, Diverted, Scheduled
from examples.airport.data import Change, Flight, Kind
from examples.airport.files import statement, tables
from headwater import App, Event, Fact, Transaction

CHANGES_PER_COMMIT = 2_000
REFERENCE_TABLES = ("airlines", "airports", "planes", "weather")


class Overtaken(Exception):
    """Another replay moved the same database on."""


class Progress(NamedTuple):
    """How far the replay is, as the database has it."""

    days: int
    changes_done: int
    seconds: float
    relay_kills: int
    token: str | None


class Lag(NamedTuple):
    """A view's checkpoint, and how many positions the log is ahead of it."""

    view: str
    position: int
    behind: int


# What happens ------------------------------------------------------------------------------------


def scheduled(flight: Flight) -> Scheduled:
    """A flight is put into the schedule."""
    return Scheduled(
        flight=flight.flight,
        carrier=flight.carrier,
        number=flight.number,
        origin=flight.origin,
        dest=flight.dest,
        tail=flight.tail,
        distance_miles=flight.distance_miles,
        departs_at=data.instant(flight.departs),
        arrives_clock=flight.arrives_clock,
    )


def departed(flight: Flight) -> Departed:
    """A flight departs; the source names the aircraft of each flight that did."""
    assert flight.tail is not None
    assert flight.departure_delay is not None
    return Departed(
        flight.flight,
        flight.carrier,
        flight.origin,
        flight.dest,
        flight.tail,
        flight.departure_delay,
    )


def arrived(flight: Flight) -> Arrived:
    """A flight arrives."""
    assert flight.tail is not None
    assert flight.arrival_clock is not None
    assert flight.arrival_delay is not None
    assert flight.air_minutes is not None
    return Arrived(
        flight.flight,
        flight.carrier,
        flight.origin,
        flight.dest,
        flight.tail,
        clock=flight.arrival_clock,
        delay_minutes=flight.arrival_delay,
        air_minutes=flight.air_minutes,
    )


def diverted(flight: Flight) -> Diverted:
    """A flight lands elsewhere."""
    assert flight.tail is not None
    return Diverted(
        flight.flight,
        flight.carrier,
        flight.origin,
        flight.dest,
        flight.tail,
        flight.arrival_clock,
    )


def cancelled(flight: Flight) -> Cancelled:
    """A flight does not depart."""
    return Cancelled(flight.flight, flight.carrier, flight.origin, flight.dest, flight.tail)


def fact(change: Change) -> Fact:
    """A change as a fact, with the instant at which it occurred where that is known."""
    minute, kind, flight = change
    match kind:
        case Kind.SCHEDULED:
            return Fact(event=scheduled(flight))
        case Kind.DEPARTED:
            return Fact(event=departed(flight), occurred_at=data.instant(minute))
        case Kind.ARRIVED:
            known = flight.arrived is not None
            return Fact(event=arrived(flight), occurred_at=data.instant(minute) if known else None)
        case Kind.DIVERTED:
            return Fact(event=diverted(flight))
        case Kind.CANCELLED:
            return Fact(event=cancelled(flight))


# The application's own table ---------------------------------------------------------------------

# In the order in which they may happen to one flight, so that several in one commit come out right.
_STATEMENTS: dict[type[Event], str] = {
    Scheduled: "schedule",
    Cancelled: "cancel",
    Departed: "depart",
    Arrived: "arrive",
    Diverted: "divert",
}


async def change_flights(tx: Transaction, facts: Sequence[Fact]) -> None:
    """Changes the flights table as the facts say, all flights of a kind in one statement."""
    for event_class, name in _STATEMENTS.items():
        rows = [_row(fact) for fact in facts if type(fact.event) is event_class]
        if rows:
            encoded = msgspec.json.encode(rows).decode()
            cursor = await tx.connection.execute(statement(name), {"rows": encoded}, prepare=True)
            if cursor.rowcount != len(rows):
                raise Overtaken(f"{len(rows)} flights should {name}, but {cursor.rowcount} could.")


def _row(of: Fact) -> dict[str, Any]:
    return {**msgspec.structs.asdict(of.event), "at": of.occurred_at}


# The replay --------------------------------------------------------------------------------------


async def prepare(app: App, days: int) -> Progress:
    """Creates and fills the application's tables, where they are not; how far the replay is."""
    async with app.transaction() as tx:
        await tx.connection.execute(tables())
        cursor = await tx.connection.execute(statement("is_loaded"))
        if await cursor.fetchone() == (False,):
            for table in REFERENCE_TABLES:
                async with tx.connection.cursor().copy(statement(f"load_{table}")) as copy:
                    await copy.write(data.reference(table))
        await tx.connection.execute(statement("begin"), {"days": days})
    return await progress(app)


async def progress(app: App) -> Progress:
    """How far the replay is."""
    async with app.transaction() as tx:
        row = await (await tx.connection.execute(statement("progress"))).fetchone()
    assert row is not None
    return Progress(*row)


def commits(changes: Sequence[Change], done: int) -> Iterator[tuple[int, Sequence[Change]]]:
    """What is left to do, cut into commits: where each starts, and its changes."""
    for start in range(done, len(changes), CHANGES_PER_COMMIT):
        yield start, changes[start : start + CHANGES_PER_COMMIT]


async def commit(app: App, start: int, changes: Sequence[Change], seconds: float) -> str:
    """Makes changes happen: table, facts and the replay's own progress in one transaction.

    ``seconds`` is the time since the last commit, for the record. Returns the token to read by.
    Raises Overtaken, and then nothing happened.
    """
    facts = [fact(change) for change in changes]
    async with app.transaction() as tx:
        await change_flights(tx, facts)
        token = (await tx.append(*facts)).token
        moved = await tx.connection.execute(
            statement("go_on"),
            {"from": start, "to": start + len(changes), "seconds": seconds, "token": token},
        )
        if moved.rowcount != 1:
            raise Overtaken("Another replay is under way in this database.")
    return token


async def relay_killed(app: App) -> int:
    """Notes that the relay was killed, so that a replay that goes on does not do it again."""
    async with app.transaction() as tx:
        row = await (await tx.connection.execute(statement("relay_killed"))).fetchone()
    assert row is not None
    kills: int = row[0]
    return kills


async def lag(app: App) -> list[Lag]:
    """How far each view is behind the log."""
    async with app.transaction() as tx:
        rows = await (
            await tx.connection.execute(statement("lag"), {"views": app.views})
        ).fetchall()
    return [Lag(*row) for row in rows]
