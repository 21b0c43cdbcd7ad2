"""The checks: each a query that gives one number, and the number that it should give.

The queries read the log, the application's table and the views by hand-written SQL; the numbers come
from the source. Where none is expected, a query counts what is wrong.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from examples.airport.data import DAYS, Flight
from examples.airport.files import queries
from headwater import App

MEAN_TOLERANCE_MINUTES = Decimal("0.001")

# What the source is known for. A shorter replay's numbers are counted in the source.
YEAR: Mapping[str, Decimal] = {
    "events": Decimal(1_002_073),
    "flights": Decimal(336_776),
    "never_departed": Decimal(8_255),
    "departed_without_arrival_delay": Decimal(1_175),
    "departed_without_arrival_time": Decimal(458),
    "without_tail_number": Decimal(2_512),
    "mean_departure_delay_in_the_table": Decimal("12.639"),
    "mean_departure_delay_in_the_view": Decimal("12.639"),
}


class Check(NamedTuple):
    """What was checked, and what came out. Without numbers, the answer is yes or no."""

    name: str
    passed: bool
    found: Decimal | None = None
    expected: Decimal | None = None


def expectations(flights: Sequence[Flight], days: int) -> Mapping[str, Decimal]:
    """The numbers that the checks should find."""
    if days == DAYS:
        return YEAR
    delays = [flight.departure_delay for flight in flights if flight.departure_delay is not None]
    gone = [flight for flight in flights if flight.departure_delay is not None]
    mean = Fraction(sum(delays), len(delays))
    mean_delay = Decimal(mean.numerator) / Decimal(mean.denominator)
    return {
        "events": Decimal(2 * len(flights) + len(gone)),
        "flights": Decimal(len(flights)),
        "never_departed": Decimal(len(flights) - len(gone)),
        "departed_without_arrival_delay": Decimal(sum(f.arrival_delay is None for f in gone)),
        "departed_without_arrival_time": Decimal(sum(f.arrival_clock is None for f in gone)),
        "without_tail_number": Decimal(sum(f.tail is None for f in flights)),
        "mean_departure_delay_in_the_table": mean_delay,
        "mean_departure_delay_in_the_view": mean_delay,
    }


async def checks(app: App, expected: Mapping[str, Decimal]) -> AsyncIterator[Check]:
    """Runs every check, one after the other, those with numbers from the source first."""
    found_by = queries("checks")
    for name in sorted(found_by, key=lambda name: name not in expected):
        async with app.transaction() as tx:
            row = await (await tx.connection.execute(found_by[name].encode())).fetchone()
        assert row is not None
        found = Decimal(row[0]) if row[0] is not None else Decimal("NaN")
        wanted = expected.get(name, Decimal(0))
        tolerance = MEAN_TOLERANCE_MINUTES if name.startswith("mean_") else 0
        yield Check(name, abs(found - wanted) <= tolerance, found, wanted)
