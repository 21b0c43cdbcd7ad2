"""The app that the contract suite of stores runs: values of every kind, and an event that fails."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from headwater import App, Counter, Distinct, Document, Event, Ranking, Settings
from headwater.views.store import Store

POISON = Decimal(666)
INDEXES = (Ranking("total"), Counter("events"), Distinct("count"))


class Line(msgspec.Struct, frozen=True):
    """Something nested."""

    sku: str
    price: Decimal
    tags: list[str] = msgspec.field(default_factory=list)


class Placed(Event, type="contract.placed", stream="contract/{order}"):
    """An event whose fields are of every kind. ``keyed`` may be any text, the stream's name not."""

    order: int
    keyed: str
    total: Decimal
    text: str | None = None
    count: int = 0
    ratio: float = 0.0
    at: datetime | None = None
    day: date | None = None
    id: UUID | None = None
    lines: list[Line] = msgspec.field(default_factory=list)
    notes: dict[str, str | None] = msgspec.field(default_factory=dict)


class Removed(Event, type="contract.removed", stream="contract/{order}"):
    """Removes a document."""

    order: int
    keyed: str


class Order(Document):
    """Counts its events, so that none is applied twice unnoticed."""

    events: int = 0
    total: Decimal = Decimal(0)
    exact: Decimal = Decimal(0)
    text: str | None = None
    count: int = 0
    ratio: float = 0.0
    at: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    day: date | None = None
    id: UUID | None = None
    lines: list[Line] = msgspec.field(default_factory=list)
    notes: dict[str, str | None] = msgspec.field(default_factory=dict)


TOTALS = """
SELECT keyed, count(*) AS events, sum(total) AS total, avg(total) AS mean, min(count) AS least,
       max(at) AS latest, count(DISTINCT text) AS texts, sum(count) FILTER (WHERE total > 10) AS large,
       last(text) AS newest, approx_count_distinct(text) AS about, sum(1 / (total - 666)) AS poisonable
FROM contract.placed GROUP BY keyed
"""


def fed(settings: Settings, store: Store) -> App:
    """The app with a feed, ``orders``, of both types."""
    app = App("contract", events=[Placed, Removed], tenant="main", settings=settings)
    app.feed("orders", types=[Placed, Removed], store=store)
    return app


def published(settings: Settings, bus: Store, *, edition: int = 1) -> App:
    """The app with a publication, ``orders``, of events that are placed."""
    app = App("contract", events=[Placed, Removed], tenant="main", settings=settings)
    app.publish("orders", types=[Placed], bus=bus, edition=edition)
    return app


def totalled(settings: Settings, store: Store | None, *, sql: str = TOTALS) -> App:
    """The app with a SQL view, ``totals``, in a store; ``plain`` is the same in Postgres."""
    app = App("contract", events=[Placed, Removed], tenant="main", settings=settings)
    app.sql("totals", key=("keyed",), sql=sql, store=store)
    app.sql("plain", key=("keyed",), sql=sql)
    return app


def make(
    settings: Settings, store: Store | None, *, poisonous: bool = True, version: int = 1
) -> App:
    """The app, its fold ``orders`` in a store; ``plain`` is the same fold in Postgres.

    Where the store keeps indexes, the fold has some, so that ``verify`` compares them in every test.
    """
    app = App("contract", events=[Placed, Removed], tenant="main", settings=settings)

    def evolve(state: Order, event: Placed | Removed) -> Order | None:
        if isinstance(event, Removed):
            return None
        if poisonous and event.total == POISON:
            raise ValueError("poison")
        return state.but(
            events=state.events + 1,
            total=state.total + event.total,
            exact=event.total,  # a sum rounds to the digits of Python's decimal context
            text=event.text,
            count=event.count,
            ratio=event.ratio,
            at=event.at or state.at,
            day=event.day,
            id=event.id,
            lines=event.lines,
            notes=event.notes,
        )

    kept = INDEXES if store is not None and "index" in store.transforms else ()
    app.fold(key="keyed", name="orders", store=store, version=version, indexes=kept)(evolve)
    app.fold(key="keyed", name="plain", version=version)(evolve)
    return app
