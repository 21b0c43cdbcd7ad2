"""Time travel: documents as they were, what differs between two moments, what would have been."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from headwater import App, Document, Event, Fact, Settings
from headwater.errors import (
    InvalidMoment,
    LimitExceeded,
    NotCaughtUp,
    StateUnreadable,
    ViewDefinitionError,
)
from headwater.readers.history import Moment
from headwater.testing.driving import drive, publish

pytestmark = pytest.mark.postgres
DAY = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def database(database18):
    """What is tested here does not hang on the version of Postgres."""
    return database18


class Bought(Event, type="depot.bought", stream="depot/{depot}"):
    depot: str
    shares: int
    fee: Decimal


class Moved(Event, type="depot.moved", stream="move/{move}"):
    move: str
    depot: str
    shares: int


class Depot(Document):
    shares: int = 0
    fees: Decimal = Decimal(0)


def make(database):
    app = App("depots", events=[Bought, Moved], tenant="main", settings=Settings(database_url=database.url))  # fmt: skip

    @app.fold(key="depot")
    def depots(state: Depot, event: Bought) -> Depot | None:
        if event.shares == 13:
            raise ValueError("unlucky")
        shares = state.shares + event.shares
        return state.but(shares=shares, fees=state.fees + event.fee) if shares else None

    @app.fold(key="depot")
    def both(state: Depot, event: Bought | Moved) -> Depot:
        fee = event.fee if isinstance(event, Bought) else Decimal(0)
        return state.but(shares=state.shares + event.shares, fees=state.fees + fee)

    return app


def bought(shares, day, depot="d", fee=1):
    return Fact(event=Bought(depot, shares, Decimal(fee)), occurred_at=DAY + timedelta(days=day))


@pytest.fixture
async def app(database):
    async with make(database) as app:
        await app.deploy()
        yield app


async def test_a_document_as_of_a_position_and_of_times(app, database):
    first = await app.append(bought(5, 0))
    second = await app.append(bought(7, 9))
    late = await app.append(bought(100, 1))  # told late: it had happened before the second
    sold = await app.append(bought(-112, 10))
    await app.append(bought(1, 0, depot="e"))
    await publish(app)
    history = app.view("depots").history
    for position, shares in ((first, 5), (second, 12), (late, 112)):
        moment = Moment(position=position.position)
        assert (await history.as_of("d", moment)).shares == shares
    assert await history.as_of("d", Moment(position=sold.position)) is None
    assert await history.as_of("nobody", Moment(position=sold.position)) is None
    for day, shares in ((-1, None), (0, 5), (5, 105), (9, 112), (11, None)):
        found = await history.as_of("d", Moment(occurred=DAY + timedelta(days=day)))
        assert (found and found.shares) == shares, day
    with database.admin() as admin:
        times = [t for t, in admin.execute("SELECT recorded_at FROM headwater.events ORDER BY position")]  # fmt: skip
    assert (await history.as_of("d", Moment(recorded=times[1]))).shares == 12
    assert await history.as_of("d", Moment(recorded=times[0] - timedelta(seconds=1))) is None


async def test_the_difference_between_two_moments(app):
    positions = [(await app.append(bought(n, n, fee=2))).position for n in (5, 7, 9)]
    await publish(app)
    history = app.view("depots").history
    change = await history.between("d", Moment(position=positions[0]), Moment(position=positions[2]))  # fmt: skip
    assert change.fields == {"shares": (5, 21), "fees": (Decimal(2), Decimal(6))}
    assert [event.event.shares for event in change.events] == [7, 9]
    change = await history.between("d", Moment(position=0), Moment(position=positions[0]))
    assert (change.before, change.fields["shares"]) == (None, (None, 5))
    same = Moment(position=positions[1])
    change = await history.between("d", same, same)
    assert (change.fields, list(change.events)) == ({}, [])


async def test_what_other_code_would_have_made_of_it(app):
    written = [await app.append(bought(5, n, depot=f"d{n % 2}", fee=10)) for n in range(6)]
    await publish(app)
    history = app.view("depots").history

    def cheaper(state: Depot, event: Bought) -> Depot:
        if event.depot == "d1" and state.shares >= 5:
            raise ValueError("too many")
        return state.but(shares=state.shares + event.shares, fees=state.fees + event.fee / 2)

    found = await history.what_if(cheaper)
    assert found.events == 6
    assert [d.fees for d in found.differing["d0"]] == [Decimal(30), Decimal(15)]
    assert found.documents["d1"][1].shares == 5
    assert found.failed["d1"].startswith(f"position {written[3].position}: ValueError: too many")
    from_then_on = await history.what_if(cheaper, after=written[1].position, upto=written[4].position)  # fmt: skip
    assert [d.fees for d in from_then_on.documents["d0"]] == [Decimal(30), Decimal(20)]
    assert from_then_on.events == 5
    with pytest.raises(LimitExceeded, match="more than 1 keys"):
        await history.what_if(cheaper, max_keys=1)

    def other(state: Depot, event: Moved) -> Depot:
        return state

    with pytest.raises(ViewDefinitionError, match="does not fold what"):
        await history.what_if(other)


async def test_a_key_whose_events_lie_in_several_streams(app):
    await app.append(Bought("d", 5, Decimal(1)), Moved("m", "d", 3), Moved("m", "e", 9))
    written = await publish(app)
    assert app.view("depots").fold.streams_of("d") == ["depot/d"]
    assert app.view("both").fold.streams_of("d") is None
    assert (await app.view("both").history.as_of("d", Moment(position=written))).shares == 8


async def test_tenants_do_not_see_each_others_past(app):
    await app.append(bought(5, 0), tenant="other")
    moment = Moment(position=await publish(app))
    history = app.view("depots").history
    assert await history.as_of("d", moment) is None
    assert (await history.as_of("d", moment, tenant="other")).shares == 5
    assert (await history.what_if(app.view("depots").fold.evolve)).documents == {}


async def test_an_event_that_the_fold_cannot_take_is_named_until_it_is_discarded(app):
    await app.append(bought(5, 0))
    bad = await app.append(bought(13, 1))
    await app.append(bought(1, 2))
    moment = Moment(position=await publish(app))
    with pytest.raises(StateUnreadable, match=f"at {bad.position}: ValueError: unlucky"):
        await app.view("depots").history.as_of("d", moment)
    view = app.stored("depots")
    await drive(app, view, 1)
    await view.discard([bad.position])
    assert (await app.view("depots").history.as_of("d", moment)).shares == 6


async def test_bad_moments(app):
    with pytest.raises(NotCaughtUp, match="is published up to"):
        await app.view("depots").history.as_of("d", Moment(position=2**60))
    for given in ({}, {"position": 1, "recorded": DAY}, {"recorded": DAY.replace(tzinfo=None)}):
        with pytest.raises(InvalidMoment):
            Moment(**given)
    for text in ("", "yesterday", "-1", "2026-01-01T00:00:00", "9" * 30):
        with pytest.raises(InvalidMoment):
            Moment.of(text)
    assert Moment.of("2026-03-01T00:00:00Z", "occurred") == Moment(occurred=DAY)
    assert json.dumps(Moment.of("42").position) == "42"
