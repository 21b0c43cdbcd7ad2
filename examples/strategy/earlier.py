"""The strategy's document as earlier releases wrote it. The log still holds these, and nothing rewrites them."""

from __future__ import annotations

from decimal import Decimal

from headwater import App, Event


class SavedFirst(Event, type="strategy.saved", stream="strategy/{sid}"):
    """Two means, and nothing of fees."""

    uid: str
    sid: str
    fast: int
    slow: int


class SavedSecond(Event, type="strategy.saved", stream="strategy/{sid}", version=2):
    """Fields were added, each with a default: code of the first release passes by them."""

    uid: str
    sid: str
    fast: int
    slow: int
    fee_percent: Decimal = Decimal("0.10")
    source: str = "web"
    ab: str = "none"


first = App("strategy", events=[SavedFirst], tenant="lab")
second = App("strategy", events=[SavedSecond], tenant="lab")
