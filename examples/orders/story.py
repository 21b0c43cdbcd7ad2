"""The story that the example tells: orders by HTTP, failures on the way, and the books of four services that agree."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Collection
from contextlib import AsyncExitStack
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from time import perf_counter
from typing import Any

from rich.console import Console

from examples.orders import inventory, notification, order, payment
from examples.orders.place import SERVICES
from examples.orders.services import Services, wait_for
from examples.telling import Story

ITEMS, CUSTOMERS, RICH, PLENTY = 10, 10, 1_000_000, 1_000_000
PATIENCE_SECONDS = 120
APPS = (order.app, inventory.app, payment.app, notification.app)


async def run(console: Console, services: Services, count: int, failures: Collection[str]) -> bool:
    """Whether all checks held."""
    story = Story(console)
    async with AsyncExitStack() as opened:
        for app in APPS:
            await opened.enter_async_context(app)
            await app.deploy()
        placed = [drawn(number) for number in range(count)]
        money = RICH if "declined" not in failures else sum(p["amount"] for p in placed) // 2 // CUSTOMERS  # fmt: skip
        goods = PLENTY if "sold-out" not in failures else max(2 * count // ITEMS, 2)
        for n in range(ITEMS):
            await inventory.app.append(inventory.Delivered(f"item{n}", goods))
        for n in range(CUSTOMERS):
            await payment.app.append(payment.Deposited(f"customer{n}", money))
        began = perf_counter()
        await taken(story, services, placed, failures)
        await ended(count)
        story.say(f"  {count} orders ended after {perf_counter() - began:.1f} s")
        await books(story, placed, goods * ITEMS, money * CUSTOMERS)
    story.say("\nAll checks passed." if story.passed else "\nA check failed.")
    return story.passed


def drawn(number: int) -> dict[str, Any]:
    """An order, always the same for its number."""
    chance = random.Random(number)
    return {
        "order": f"o{number}",
        "customer": f"customer{chance.randrange(CUSTOMERS)}",
        "item": f"item{chance.randrange(ITEMS)}",
        "quantity": chance.randint(1, 4),
        "amount": chance.randint(5, 50),
        "plan": chance.choice(["free", "free", "paid", "priority"]),
    }


async def taken(
    story: Story, services: Services, placed: list[dict[str, Any]], failures: Collection[str]
) -> None:
    """Places all by HTTP, every fifth twice; kills each service once meanwhile, if it is to."""
    story.chapter("Orders come by HTTP, each fifth sent twice")
    killed = list(SERVICES) if "kill" in failures else []
    every = max(len(placed) // (len(killed) + 1), 1)
    same = 0
    for number, body in enumerate(placed):
        if killed and number % every == every - 1:
            name = killed.pop()
            await asyncio.to_thread(services.kill, name)
            services.start(name)
            story.say(f"  killed and started again: {name}")
        answer = await sent(services, body)
        if number % 5 == 0:
            same += await sent(services, body) == answer
    story.check("answers to orders sent twice that were the same", same, (len(placed) + 4) // 5)


async def sent(services: Services, body: dict[str, Any]) -> tuple[int, bytes]:
    """Sends an order until there is an answer, as a client does that may not lose it."""

    def post() -> tuple[int, bytes]:
        wait_for(services.port)
        connection = HTTPConnection("127.0.0.1", services.port, timeout=30)
        connection.request("POST", "/orders", json.dumps(body))
        answer = connection.getresponse()
        return answer.status, answer.read()

    while True:
        try:
            status, said = await asyncio.to_thread(post)
        except (OSError, HTTPException):
            continue
        if status == HTTPStatus.CREATED:
            return status, said
        if status < HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.CONFLICT:
            raise RuntimeError(f"{status}: {said!r}")
        await asyncio.sleep(0.05)


async def statuses() -> Counter[str]:
    """How many orders stand how."""
    found: Counter[str] = Counter()
    after = ""
    while page := await order.orders.list(after=after, limit=1000):
        found.update(each.status for _, each in page)
        after = page[-1][0]
    return found


async def ended(count: int, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Until every order has ended, what was set aside is settled, and every customer told."""
    async with asyncio.timeout(patience_seconds):
        while True:
            stands = await statuses()
            held = [s.held for _, s in await inventory.stock.list()]
            mails = len(await notification.mails.list(limit=1_000_000))
            if stands["confirmed"] + stands["cancelled"] == count == mails and not any(held):
                return
            await asyncio.sleep(0.1 + count / 5_000)


async def books(story: Story, placed: list[dict[str, Any]], goods: int, money: int) -> None:
    """What each service has, beside what the orders come to."""
    story.chapter("The books of four services agree")
    found = dict(await order.orders.list(limit=1_000_000))
    sold = [p for p in placed if found[p["order"]].status == "confirmed"]
    story.say(f"  orders: {dict(await statuses())}")
    stock = [each for _, each in await inventory.stock.list()]
    story.check("items shipped", sum(s.shipped for s in stock), sum(p["quantity"] for p in sold))
    story.check("items left and shipped", sum(s.left + s.shipped for s in stock), goods)
    story.check("less than nothing left", [s for s in stock if s.left < 0], [])
    accounts = [each for _, each in await payment.accounts.list()]
    paid = sum(sum(a.paid.values()) for a in accounts)
    story.check("money taken and kept", paid, sum(p["amount"] for p in sold))
    story.check("money left and kept", sum(a.balance for a in accounts) + paid, money)
    story.check("overdrawn", [a for a in accounts if a.balance < 0], [])
    mails = dict(await notification.mails.list(limit=1_000_000))
    told = {name: [f"Dear {each.placed.customer}, your order {name} is {each.status}."] for name, each in found.items() if each.placed}  # fmt: skip
    story.check("customers told otherwise than once", {n for n in told if mails[n].texts != told[n]}, set())  # fmt: skip
    undone = [s for app in APPS[:1] for s in await app.sagas_now.instances()]
    story.check("sagas that have not ended", undone, [])
    parked = [m for app in APPS for m in await app.inboxes_now.parked()]
    story.check("messages parked", parked, [])
