"""The service of orders: takes them, and decides by a saga what becomes of each."""

from __future__ import annotations

from typing import Literal

from examples.orders.place import BUS, settings_of
from headwater import App, Command, Document, Event, Saga, SagaFailed

DAY = 86_400
Plan = Literal["free", "paid", "priority"]


class Placed(Event, type="order.placed", stream="order/{order}"):
    """A customer wants something."""

    order: str
    customer: str
    item: str
    quantity: int
    amount: int
    plan: Plan = "free"


class StockAsked(Event, type="order.stock_asked", stream="order/{order}"):
    """Inventory is to set it aside."""

    order: str
    item: str
    quantity: int


class PaymentAsked(Event, type="order.payment_asked", stream="order/{order}"):
    """Payment is to charge for it."""

    order: str
    customer: str
    amount: int
    plan: Plan


class Confirmed(Event, type="order.confirmed", stream="order/{order}"):
    """It is paid for and set aside."""

    order: str
    item: str
    customer: str


class Cancelled(Event, type="order.cancelled", stream="order/{order}"):
    """Whoever did something for it undoes that."""

    order: str
    item: str
    customer: str


class StockAnswered(Event, type="stock.answered", stream="order/{order}"):
    """What inventory says."""

    order: str
    reserved: bool


class PaymentAnswered(Event, type="payment.answered", stream="order/{order}"):
    """What payment says."""

    order: str
    paid: bool


class AskStock(Command, stream="order/{order}"):
    """The first step."""

    order: str


class AskPayment(Command, stream="order/{order}"):
    """The second step."""

    order: str


class Confirm(Command, stream="order/{order}"):
    """The good end."""

    order: str


class Cancel(Command, stream="order/{order}"):
    """The other end."""

    order: str


class Order(Document):
    """How an order stands."""

    status: Literal["placed", "confirmed", "cancelled"] = "placed"
    placed: Placed | None = None


app = App(
    "order",
    events=[Placed, StockAsked, PaymentAsked, Confirmed, Cancelled, StockAnswered, PaymentAnswered],
    tenant="main",
    settings=settings_of("order"),
)
app.publish("decisions", types=[StockAsked, PaymentAsked, Confirmed, Cancelled], bus=BUS)
app.receive("reservations", source="inventory", bus=BUS, types=[StockAnswered])
app.receive("payments", source="payment", bus=BUS, types=[PaymentAnswered])


@app.fold(key="order")
def orders(state: Order, event: Placed | Confirmed | Cancelled) -> Order:
    """Every order."""
    if isinstance(event, Placed):
        return state.but(placed=event)
    return state.but(status="confirmed" if isinstance(event, Confirmed) else "cancelled")


@app.command(orders)
def ask_stock(state: Order, command: AskStock) -> list[StockAsked]:
    """Asks for what was placed."""
    assert state.placed is not None
    return [StockAsked(command.order, state.placed.item, state.placed.quantity)]


@app.command(orders)
def ask_payment(state: Order, command: AskPayment) -> list[PaymentAsked]:
    """Asks for the money."""
    placed = state.placed
    assert placed is not None
    return [PaymentAsked(command.order, placed.customer, placed.amount, placed.plan)]


@app.command(orders)
def confirm(state: Order, command: Confirm) -> list[Confirmed]:
    """Ends well."""
    assert state.placed is not None
    return [Confirmed(command.order, state.placed.item, state.placed.customer)]


@app.command(orders)
def cancel(state: Order, command: Cancel) -> list[Cancelled]:
    """Ends badly, once."""
    assert state.placed is not None
    if state.status != "placed":
        return []
    return [Cancelled(command.order, state.placed.item, state.placed.customer)]


@app.saga(key="order")
async def fulfil(saga: Saga, placed: Placed) -> None:
    """Confirm, or cancel: then each service undoes what it did."""
    await saga.do(AskStock(placed.order), undo=Cancel(placed.order))
    stock = await saga.wait(StockAnswered, timeout_seconds=DAY)
    if not stock.reserved:
        raise SagaFailed("sold out")
    await saga.do(AskPayment(placed.order))
    payment = await saga.wait(PaymentAnswered, timeout_seconds=DAY)
    if not payment.paid:
        raise SagaFailed("the payment was declined")
    await saga.do(Confirm(placed.order))
