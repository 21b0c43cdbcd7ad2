"""An app with sagas, that tests run in this process and in others."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from decimal import Decimal

from msgspec import Struct

from headwater import (
    App,
    Command,
    Document,
    Event,
    Rejection,
    Retry,
    Saga,
    SagaFailed,
    Settings,
    StepRejected,
    Undo,
    WaitTimedOut,
)

QUICK = Retry(attempts=3, first_seconds=0.01, factor=1, jitter=0)
EFFECTS = """CREATE TABLE IF NOT EXISTS public.effects (n bigserial, key text, what text);
GRANT ALL ON public.effects TO PUBLIC; GRANT ALL ON SEQUENCE public.effects_n_seq TO PUBLIC"""


class Placed(Event, type="order.placed", stream="order/{order}"):
    order: str
    plan: str = ""


class Reserved(Event, type="stock.reserved", stream="stock/{item}"):
    item: str
    order: str
    seat: int


class Released(Event, type="stock.released", stream="stock/{item}"):
    item: str
    order: str


class Paid(Event, type="payment.received", stream="payment/{payment}"):
    payment: str
    order: str
    amount: Decimal = Decimal(0)


class Shipped(Event, type="order.shipped", stream="order/{order}"):
    order: str
    seat: int


class Stock(Document):
    taken: int = 0


class SoldOut(Rejection):
    """There is none left."""

    item: str


class Jammed(Rejection):
    """It cannot be released."""


class Reserve(Command, stream="stock/{item}"):
    item: str
    order: str


class Release(Command, stream="stock/{item}"):
    item: str
    order: str


class Ship(Command, stream="order/{order}"):
    order: str
    seat: int


class Refit(Command):
    ship: str
    parts: int = 1


class Charge(Struct):
    order: str
    fail: int = 0


class Receipt(Struct):
    id: str
    at: Decimal


calls: list[str] = []
jammed: set[str] = set()
gates: dict[str, asyncio.Event] = {}


def clear() -> None:
    """Forgets what earlier tests did in this process."""
    calls.clear()
    jammed.clear()
    gates.clear()


async def charge(body: Charge, key: str) -> Receipt:
    """Fails so many times, then succeeds; waits where a test holds it."""
    calls.append(f"charge {body.order} {key}")
    if body.order in gates:
        await gates[body.order].wait()
    if len([one for one in calls if one.startswith(f"charge {body.order} ")]) <= body.fail:
        raise ConnectionError("the bank is away")
    return Receipt(f"receipt {body.order}", Decimal("1.50"))


async def refund(receipt: str, key: str) -> None:
    calls.append(f"refund {receipt} {key}")


def make(url: str, version: int = 1, tenant: str | None = "main", variant: str = "") -> App:
    """The app over a database."""
    app = App(
        "shop",
        events=[Placed, Reserved, Released, Paid, Shipped],
        tenant=tenant,
        settings=Settings(database_url=url, pool_size=20),
    )

    @app.fold(key="item")
    def stock(state: Stock, event: Reserved | Released) -> Stock:
        return state.but(taken=state.taken + (1 if isinstance(event, Reserved) else -1))

    @app.command(stock)
    def reserve(state: Stock, command: Reserve) -> list[Reserved] | SoldOut:
        if command.item == "none":
            return SoldOut(command.item)
        return [Reserved(command.item, command.order, state.taken + 1)]

    @app.command(stock)
    def release(state: Stock, command: Release) -> list[Released] | Jammed:
        if command.item in jammed:
            return Jammed()
        return [Released(command.item, command.order)]

    @app.fold(key="order")
    def orders(state: Document, event: Placed | Shipped) -> Document:
        return state

    @app.command(orders)
    def ship(state: Document, command: Ship) -> Shipped:
        return Shipped(command.order, command.seat)

    plans(app, version, variant)
    return app


async def steps(saga: Saga, placed: Placed) -> None:
    """What an order's plan says, a letter a step."""
    seats = []
    for letter in placed.plan:
        match letter:
            case "r":
                undo = Undo(Release("book", placed.order), otherwise=f"Free order {placed.order}")
                (reserved,) = await saga.do(Reserve("book", placed.order), undo=undo)
                seats.append(reserved.seat)
            case "x":
                await saga.do(Reserve("none", placed.order))
            case "c":
                await saga.call(
                    charge, Charge(placed.order), undo=lambda receipt: Undo(refund, receipt.id)
                )
            case "f":
                await saga.call(charge, Charge(placed.order, fail=2), retry=QUICK)
            case "w":
                await saga.wait(Paid)
            case "t":
                try:
                    await saga.wait(Paid, timeout_seconds=0.05)
                except WaitTimedOut:
                    seats.append(-1)
            case "z":
                await saga.sleep(0.02)
            case "p":
                one, two = await asyncio.gather(
                    saga.do(Reserve("pen", placed.order), undo=Release("pen", placed.order)),
                    saga.do(Reserve("ink", placed.order), undo=Release("ink", placed.order)),
                )
                seats += [one[0].seat, two[0].seat]
            case "s":
                await saga.do(Ship(placed.order, sum(seats)))
            case "!":
                raise SagaFailed("enough")
            case "b":
                raise KeyError("a bug")


def plans(app: App, version: int, variant: str) -> None:
    """The app's sagas."""

    async def fulfil(saga: Saga, placed: Placed) -> None:
        if variant == "changed":
            await saga.call(charge, Charge("other"))
        await steps(saga, placed)
        if version == 2:
            await saga.call(charge, Charge("second"))

    declared = app.saga(key="order", version=version, retry=QUICK)(fulfil)
    if version == 2 and variant != "alone":
        declared.before(1)(steps)

    if variant == "thanks":

        @app.saga(key="order")
        async def thank(saga: Saga, paid: Paid) -> None:
            """Does nothing."""

    @app.saga(key="ship")
    async def refit(saga: Saga, command: Refit) -> None:
        done = [saga.do(Reserve(f"part{n}", command.ship)) for n in range(command.parts)]
        async with asyncio.TaskGroup() as group:
            for step in done:
                group.create_task(step)
        try:
            await saga.do(Reserve("none", command.ship))
        except StepRejected as rejected:
            if rejected.rejection != SoldOut("none"):
                raise


async def _work(url: str, point: str, at_call: int) -> None:
    """Works in a process of its own, until it is killed at a point."""
    from headwater.testing.faults import die_in_saga

    if point != "relays not":
        die_in_saga(point, at_call=at_call)
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(make(url))
        await stack.enter_async_context(app.working(lease_seconds=0.5))
        if point != "relays not":
            await stack.enter_async_context(app.relay())
        print("working", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    import sys

    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    asyncio.run(_work(sys.argv[1], sys.argv[2], int(sys.argv[3])))
