"""A shop whose folds other processes find by their names, to be rebuilt by several of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from uuid import UUID

from headwater import App, Document, Event, Settings
from headwater.stores.redis import Redis

PARKED_BELOW = 0
"""Totals below are refused: their keys are parked."""


class Placed(Event, type="order.placed", stream="order/{order}"):
    order: str
    total: int


class Scanned(Event, type="parcel.scanned", stream="parcel/{parcel}"):
    parcel: UUID
    grams: int


class Order(Document):
    total: int = 0
    events: int = 0


class Parcel(Document):
    grams: int = 0
    scans: int = 0


def _killed_where_told(order: str) -> None:
    """Kills this process, once, at the order that the environment names."""
    at, file = os.environ.get("SLICED_KILL_AT"), os.environ.get("SLICED_KILL_FILE")
    if at == order and file and Path(file).exists():
        Path(file).unlink()
        os.kill(os.getpid(), signal.SIGKILL)


app = App("sliced", events=[Placed, Scanned], tenant="main", settings=Settings())


@app.fold(key="order")
def orders(state: Order, event: Placed) -> Order:
    _killed_where_told(event.order)
    if event.total < PARKED_BELOW:
        raise ValueError("no order is worth less than nothing")
    return state.but(total=state.total + event.total, events=state.events + 1)


@app.fold(key="parcel")
def parcels(state: Parcel, event: Scanned) -> Parcel:
    return state.but(grams=event.grams, scans=state.scans + 1)


@app.fold(key="order", store=Redis("fast"))
def fast_orders(state: Order, event: Placed) -> Order:
    _killed_where_told(event.order)
    return state.but(total=state.total + event.total, events=state.events + 1)


def opened(url: str, redis: str = "", **settings: object) -> App:
    """The shop at these servers: the same declarations, in an app of its own."""
    made = App(
        "sliced", events=[Placed, Scanned], tenant="main",
        settings=Settings(database_url=url, stores={"fast": redis} if redis else {}, **settings),
    )  # fmt: skip
    made.declare(orders.fold)
    made.declare(parcels.fold)
    if redis:
        made.fold(key="order", store=Redis("fast"))(fast_orders.fold.evolve)
    return made
