"""The app of the simulated installation: a view of every kind in every store, and jobs with effects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from headwater import App, Command, Document, Event, Rejection, Retry, this_job
from headwater.app import FoldView, RowsView
from headwater.jobs.job import Job
from headwater.log.enqueuing import Enqueue
from headwater.log.statements import Statements
from headwater.stores.lake import Lake
from headwater.stores.redis import Redis

SQL = Statements("simulation")
TENANTS = ("north", "south", "east")
VIEWS = ("folded", "fast", "summed", "receipt", "archive")
DERIVED_EVERY = 3
"""Of so many events one has a job derived from it."""


class Noted(Event, type="shop.noted", stream="line/{line}"):
    """``mark`` tells it from every other.

    ``beside`` says that a job was created in its transaction, ``claim`` that a command decided on it.
    """

    line: str
    mark: str
    amount: int
    beside: bool = False
    claim: bool = False


class Claim(Command, stream="line/{line}"):
    """Claims a line that nobody has claimed."""

    line: str
    mark: str
    amount: int


class Taken(Rejection, frozen=True):
    """The line is claimed already."""

    reason: str


class Line(Document):
    """What a line holds. ``events`` equals the version of its stream."""

    events: int = 0
    amount: int = 0
    last: str = ""
    claims: int = 0


class Sum(msgspec.Struct):
    """A row of ``summed``."""

    line: str
    events: int
    amount: int


@dataclass(frozen=True)
class Shop:
    """The app, the views that are read by token, and the job."""

    app: App
    folded: FoldView[Line]
    fast: FoldView[Line]
    summed: RowsView[Sum]
    effect: Job[[str, str], Any]


def make(settings: Any = None) -> Shop:
    """The app with its views. Settings default to the environment's."""
    app = App("simulation", events=[Noted], settings=settings)
    queue = app.queue("effects", workers=4)

    @app.job(queue=queue, retry=Retry(attempts=200, first_seconds=0.1, factor=1))
    async def effect(kind: str, mark: str) -> None:
        """Once in effect: what it does commits with its end."""
        async with this_job().transaction() as tx:
            parameters = {"kind": kind, "mark": mark, "tenant": this_job().tenant}
            await tx.connection.execute(SQL["simulation.effect"], parameters)

    def add(state: Line, event: Noted) -> Line:
        return state.but(
            events=state.events + 1,
            amount=state.amount + event.amount,
            last=event.mark,
            claims=state.claims + event.claim,
        )

    folded = app.fold(key="line", name="folded")(add)
    fast = app.fold(key="line", name="fast", store=Redis("quick"))(add)

    @app.command(folded)
    def claim(state: Line, command: Claim) -> Noted | Rejection:
        if state.claims:
            return Taken(reason=state.last)
        return Noted(command.line, command.mark, command.amount, claim=True)

    summed = app.sql(
        "summed",
        row=Sum,
        key=("line",),
        sql="SELECT line, count(*) AS events, sum(amount)::bigint AS amount FROM shop.noted GROUP BY 1",
    )
    app.feed("archive", types=[Noted], store=Lake("lake", every_seconds=0.2))

    @app.derive(folded)
    def receipt(_before: Line, _after: Line, event: Noted) -> Enqueue | None:
        return effect("derived", event.mark) if event.amount % DERIVED_EVERY == 0 else None

    return Shop(app, folded, fast, summed, effect)


app = make().app
