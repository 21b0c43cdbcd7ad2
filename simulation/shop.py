"""The app of the simulated installation: a view of every kind in every store, jobs, sagas and a person's data.

Annotations are evaluated where they stand, since ``make`` gives functions the version of an event that its app declares.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from headwater import (
    App,
    Command,
    Document,
    Event,
    Rejection,
    Retry,
    Saga,
    SagaFailed,
    Undo,
    this_job,
)
from headwater.app import FoldView, RowsView
from headwater.events import Personal
from headwater.jobs.job import Job
from headwater.log.enqueuing import Enqueue
from headwater.log.statements import Statements
from headwater.stores.clickhouse import ClickHouse
from headwater.stores.lake import Lake
from headwater.stores.redis import Redis

SQL = Statements("simulation")
TENANTS = ("north", "south", "east")
PERSONS = ("ada", "bob", "cy", "di")
VIEWS = (
    "folded", "fast", "summed", "receipt", "archive", "analytic", "typed", "known", "known_fast", "stock", "orders", "sagas",
)  # fmt: skip
NEWER_VIEWS = ("spread",)
"""What is there once the newer app is deployed."""
DERIVED_EVERY = 3
"""Of so many events one has a job derived from it."""
CAPTURED = "public.goods"
PATIENCE_SECONDS = 6.0
"""How long an order waits to be confirmed."""
AGAIN = Retry(attempts=500, first_seconds=0.1, factor=1)


class Noted(Event, type="shop.noted", stream="line/{line}"):
    """``mark`` tells it from every other.

    ``beside`` says that a job was created in its transaction, ``claim`` that a command decided on it.
    """

    line: str
    mark: str
    amount: int
    beside: bool = False
    claim: bool = False


class NotedNewer(Event, type="shop.noted", stream="line/{line}", version=2):
    """The same in the newer app."""

    line: str
    mark: str
    amount: int
    beside: bool = False
    claim: bool = False
    by: str = "nobody"


class Signed(Event, type="shop.signed", stream="person/{who}"):
    """What a person said; ``SECRET`` says what that is."""

    who: str
    mark: str
    said: Annotated[str, Personal("who")]


class Ordered(Event, type="shop.ordered", stream="order/{order}"):
    """Starts a saga, which fails once it has paid if the order says so."""

    order: str
    mark: str
    fails: bool


class Confirmed(Event, type="shop.confirmed", stream="order/{order}"):
    """What the saga waits for."""

    order: str
    mark: str


class Closed(Event, type="shop.closed", stream="order/{order}"):
    """What a saga ends with where all went well."""

    order: str


class Reserved(Event, type="shop.reserved", stream="stock/{item}"):
    """A saga's first step."""

    item: str
    order: str


class Released(Event, type="shop.released", stream="stock/{item}"):
    """It was undone."""

    item: str
    order: str


class Claim(Command, stream="line/{line}"):
    """Claims a line that nobody has claimed."""

    line: str
    mark: str
    amount: int


class Reserve(Command, stream="stock/{item}"):
    """See Reserved."""

    item: str
    order: str


class Release(Command, stream="stock/{item}"):
    """See Released."""

    item: str
    order: str


class Close(Command, stream="order/{order}"):
    """See Closed."""

    order: str


class Taken(Rejection, frozen=True):
    """The line is claimed already."""

    reason: str


class Line(Document):
    """What a line holds. ``events`` equals the version of its stream."""

    events: int = 0
    amount: int = 0
    last: str = ""
    claims: int = 0


class Person(Document):
    """What a person said last, in clear."""

    events: int = 0
    said: str = ""


class Stock(Document):
    """How many of an item are reserved."""

    reserved: int = 0


class Order(Document):
    """Commands decide on nothing here."""


class Sum(msgspec.Struct):
    """A row of ``summed``."""

    line: str
    events: int
    amount: int


@dataclass(frozen=True)
class Shop:
    """The app, the views that are read by token, and the job."""

    app: App
    noted: Any
    folded: FoldView[Line]
    fast: FoldView[Line]
    summed: RowsView[Sum]
    known: tuple[FoldView[Person], FoldView[Person]]
    effect: Job[[str, str], Any]


def secret(who: str, mark: str) -> str:
    """What nobody finds any more once the person is forgotten."""
    return f"the secret of {who} under {mark}"


def make(settings: Any = None, *, newer: bool = False) -> Shop:
    """The app with its views, or the newer one's. Settings default to the environment's."""
    noted: Any = NotedNewer if newer else Noted
    app = App(
        "simulation",
        events=[noted, Signed, Ordered, Confirmed, Closed, Reserved, Released],
        settings=settings,
    )
    queue = app.queue("effects", workers=4)

    @app.job(queue=queue, retry=AGAIN)
    async def effect(kind: str, mark: str) -> None:
        """Once in effect: what it does commits with its end."""
        async with this_job().transaction() as tx:
            parameters = {"kind": kind, "mark": mark, "tenant": this_job().tenant}
            await tx.connection.execute(SQL["simulation.effect"], parameters)

    def add(state: Line, event: noted) -> Line:
        return state.but(
            events=state.events + 1,
            amount=state.amount + event.amount,
            last=event.mark,
            claims=state.claims + event.claim,
        )

    folded = app.fold(key="line", name="folded")(add)
    fast = app.fold(key="line", name="fast", store=Redis("quick"))(add)

    @app.command(folded)
    def claim(state: Line, command: Claim) -> noted | Rejection:
        if state.claims:
            return Taken(reason=state.last)
        return noted(command.line, command.mark, command.amount, claim=True)

    query = "SELECT line, count(*) AS events, sum(amount)%s AS amount FROM shop.noted GROUP BY 1"
    analytics = ClickHouse("analytics", every_seconds=0.2, idle_seconds=30)
    summed = app.sql("summed", row=Sum, key=("line",), sql=query % "::bigint")
    app.sql("analytic", sql=query % "", store=analytics)
    app.feed("typed", types=[noted, Signed], store=analytics)
    app.feed("archive", types=[noted, Signed], store=Lake("lake", every_seconds=0.2))
    if newer:
        app.sql("spread", sql='SELECT "by", count(*) AS events FROM shop.noted GROUP BY 1')

    @app.derive(folded)
    def receipt(_before: Line, _after: Line, event: noted) -> Enqueue | None:
        return effect("derived", event.mark) if event.amount % DERIVED_EVERY == 0 else None

    def know(state: Person, event: Signed) -> Person:
        return state.but(events=state.events + 1, said=event.said)

    known = (
        app.fold(key="who", name="known", opens=["said"])(know),
        app.fold(key="who", name="known_fast", opens=["said"], store=Redis("quick"))(know),
    )
    _orders(app)
    return Shop(app, noted, folded, fast, summed, known, effect)


def _orders(app: App) -> None:
    """Orders, and the saga of each."""

    @app.fold(key="item")
    def stock(state: Stock, event: Reserved | Released) -> Stock:
        return state.but(reserved=state.reserved + (1 if isinstance(event, Reserved) else -1))

    @app.fold(key="order")
    def orders(state: Order, _: Ordered | Closed) -> Order:
        return state

    @app.command(stock)
    def reserve(_: Stock, command: Reserve) -> Reserved:
        return Reserved(command.item, command.order)

    @app.command(stock)
    def release(_: Stock, command: Release) -> Released:
        return Released(command.item, command.order)

    @app.command(orders)
    def close(_: Order, command: Close) -> Closed:
        return Closed(command.order)

    async def pay(order: str, key: str) -> str:
        return await _account(app, order, key, 1)

    async def pay_back(order: str, key: str) -> str:
        return await _account(app, order, key, -1)

    @app.saga(key="order", retry=AGAIN)
    async def fulfil(saga: Saga, ordered: Ordered) -> None:
        item = f"item-{len(ordered.order) % 3}"
        await saga.do(Reserve(item, ordered.order), undo=Release(item, ordered.order))
        await saga.call(pay, ordered.order, undo=Undo(pay_back, ordered.order), retry=AGAIN)
        if ordered.fails:
            raise SagaFailed("as ordered")
        await saga.wait(Confirmed, timeout_seconds=PATIENCE_SECONDS)
        await saga.do(Close(ordered.order))


async def _account(app: App, order: str, key: str, amount: int) -> str:
    """A bank that knows its keys: asked again, it does nothing."""
    tenant = key.partition("/")[0]
    async with app.database().transaction(tenant) as connection:
        parameters = {"key": key, "order": order, "amount": amount, "tenant": tenant}
        await connection.execute(SQL["simulation.account"], parameters)
    return key


app = make().app
newer = make(newer=True).app
