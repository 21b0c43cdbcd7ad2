"""The service of stock: sets aside what is asked for, ships it, or puts it back."""

from __future__ import annotations

import msgspec

from examples.orders.place import BUS, settings_of
from headwater import App, Command, Document, Event


class StockAsked(Event, type="order.stock_asked", stream="order/{order}"):
    """From orders."""

    order: str
    item: str
    quantity: int


class Confirmed(Event, type="order.confirmed", stream="order/{order}"):
    """From orders."""

    order: str
    item: str


class Cancelled(Event, type="order.cancelled", stream="order/{order}"):
    """From orders."""

    order: str
    item: str


class Delivered(Event, type="stock.delivered", stream="stock/{item}"):
    """More of it came."""

    item: str
    quantity: int


class StockAnswered(Event, type="stock.answered", stream="stock/{item}"):
    """It is set aside, or there is not so much."""

    item: str
    order: str
    quantity: int
    reserved: bool


class Shipped(Event, type="stock.shipped", stream="stock/{item}"):
    """What was set aside is gone."""

    item: str
    order: str
    quantity: int


class PutBack(Event, type="stock.put_back", stream="stock/{item}"):
    """What was set aside is there again."""

    item: str
    order: str
    quantity: int


class Reserve(Command, stream="stock/{item}"):
    """Set it aside, if there is enough."""

    item: str
    order: str
    quantity: int


class Settle(Command, stream="stock/{item}"):
    """Ship what is set aside for an order, or put it back."""

    item: str
    order: str
    ship: bool


class Stock(Document):
    """How much of an item is there, set aside by order, and gone."""

    left: int = 0
    held: dict[str, int] = msgspec.field(default_factory=dict)
    shipped: int = 0


class Told(Document):
    """The last that orders said."""

    last: str = ""


app = App(
    "inventory",
    events=[StockAsked, Confirmed, Cancelled, Delivered, StockAnswered, Shipped, PutBack],
    tenant="main",
    settings=settings_of("inventory"),
)
app.receive("decisions", source="order", bus=BUS, types=[StockAsked, Confirmed, Cancelled])
app.publish("reservations", types=[StockAnswered], bus=BUS)


@app.fold(key="item")
def stock(state: Stock, event: Delivered | StockAnswered | Shipped | PutBack) -> Stock:
    """Every item."""
    if isinstance(event, Delivered):
        return state.but(left=state.left + event.quantity)
    if isinstance(event, StockAnswered):
        if not event.reserved:
            return state
        held = {**state.held, event.order: event.quantity}
        return state.but(left=state.left - event.quantity, held=held)
    held = {order: n for order, n in state.held.items() if order != event.order}
    if isinstance(event, Shipped):
        return state.but(held=held, shipped=state.shipped + event.quantity)
    return state.but(held=held, left=state.left + event.quantity)


@app.command(stock)
def reserve(state: Stock, command: Reserve) -> list[StockAnswered]:
    """Never more than there is."""
    enough = command.quantity <= state.left
    return [StockAnswered(command.item, command.order, command.quantity, enough)]


@app.command(stock)
def settle(state: Stock, command: Settle) -> list[Shipped | PutBack]:
    """Nothing where nothing is set aside."""
    if (quantity := state.held.get(command.order)) is None:
        return []
    event = Shipped if command.ship else PutBack
    return [event(command.item, command.order, quantity)]


@app.fold(key="order")
def told(state: Told, event: StockAsked | Confirmed | Cancelled) -> Told:
    """What orders say."""
    return state.but(last=type(event).__name__)


@app.derive(told)
def answers(
    _before: Told, _after: Told, event: StockAsked | Confirmed | Cancelled
) -> Reserve | Settle:
    """In the commit of the view: each is answered once."""
    if isinstance(event, StockAsked):
        return Reserve(event.item, event.order, event.quantity)
    return Settle(event.item, event.order, isinstance(event, Confirmed))
