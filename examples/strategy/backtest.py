"""A run: what a strategy would have made of made-up prices. Whole numbers only, so it comes out the same everywhere."""

from __future__ import annotations

from itertools import accumulate
from random import Random
from typing import Annotated, Literal

from msgspec import Meta, Struct

WHOLE = 10_000
"""A whole in basis points."""
START_CENTS = 1_000_000
Market = Literal["calm", "wild"]
SWING = {"calm": 90, "wild": 260}
"""By how many basis points a day's price moves at most."""


class Rules(Struct, frozen=True):
    """What a strategy says: hold while the mean of ``fast`` days is above that of ``slow`` days."""

    fast: Annotated[int, Meta(ge=1, le=250)]
    slow: Annotated[int, Meta(ge=2, le=250)]
    fee_basis_points: Annotated[int, Meta(ge=0, le=1000)]


class Parameters(Struct, frozen=True):
    """What a run may choose beside the seed."""

    days: Annotated[int, Meta(ge=2, le=2500)] = 250
    market: Market = "calm"


class Result(Struct, frozen=True):
    """What a run comes to, and the money at the end of each day, in cents."""

    return_basis_points: int
    drawdown_basis_points: int
    trades: int
    money: tuple[int, ...]


def backtest(rules: Rules, parameters: Parameters, seed: int) -> Result:
    """The same result for the same rules, parameters and seed."""
    prices = _prices(parameters, seed)
    cash, shares, trades, money = START_CENTS, 0, 0, []
    for day, price in enumerate(prices):
        known = prices[: day + 1]
        wants = _above(known, rules.fast, rules.slow)
        if wants and not shares and (bought := _after_fee(cash, rules) // price):
            cash -= bought * price * WHOLE // (WHOLE - rules.fee_basis_points)
            shares, trades = bought, trades + 1
        elif not wants and shares:
            cash += _after_fee(shares * price, rules)
            shares, trades = 0, trades + 1
        money.append(cash + shares * price)
    highest = list(accumulate(money, max))
    drawdown = max(WHOLE - WHOLE * now // best for now, best in zip(money, highest, strict=True))
    return Result(WHOLE * money[-1] // START_CENTS - WHOLE, drawdown, trades, tuple(money))


def _prices(parameters: Parameters, seed: int) -> list[int]:
    chance, swing = Random(seed), SWING[parameters.market]
    moves = (chance.randint(-swing, swing + 8) for _ in range(parameters.days - 1))
    return list(accumulate(moves, lambda price, move: price * (WHOLE + move) // WHOLE, initial=WHOLE))  # fmt: skip


def _above(known: list[int], fast: int, slow: int) -> bool:
    """Whether the fast mean is above the slow one; their sums are compared, and nothing is divided."""
    if len(known) < slow:
        return False
    return sum(known[-fast:]) * slow > sum(known[-slow:]) * fast


def _after_fee(cents: int, rules: Rules) -> int:
    return cents * (WHOLE - rules.fee_basis_points) // WHOLE
