"""Events that a view decides on: once in effect, in the commit of the batch, never in a circle."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from headwater import App, Command, Document, Event, Settings
from headwater.errors import (
    CommandDefinitionError,
    DefinitionError,
    InvalidEvent,
    KeyParked,
    ViewDefinitionError,
)
from headwater.stores.redis import Redis
from headwater.testing.driving import drive, publish

pytestmark = pytest.mark.postgres

LIMIT = 100


class Spent(Event, type="card.spent", stream="card/{card}"):
    card: str
    amount: int


class Crossed(Event, type="card.crossed", stream="alert/{card}"):
    card: str
    total: int


class Warned(Event, type="card.warned", stream="warning/{card}"):
    card: str
    warnings: int


class Card(Document):
    total: int = 0


class Warnings(Document):
    count: int = 0


class Warn(Command, stream="warning/{card}"):
    card: str


@pytest.fixture
def database(database18):
    """One version of Postgres: what is derived hangs on commits and appends, which have tests of their own on each."""
    return database18


def cards_app(database, *, factor=1, limit=LIMIT, poisonous=True) -> App:
    app = App(
        "cards",
        events=[Spent, Crossed, Warned],
        tenant="main",
        settings=Settings(database_url=database.url),
    )

    @app.fold(key="card")
    def cards(state: Card, event: Spent) -> Card:
        if poisonous and event.amount == 13:
            raise ValueError("unlucky")
        return state.but(total=state.total + event.amount * factor)

    @app.derive(cards)
    def crossings(before: Card, after: Card, event: Spent) -> Crossed | None:
        if before.total < limit <= after.total:
            return Crossed(event.card, after.total)
        return None

    @app.fold(key="card")
    def warnings(state: Warnings, event: Warned) -> Warnings:
        return state.but(count=state.count + 1)

    @app.command(warnings)
    def warn(state: Warnings, command: Warn) -> Warned | None:
        return Warned(command.card, state.count + 1) if state.count < 2 else None

    @app.fold(key="card")
    def alerts(state: Warnings, event: Crossed) -> Warnings:
        return state.but(count=state.count + 1)

    @app.derive(alerts)
    def warners(before: Warnings, after: Warnings, event: Crossed) -> list[Warn]:
        return [Warn(event.card)] * 3

    return app


async def history(app, stream, tenant="main"):
    return [recorded.event for recorded in await app.log.stream(stream, tenant=tenant)]


async def spend(app, *amounts, card="c", tenant="main"):
    for amount in amounts:
        await app.append(Spent(card, amount), tenant=tenant)
    await publish(app)


async def warned(app, card):
    """Waits until a card is warned twice, as whoever follows the log hears of it."""
    heard = 0
    async with asyncio.timeout(60):
        async for recorded in app.log.tail(types=["card.warned"], tenant="main"):
            heard += recorded.event.card == card
            if heard == 2:
                return


async def test_an_event_follows_once_and_says_from_what(database):
    async with cards_app(database) as app:
        await app.deploy()
        await spend(app, 60, 39, 1, 50)
        await spend(app, 99, 1, tenant="other")
        await drive(app, app.stored("crossings"), 1)
        (crossed,) = await app.log.stream("alert/c", tenant="main")
        third = (await app.log.stream("card/c", tenant="main"))[2]
        assert crossed.event == Crossed("c", 100)
        assert crossed.metadata == {"cause": {"view": "crossings", "position": third.position}}
        assert await history(app, "alert/c", "other") == [Crossed("c", 100)]
        assert (await app.stored("crossings").verify()).summary == "equal"


async def test_a_command_follows_and_decides(database):
    async with cards_app(database) as app:
        await app.deploy()
        await spend(app, 100)
        async with app.relay():
            await warned(app, "c")
            await app.append(Spent("d", 100))
            await warned(app, "d")
        assert await history(app, "warning/c") == [Warned("c", 1), Warned("c", 2)]


@pytest.mark.parametrize("calls", [1, 2, 3])
async def test_a_kill_in_a_batch_derives_nothing_twice(database, calls):
    """SIGKILL after the events of the n-th batch are appended, before its commit."""
    async with cards_app(database) as app:
        await app.deploy()
        for start in range(0, 40, 4):
            await app.append(*(Spent(f"c{n}", 100) for n in range(start, start + 4)))
        await publish(app)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _KILLED.format(calls=calls),
            env=os.environ | {"HEADWATER_TEST_URL": database.url, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL
        await drive(app, app.stored("crossings"), 2)
        for n in range(40):
            assert await history(app, f"alert/c{n}") == [Crossed(f"c{n}", 100)], n


_KILLED = """
import asyncio, os, signal
from headwater import Settings
from headwater.stores.postgres.derived import DerivedEvents
from headwater.testing.driving import drive, publish
from tests.contract.test_derived_events import cards_app

class Database: url = os.environ["HEADWATER_TEST_URL"]
append, left = DerivedEvents.append, [{calls}]

async def dying(self, connection, derived):
    await append(self, connection, derived)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    DerivedEvents.append = dying
    async with cards_app(Database) as app:
        await app.database("headwater_relay").open()
        last = await publish(app)
        for upto in range(last - 24, last + 1, 12):
            await drive(app, app.stored("crossings"), 1, upto)

asyncio.run(main())
"""


async def test_a_rebuild_derives_nothing_again(database):
    async with cards_app(database) as app:
        await app.deploy()
        await spend(app, 60, 60)
        await drive(app, app.stored("crossings"), 1)
    async with cards_app(database, limit=50) as app:
        await app.stored("crossings").rebuild()
        await spend(app, 10)
        await drive(app, app.stored("crossings"), 2)
        assert await history(app, "alert/c") == [Crossed("c", 120)]
        await spend(app, 60, card="d")  # what is new is derived by the definition of now
        await drive(app, app.stored("crossings"), 3)
        assert await history(app, "alert/d") == [Crossed("d", 60)]


async def test_a_rollback_in_between_derives_nothing_again(database):
    """The view was a plain fold once; its generation of then knows nothing of what was derived since."""
    plain = App(
        "cards",
        events=[Spent, Crossed, Warned],
        tenant="main",
        settings=Settings(database_url=database.url),
    )

    @plain.fold(key="card", name="crossings")
    def crossings(state: Card, event: Spent) -> Card:
        return state.but(total=state.total + event.amount)

    async with cards_app(database) as app, plain:
        await plain.deploy()
        await spend(plain, 60)
        await drive(plain, plain.stored("crossings"), 1)
        await plain.rebuilding("crossings").run()
        await app.deploy()
        await app.stored("crossings").rebuild()
        await spend(app, 60)
        await drive(app, app.stored("crossings"), 2)
        await plain.rebuilding("crossings").roll_back()
        await app.stored("crossings").rebuild()
        await drive(app, app.stored("crossings"), 3)
        assert await history(app, "alert/c") == [Crossed("c", 120)]


async def test_a_parked_event_derives_when_it_is_replayed(database):
    async with cards_app(database) as app:
        await app.deploy()
        await spend(app, 90, 13, 7)
        await drive(app, app.stored("crossings"), 1)
        assert (await app.stored("crossings").verify()).summary == "equal except 1 parked"
        assert await history(app, "alert/c") == []
    async with cards_app(database, poisonous=False) as app:
        assert await app.stored("crossings").replay() == 2
        assert await history(app, "alert/c") == [Crossed("c", 103)]


async def test_what_would_follow_from_itself_is_refused(database):
    app = cards_app(database)

    @app.fold(key="card", name="both")
    def both(state: Card, event: Warned | Crossed) -> Card:
        return state

    with pytest.raises(DefinitionError, match=r"card.crossed -> card.crossed"):

        @app.derive(both)
        def direct(before: Card, after: Card, event: Crossed) -> Crossed | None: ...


async def test_a_circle_over_several_views_and_commands_is_refused(database):
    app = cards_app(database)
    with pytest.raises(DefinitionError, match=r"card.crossed -> card.warned -> card.crossed"):

        @app.derive(app.view("warnings"), name="around")
        def around(before: Warnings, after: Warnings, event: Warned) -> Crossed | None: ...


async def test_a_derivation_says_what_it_derives(database):
    app = cards_app(database)
    cards = app.view("cards")

    class Unknown(Command):
        card: str

    def silent(before: Card, after: Card, event: Spent): ...
    def few(before: Card) -> Warned: ...

    for function in (silent, few):
        with pytest.raises(ViewDefinitionError):
            app.derive(cards)(function)

    def undecided(before: Card, after: Card, event: Spent) -> None: ...

    undecided.__annotations__["return"] = Unknown
    with pytest.raises(CommandDefinitionError):
        app.derive(cards)(undecided)

    @app.fold(key="card", name="far", store=Redis("fast"))
    def far(state: Card, event: Spent) -> Card:
        return state

    with pytest.raises(ViewDefinitionError, match="another store"):
        app.derive(far)


class Noted(Event, type="card.noted", stream="note/{card}"):
    card: str


class Note(Command, stream="note/{card}"):
    card: str


def notes_app(database, how) -> App:
    app = App(
        "notes", events=[Spent, Noted], tenant="main", settings=Settings(database_url=database.url)
    )

    @app.fold(key="amount")
    def amounts(state: Card, event: Spent) -> Card:
        return state.but(total=state.total + 1)

    @app.fold(key="card")
    def noted(state: Card, event: Noted) -> Card:
        return state

    @app.command(noted)
    def note(state: Card, command: Note) -> Noted:
        if command.card == "c13":
            raise ValueError("unlucky")
        return Noted(command.card)

    def as_event(before: Card, after: Card, event: Spent) -> Noted:
        return Noted("bad name" if event.amount == 13 else event.card)

    def as_command(before: Card, after: Card, event: Spent) -> Note:
        return Note(f"c{event.amount}")

    app.derive(amounts, name="notes")({"event": as_event, "command": as_command}[how])
    return app


@pytest.mark.parametrize("how", ["event", "command"])
async def test_what_cannot_be_derived_is_parked_and_delays_nothing(database, how):
    async with notes_app(database, how) as app:
        await app.deploy()
        await app.append(Spent("c1", 1), Spent("c13", 13), Spent("c2", 2))
        async with app.relay("notes"):
            written = await app.append(Spent("c3", 3))
            assert await app.view("notes").get("3", at_least=written.token) == Card(1)
            with pytest.raises(KeyParked):
                await app.view("notes").get("13", at_least=written.token)
        for card in ("c1", "c2", "c3"):
            assert await history(app, f"note/{card}") == [Noted(card)]
        with pytest.raises(InvalidEvent, match="still parked"):
            await app.stored("notes").replay()
