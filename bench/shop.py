"""The app that is measured."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from headwater import App, Command, Document, Event, Saga


class Placed(Event, type="order.placed", stream="order/{order}"):
    order: str
    customer: str
    total: Decimal
    lines: int


class Began(Event, type="visit.began", stream="visit/{visit}"):
    visit: str
    total: Decimal


class Order(Document):
    customer: str = ""
    total: Decimal = Decimal(0)
    placed: int = 0


class Customer(msgspec.Struct):
    customer: str
    orders: int
    total: Decimal | None
    largest: Decimal | None


class Place(Command, stream="order/{order}"):
    """Places once more on an order that has been placed on fewer than 10,000 times."""

    order: str
    total: Decimal


def event(number: int, streams: int) -> Placed:
    """The n-th event, over so many streams and as many customers."""
    return Placed(
        order=f"o{number % streams}",
        customer=f"c{(number * 7919) % streams}",
        total=Decimal(number % 10_000) / 100,
        lines=number % 9,
    )


def make(settings: object, *, sagas: bool = False) -> App:
    """The app, with a fold and a SQL view of as many keys as there are streams; or with a saga of three commands."""
    app = App("bench", events=[Placed, Began], tenant="main", settings=settings)  # type: ignore[arg-type]

    @app.fold(key="order")
    def orders(state: Order, placed: Placed) -> Order | None:
        return state.but(
            customer=placed.customer, total=state.total + placed.total, placed=state.placed + 1
        )

    @app.command(orders)
    def place(state: Order, command: Place) -> Placed | None:
        if state.placed >= 10_000:
            return None
        return Placed(command.order, "c0", command.total, state.placed)

    if sagas:

        @app.saga(key="visit")
        async def visit(saga: Saga, began: Began) -> None:
            for step in range(3):
                await saga.do(Place(f"{began.visit}-{step}", began.total))

        return app
    app.sql(
        "customers",
        row=Customer,
        key=("customer",),
        sql="SELECT customer, count(*) AS orders, sum(total) AS total, max(total) AS largest "
        "FROM order.placed GROUP BY customer",
    )
    return app
