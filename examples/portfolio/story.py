"""The story that the example tells, in chapters; each ends with what should be, checked."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
from rich.console import Console

from examples.portfolio.app import app, portfolios, stocks, traded
from examples.portfolio.domain import (
    Bought,
    Buy,
    Charge,
    Deposit,
    DividendPaid,
    Happened,
    Overdrawn,
    Portfolio,
    Quoted,
    Sell,
    Sold,
    SoldShort,
    Split,
    happened,
)
from examples.portfolio.market import trading_day
from examples.telling import Story
from headwater import Accepted, Command, Event, Fact, Moment, Token

MINE = "user123-portfolio-A"
TEN = datetime(2025, 9, 12, 10, tzinfo=UTC)
OTHER_FEE = Decimal("9.90")


def at(hour: int) -> datetime:
    """So many hours into the story."""
    return TEN + timedelta(hours=hour)


async def run(console: Console) -> bool:
    """Whether all checks held."""
    story = Story(console)
    async with app:
        await app.deploy()
        async with app.relay():
            await one_wins(story, await worked_example(story))
            await corporate_actions(story)
            await looking_back(story)
            await many_traders(story)
            await other_fees(story)
    story.say("\nAll checks passed." if story.passed else "\nA check failed.")
    return story.passed


async def order(command: Command, hour: int) -> Accepted:
    """An order that goes through."""
    answer = await app.do(command, occurred_at=at(hour))
    assert isinstance(answer, Accepted), answer
    return answer


async def told(event: Event, hour: int) -> Token:
    """Something that the exchange tells: there is nothing to decide."""
    return (await app.append(Fact(event=event, occurred_at=at(hour)))).token


async def worked_example(story: Story) -> int:
    """Four facts, and what they come to; the position of the last one."""
    story.chapter("State is the sum of what happened")
    await order(Deposit(MINE, Decimal(10_000)), 0)
    await order(Buy(MINE, "AAPL", 10, Decimal(175)), 1)
    await order(Buy(MINE, "NVDA", 5, Decimal(950)), 2)
    last = await order(Sell(MINE, "AAPL", 3, Decimal(180)), 3)
    mine = await portfolios.get(MINE, at_least=last.token)
    assert mine is not None
    story.check("cash", mine.cash, Decimal(4_040))
    story.check("holdings", mine.holdings, {"AAPL": 7, "NVDA": 5})
    overdrawn = await app.do(Buy(MINE, "NVDA", 5, Decimal(950)))
    story.check("no overdraft", overdrawn, Overdrawn(Decimal(4_040), Decimal(4_750)))
    story.check("no short sale", await app.do(Sell(MINE, "NVDA", 6, Decimal(950))), SoldShort(5))
    return last.positions[-1]


async def one_wins(story: Story, position: int) -> None:
    """Both orders would do; together they would sell ten shares of five."""
    story.chapter("Two orders at one moment")
    both = [
        app.do(Sell(MINE, "NVDA", 5, Decimal(price)), occurred_at=at(4)) for price in (960, 970)
    ]
    answers = await asyncio.gather(*both)
    story.check("orders that went through", sum(isinstance(a, Accepted) for a in answers), 1)
    story.check(
        "the other one", [a for a in answers if not isinstance(a, Accepted)], [SoldShort(0)]
    )
    before = await portfolios.history.as_of(MINE, Moment(position=position))
    story.check("the shares before", before and before.holdings["NVDA"], 5)


async def corporate_actions(story: Story) -> None:
    """First in, first out, through a split."""
    story.chapter("Dividend, split, fees, and lots that leave first in, first out")
    await told(DividendPaid(MINE, "AAPL", Decimal("0.26")), 5)
    await order(Buy(MINE, "AAPL", 2, Decimal(200), Decimal(5)), 6)
    await told(Split(MINE, "AAPL", 4), 7)
    await order(Charge(MINE, Decimal("2.50")), 8)
    before = await portfolios.get(MINE, at_least=await told(Quoted("AAPL", Decimal(50)), 7))
    last = await order(Sell(MINE, "AAPL", 30, Decimal(50), Decimal(5)), 9)
    after = await portfolios.get(MINE, at_least=last.token)
    assert before is not None
    assert after is not None
    story.check("lots after the split", _lots(before), [(28, Decimal(1225)), (8, Decimal(405))])
    story.check("lots after the sale of 30", _lots(after), [(6, Decimal("303.75"))])
    earned = Decimal(30 * 50 - 5) - (Decimal(1225) + Decimal("101.25"))
    story.check("made by it", after.realized - before.realized, earned)


def _lots(portfolio: Portfolio) -> list[tuple[int, Decimal]]:
    return [(lot.quantity, lot.cost) for lot in portfolio.lots["AAPL"]]


async def looking_back(story: Story) -> None:
    """State and profit as of any time, from the same events."""
    story.chapter("As of any time")
    quotes = [(1, "AAPL", "175"), (2, "NVDA", "950"), (3, "AAPL", "180"), (4, "NVDA", "960")]
    for hour, symbol, price in quotes:  # told late: what counts is when it was
        await told(Quoted(symbol, Decimal(price)), hour)
    for hour in (0, 1, 3, 7, 9):
        mine, profit = await _profit(hour)
        story.say(f"  {at(hour):%H:%M}  cash {mine.cash:>9}  {mine.holdings!s:24}  profit {profit}")
    now = Decimal("9929.32") + 6 * 50 - 10_000
    story.check("profit at 19:00", (await _profit(9))[1], now)
    story.check(
        "profit at 13:00", (await _profit(3))[1], Decimal(4_040 + 7 * 180 + 5 * 950 - 10_000)
    )


async def _profit(hour: int) -> tuple[Portfolio, Decimal]:
    moment = Moment(occurred=at(hour))
    mine = await portfolios.history.as_of(MINE, moment)
    assert mine is not None
    known = {symbol: await stocks.history.as_of(symbol, moment) for symbol in mine.holdings}
    return mine, mine.profit({symbol: stock.price for symbol, stock in known.items() if stock})


async def many_traders(story: Story) -> None:
    """Whatever comes at once, nobody is overdrawn and nobody sells short."""
    story.chapter("A day of many traders (made up)")
    answers, token = await trading_day()
    story.say(f"  orders: {', '.join(f'{n} {name}' for name, n in sorted(answers.items()))}")
    everyone = dict(await portfolios.list(limit=1_000, at_least=token))
    lots = [lot for one in everyone.values() for held in one.lots.values() for lot in held]
    story.check("overdrawn", sum(one.cash < 0 for one in everyone.values()), 0)
    story.check("lots without shares", sum(lot.quantity < 1 for lot in lots), 0)
    costs = sum(lot.cost for lot in lots)
    paid_in = sum(one.deposits + one.realized for one in everyone.values())
    story.check("cash and costs are what was paid in and made", _cash(everyone) + costs, paid_in)
    rows = await traded.list(at_least=token)
    story.say(f"  traded: {', '.join(f'{row.symbol} {row.orders}' for row in rows)}")
    for view in ("portfolios", "traded"):
        verified = await app.stored(view).verify()
        story.check(f"{view} and the fold of the log", verified.summary, "equal")


def _cash(everyone: dict[str, Portfolio]) -> Decimal:
    return sum((one.cash for one in everyone.values()), Decimal(0))


def at_another_bank(state: Portfolio, event: Happened) -> Portfolio:
    """The same orders, each for another fee."""
    if isinstance(event, Bought | Sold):
        event = msgspec.structs.replace(event, fee=OTHER_FEE)
    return happened(state, event)


async def other_fees(story: Story) -> None:
    """The past, folded by other code; nothing is stored."""
    story.chapter(f"What if each order had cost {OTHER_FEE}?")
    answer = await portfolios.history.what_if(at_another_bank)
    pairs = [(mine, other) for mine, other in answer.documents.values() if mine and other]
    orders = sum(row.orders for row in await traded.list())
    paid = sum((row.fees or Decimal(0) for row in await traded.list()), Decimal(0))
    less = sum((mine.cash - other.cash for mine, other in pairs), Decimal(0))
    story.check("cash that would be missing", less, orders * OTHER_FEE - paid)
    story.say(f"  portfolios that could not have paid it: {sum(o.cash < 0 for _, o in pairs)}")
