"""What happens to a portfolio, what it comes to, and what an order may do. Pure: no I/O."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from headwater import Command, Document, Event, Rejection

ZERO = Decimal(0)
CENT = Decimal("0.0001")
Count = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(min_length=1, max_length=40)]


class Deposited(Event, type="portfolio.deposited", stream="portfolio/{portfolio}"):
    """Cash came in."""

    portfolio: str
    amount: Decimal


class Bought(Event, type="portfolio.bought", stream="portfolio/{portfolio}"):
    """Shares were bought, and the fee was paid."""

    portfolio: str
    symbol: str
    quantity: int
    price: Decimal
    fee: Decimal


class Sold(Event, type="portfolio.sold", stream="portfolio/{portfolio}"):
    """Shares were sold, the oldest first, and the fee was paid."""

    portfolio: str
    symbol: str
    quantity: int
    price: Decimal
    fee: Decimal


class DividendPaid(Event, type="portfolio.dividend_paid", stream="portfolio/{portfolio}"):
    """A company paid for each share that was held."""

    portfolio: str
    symbol: str
    per_share: Decimal


class Split(Event, type="portfolio.split", stream="portfolio/{portfolio}"):
    """Each share that was held became several, worth as much together."""

    portfolio: str
    symbol: str
    into: int


class Charged(Event, type="portfolio.charged", stream="portfolio/{portfolio}"):
    """The bank took a fee."""

    portfolio: str
    amount: Decimal


class Quoted(Event, type="stock.quoted", stream="stock/{symbol}"):
    """A share's price on the exchange."""

    symbol: str
    price: Decimal


Happened = Deposited | Bought | Sold | DividendPaid | Split | Charged


class Lot(Struct, frozen=True):
    """Shares that were bought together, and what they cost with the fee."""

    quantity: int
    cost: Decimal


class Portfolio(Document):
    """Cash, lots by symbol with the oldest first, and what has been made."""

    cash: Decimal = ZERO
    lots: dict[str, tuple[Lot, ...]] = msgspec.field(default_factory=dict)
    deposits: Decimal = ZERO
    realized: Decimal = ZERO

    @property
    def holdings(self) -> dict[str, int]:
        """Shares by symbol."""
        return {symbol: sum(lot.quantity for lot in lots) for symbol, lots in self.lots.items()}

    def profit(self, prices: dict[str, Decimal]) -> Decimal:
        """What it would be worth at these prices, beyond what was paid in."""
        shares = sum((n * prices[symbol] for symbol, n in self.holdings.items()), ZERO)
        return self.cash + shares - self.deposits


def happened(state: Portfolio, event: Happened) -> Portfolio:
    """The portfolio after an event."""
    match event:
        case Deposited(amount=amount):
            return state.but(cash=state.cash + amount, deposits=state.deposits + amount)
        case Charged(amount=amount):
            return state.but(cash=state.cash - amount, realized=state.realized - amount)
        case DividendPaid(symbol=symbol, per_share=per_share):
            paid = per_share * state.holdings.get(symbol, 0)
            return state.but(cash=state.cash + paid, realized=state.realized + paid)
        case Split(symbol=symbol, into=into):
            lots = [Lot(lot.quantity * into, lot.cost) for lot in state.lots.get(symbol, ())]
            return state.but(lots=_with(state, symbol, lots))
        case Bought(symbol=symbol, quantity=quantity):
            cost = quantity * event.price + event.fee
            lots = [*state.lots.get(symbol, ()), Lot(quantity, cost)]
            return state.but(cash=state.cash - cost, lots=_with(state, symbol, lots))
        case Sold(symbol=symbol, quantity=quantity):
            earned = quantity * event.price - event.fee
            cost, left = taken(state.lots.get(symbol, ()), quantity)
            return state.but(
                cash=state.cash + earned,
                lots=_with(state, symbol, left),
                realized=state.realized + earned - cost,
            )


def taken(lots: tuple[Lot, ...], quantity: int) -> tuple[Decimal, list[Lot]]:
    """What the oldest shares cost, and the lots that are left. A lot's cost is shared out without a remainder."""
    cost, left = ZERO, list(lots)
    while quantity:
        oldest = left.pop(0)
        sold = min(quantity, oldest.quantity)
        share = (oldest.cost * sold / oldest.quantity).quantize(CENT, ROUND_HALF_EVEN)
        if sold == oldest.quantity:
            share = oldest.cost
        else:
            left.insert(0, Lot(oldest.quantity - sold, oldest.cost - share))
        cost, quantity = cost + share, quantity - sold
    return cost, left


def _with(state: Portfolio, symbol: str, lots: list[Lot]) -> dict[str, tuple[Lot, ...]]:
    others = {other: held for other, held in state.lots.items() if other != symbol}
    return others | ({symbol: tuple(lots)} if lots else {})


class Deposit(Command, stream="portfolio/{portfolio}"):
    """Pay in."""

    portfolio: Name
    amount: Decimal


class Buy(Command, stream="portfolio/{portfolio}"):
    """An order to buy."""

    portfolio: Name
    symbol: Name
    quantity: Count
    price: Decimal
    fee: Decimal = ZERO


class Sell(Command, stream="portfolio/{portfolio}"):
    """An order to sell."""

    portfolio: Name
    symbol: Name
    quantity: Count
    price: Decimal
    fee: Decimal = ZERO


class Charge(Command, stream="portfolio/{portfolio}"):
    """The bank's own fee."""

    portfolio: Name
    amount: Decimal


class Overdrawn(Rejection, frozen=True):
    """There is not that much cash."""

    cash: Decimal
    needed: Decimal


class SoldShort(Rejection, frozen=True):
    """There are not that many shares."""

    held: int


class NoAmount(Rejection, frozen=True):
    """An amount, a price or a fee is out of range."""


def deposit(_: Portfolio, command: Deposit) -> Deposited | NoAmount:
    """Whatever comes in is welcome."""
    return Deposited(command.portfolio, command.amount) if command.amount > 0 else NoAmount()


def buy(state: Portfolio, command: Buy) -> Bought | Overdrawn | NoAmount:
    """No overdraft."""
    if command.price <= 0 or command.fee < 0:
        return NoAmount()
    needed = command.quantity * command.price + command.fee
    if needed > state.cash:
        return Overdrawn(state.cash, needed)
    return Bought(command.portfolio, command.symbol, command.quantity, command.price, command.fee)


def sell(state: Portfolio, command: Sell) -> Sold | SoldShort | Overdrawn | NoAmount:
    """No short sale, and no fee that the sale does not cover."""
    if command.price <= 0 or command.fee < 0:
        return NoAmount()
    held = state.holdings.get(command.symbol, 0)
    if command.quantity > held:
        return SoldShort(held)
    cash = state.cash + command.quantity * command.price
    if command.fee > cash:
        return Overdrawn(cash, command.fee)
    return Sold(command.portfolio, command.symbol, command.quantity, command.price, command.fee)


def charge(state: Portfolio, command: Charge) -> Charged | Overdrawn | NoAmount:
    """No overdraft, for the bank's fee either."""
    if command.amount <= 0:
        return NoAmount()
    if command.amount > state.cash:
        return Overdrawn(state.cash, command.amount)
    return Charged(command.portfolio, command.amount)
