"""The portfolio example's rules and sums: given what happened, when an order comes, then."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given as any_of
from hypothesis import strategies as st

from examples.portfolio.app import app
from examples.portfolio.domain import (
    Bought,
    Buy,
    Charge,
    Charged,
    Deposit,
    Deposited,
    DividendPaid,
    Lot,
    NoAmount,
    Overdrawn,
    Portfolio,
    Sell,
    Sold,
    SoldShort,
    Split,
    happened,
    taken,
)
from headwater.testing.deciding import given

D = Decimal
PAID_IN = Deposited("p", D(1000))


def after(*events):
    state = Portfolio()
    for event in events:
        state = happened(state, event)
    return state


def bought(quantity, price, fee=0):
    return Bought("p", "AAPL", quantity, D(price), D(fee))


def sold(quantity, price, fee=0):
    return Sold("p", "AAPL", quantity, D(price), D(fee))


def test_no_overdraft_to_the_cent():
    given(app, PAID_IN).when(Buy("p", "AAPL", 10, D("99.90"), D(1))).then(bought(10, "99.90", 1))
    over = Overdrawn(D(1000), D("1000.01"))
    given(app, PAID_IN).when(Buy("p", "AAPL", 10, D("99.90"), D("1.01"))).then(over)
    given(app, PAID_IN).when(Charge("p", D(1001))).then(Overdrawn(D(1000), D(1001)))
    given(app, PAID_IN).when(Charge("p", D(1000))).then(Charged("p", D(1000)))


def test_no_short_sale():
    given(app, PAID_IN, bought(3, 10)).when(Sell("p", "AAPL", 3, D(10))).then(sold(3, 10))
    given(app, PAID_IN, bought(3, 10)).when(Sell("p", "AAPL", 4, D(10))).then(SoldShort(3))
    given(app, PAID_IN).when(Sell("p", "NVDA", 1, D(10))).then(SoldShort(0))


def test_nothing_costs_less_than_nothing():
    given(app).when(Deposit("p", D(0))).then(NoAmount())
    given(app, PAID_IN).when(Buy("p", "AAPL", 1, D(-1))).then(NoAmount())
    given(app, PAID_IN).when(Buy("p", "AAPL", 1, D(1), D(-1))).then(NoAmount())
    given(app, PAID_IN, bought(1, 1)).when(Sell("p", "AAPL", 1, D(0))).then(NoAmount())


def test_the_first_in_are_the_first_out():
    state = after(PAID_IN, bought(2, 10, 1), bought(2, 20), sold(3, 30, 2))
    assert state.lots["AAPL"] == (Lot(1, D(20)),)
    assert state.realized == 3 * 30 - 2 - (21 + 20)
    assert after(PAID_IN, bought(2, 10), sold(2, 10)).lots == {}


def test_a_split_changes_shares_and_no_money():
    state = after(
        PAID_IN, bought(3, 40), Split("p", "AAPL", 4), DividendPaid("p", "AAPL", D("0.5"))
    )
    assert state.lots["AAPL"] == (Lot(12, D(120)),)
    assert (state.cash, state.realized) == (1000 - 120 + 6, 6)


@any_of(
    st.lists(st.tuples(st.integers(1, 50), st.decimals(0, 9999, places=2)), min_size=1, max_size=5),
    st.data(),
)
def test_costs_are_shared_out_without_a_remainder(bought_lots, data):
    lots = tuple(Lot(quantity, D(cost)) for quantity, cost in bought_lots)
    shares = sum(lot.quantity for lot in lots)
    cost, left = taken(lots, data.draw(st.integers(0, shares)))
    assert cost + sum(lot.cost for lot in left) == sum(lot.cost for lot in lots)
    assert all(lot.quantity > 0 for lot in left)
