"""The portfolio's app: events, views and commands, over the domain's functions."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from pathlib import Path

from msgspec import Struct

from examples.portfolio import domain
from examples.portfolio.domain import (
    Bought,
    Charged,
    Deposited,
    DividendPaid,
    Quoted,
    Sold,
    Split,
)
from headwater import App, Document, Recorded

app = App(
    "portfolio",
    events=[Deposited, Bought, Sold, DividendPaid, Split, Charged, Quoted],
    tenant="bank",
)

portfolios = app.fold(key="portfolio", name="portfolios")(domain.happened)

for decide in (domain.deposit, domain.buy, domain.sell, domain.charge):
    app.command(portfolios)(decide)


class Stock(Document):
    """A share's last price, and since when."""

    price: Decimal = Decimal(0)
    since: datetime | None = None


@app.fold(key="symbol")
def stocks(state: Stock, event: Quoted, recorded: Recorded[Quoted]) -> Stock:
    """The last price by symbol. A quote that is told late changes nothing where a later one is known."""
    at = recorded.occurred_at or recorded.recorded_at
    if state.since is not None and at < state.since:
        return state
    return Stock(event.price, at)


class Traded(Struct):
    """What was traded of a share, over all portfolios: for those who watch the bank's risk."""

    symbol: str
    orders: int
    shares: Decimal | None
    turnover: Decimal | None
    fees: Decimal | None


traded = app.sql(
    "traded", row=Traded, key=["symbol"], sql=Path(__file__).parent / "sql" / "traded.sql"
)
