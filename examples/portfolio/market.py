"""A made-up trading day: prices that wander, and orders from many portfolios at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

from examples.portfolio.app import app
from examples.portfolio.domain import Buy, Deposit, Quoted, Sell
from headwater import Fact, Token

OPENS = datetime(2025, 9, 15, 13, 30, tzinfo=UTC)
FEE = Decimal("1.90")
PRICES = {"AAPL": Decimal(234), "NVDA": Decimal(178), "MSFT": Decimal(510), "TSM": Decimal(260)}
TRADERS, MINUTES, ORDERS = 25, 30, 25
STARTING_CASH = Decimal(5_000)


async def trading_day(seed: int = 11) -> tuple[Counter[str], Token]:
    """How the day's orders were answered, and the last token. The orders of one minute come all at once."""
    chance = Random(seed)
    traders = [f"trader-{number:02}" for number in range(TRADERS)]
    await asyncio.gather(*(app.do(Deposit(trader, STARTING_CASH)) for trader in traders))
    answers: Counter[str] = Counter()
    for minute, prices in enumerate(_prices(chance)):
        now = OPENS + timedelta(minutes=minute)
        quotes = [Fact(event=Quoted(*quote), occurred_at=now) for quote in prices.items()]
        written = await app.append(*quotes)
        orders = [_order(chance, traders, prices) for _ in range(ORDERS)]
        done = await asyncio.gather(*(app.do(order, occurred_at=now) for order in orders))
        answers.update(type(answer).__name__ for answer in done)
    return answers, written.token


def _prices(chance: Random) -> Iterator[dict[str, Decimal]]:
    prices = dict(PRICES)
    for _ in range(MINUTES):
        for symbol, price in prices.items():
            moved = price * Decimal(chance.gauss(1, 0.004))
            prices[symbol] = moved.quantize(Decimal("0.01"))
        yield dict(prices)


def _order(chance: Random, traders: list[str], prices: dict[str, Decimal]) -> Buy | Sell:
    symbol = chance.choice(list(prices))
    order = Buy if chance.random() < 0.55 else Sell
    return order(chance.choice(traders), symbol, chance.randint(1, 8), prices[symbol], FEE)
