"""The service of messages: one for each order's end."""

from __future__ import annotations

import msgspec

from examples.orders.place import BUS, settings_of
from headwater import App, Command, Document, Enqueue, Event


class Confirmed(Event, type="order.confirmed", stream="order/{order}"):
    """From orders."""

    order: str
    customer: str


class Cancelled(Event, type="order.cancelled", stream="order/{order}"):
    """From orders."""

    order: str
    customer: str


class Mailed(Event, type="mail.sent", stream="mail/{order}"):
    """A customer was told."""

    order: str
    text: str


class Mail(Command, stream="mail/{order}"):
    """Tell a customer."""

    order: str
    text: str


class Mails(Document):
    """What was told of an order."""

    texts: list[str] = msgspec.field(default_factory=list)


class Told(Document):
    """How an order ended."""

    last: str = ""


app = App(
    "notification",
    events=[Confirmed, Cancelled, Mailed],
    tenant="main",
    settings=settings_of("notification"),
)
app.receive("decisions", source="order", bus=BUS, types=[Confirmed, Cancelled])
post = app.queue("post", workers=10)


@app.fold(key="order")
def mails(state: Mails, event: Mailed) -> Mails:
    """Every mail."""
    return state.but(texts=[*state.texts, event.text])


@app.command(mails)
def decide_mail(state: Mails, command: Mail) -> list[Mailed]:
    """The same is not told twice."""
    return [] if command.text in state.texts else [Mailed(command.order, command.text)]


@app.job(queue=post)
async def send(order: str, text: str) -> None:
    """Where a mail server would be asked."""
    await app.do(Mail(order, text))


@app.fold(key="order")
def told(state: Told, event: Confirmed | Cancelled) -> Told:
    """How orders end."""
    return state.but(last=type(event).__name__.lower())


@app.derive(told)
def letters(_before: Told, after: Told, event: Confirmed | Cancelled) -> Enqueue:
    """A job for each, in the commit of the view."""
    return send(event.order, f"Dear {event.customer}, your order {event.order} is {after.last}.")
