"""The service of money: charges by a queue in which plans have lanes, and gives back."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from examples.orders.place import BUS, failing, settings_of
from headwater import App, Command, Document, Enqueue, Event, Retry, this_job


class PaymentAsked(Event, type="order.payment_asked", stream="order/{order}"):
    """From orders."""

    order: str
    customer: str
    amount: int
    plan: Literal["free", "paid", "priority"]


class Cancelled(Event, type="order.cancelled", stream="order/{order}"):
    """From orders."""

    order: str
    customer: str


class Deposited(Event, type="payment.deposited", stream="account/{customer}"):
    """A customer has more."""

    customer: str
    amount: int


class PaymentAnswered(Event, type="payment.answered", stream="account/{customer}"):
    """It is paid, or there was not so much."""

    customer: str
    order: str
    amount: int
    paid: bool


class Refunded(Event, type="payment.refunded", stream="account/{customer}"):
    """What was paid, perhaps nothing, is given back; nothing is charged any more."""

    customer: str
    order: str
    amount: int


class Charge(Command, stream="account/{customer}"):
    """Take the money, if there is enough."""

    customer: str
    order: str
    amount: int


class Refund(Command, stream="account/{customer}"):
    """Give it back, or see that it is never taken."""

    customer: str
    order: str


class Account(Document):
    """What a customer has, and paid for each order: 0 where nothing is taken."""

    balance: int = 0
    paid: dict[str, int] = msgspec.field(default_factory=dict)


class Told(Document):
    """The last that orders said."""

    last: str = ""


app = App(
    "payment",
    events=[PaymentAsked, Cancelled, Deposited, PaymentAnswered, Refunded],
    tenant="main",
    settings=settings_of("payment"),
)
app.receive("decisions", source="order", bus=BUS, types=[PaymentAsked, Cancelled])
app.publish("payments", types=[PaymentAnswered], bus=BUS)
charges = app.queue("charges", workers=10, weights={"free": 1, "paid": 4, "priority": math.inf})


@app.fold(key="customer")
def accounts(state: Account, event: Deposited | PaymentAnswered | Refunded) -> Account:
    """Every customer."""
    if isinstance(event, Deposited):
        return state.but(balance=state.balance + event.amount)
    if isinstance(event, Refunded):
        balance, left = state.balance + event.amount, 0
    else:
        left = event.amount if event.paid else 0
        balance = state.balance - left
    return state.but(balance=balance, paid={**state.paid, event.order: left})


@app.command(accounts)
def decide_charge(state: Account, command: Charge) -> list[PaymentAnswered]:
    """Once for each order, however often the job is begun."""
    if command.order in state.paid:
        return []
    enough = command.amount <= state.balance
    return [PaymentAnswered(command.customer, command.order, command.amount, enough)]


@app.command(accounts)
def decide_refund(state: Account, command: Refund) -> list[Refunded]:
    """What was taken for the order; a charge that comes later finds that it is over."""
    return [Refunded(command.customer, command.order, state.paid.get(command.order, 0))]


class BankDown(Exception):
    """``--fail bank``: the first attempt at each charge."""


@app.job(queue=charges, retry=Retry(first_seconds=0.05, longest_seconds=1))
async def charge(customer: str, order: str, amount: int) -> None:
    """Asks the bank, then records what it said."""
    if failing("bank") and this_job().attempt == 1:
        raise BankDown
    await app.do(Charge(customer, order, amount))


@app.fold(key="order")
def told(state: Told, event: PaymentAsked | Cancelled) -> Told:
    """What orders say."""
    return state.but(last=type(event).__name__)


@app.derive(told)
def answers(before: Told, _after: Told, event: PaymentAsked | Cancelled) -> Enqueue | Refund | None:
    """A job for each charge, in the commit of the view."""
    if isinstance(event, PaymentAsked):
        job = charge(event.customer, event.order, event.amount)
        return job.but(lane=event.plan)
    return Refund(event.customer, event.order) if before.last == "PaymentAsked" else None
