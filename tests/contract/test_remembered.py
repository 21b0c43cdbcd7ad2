"""What a process remembers of its own decisions: believed only where an append proves it."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import msgspec
import pytest

from headwater import App, Command, Document, Event, Rejection, Settings, over
from headwater.commands.remembered import Remembered
from headwater.commands.snapshots import SPACING

pytestmark = pytest.mark.postgres


class Moved(Event, type="account.moved", stream="account/{account}"):
    account: str
    amount: Decimal


class Closed(Event, type="account.closed", stream="account/{account}"):
    account: str


class Move(Command, stream="account/{account}"):
    account: str
    amount: Decimal
    times: int = 1


class Send(Command, stream="account/{account}"):
    account: str
    to: str
    amount: Decimal


class Refused(Rejection, frozen=True):
    """There is less, or no account."""


class Account(Document):
    balance: Decimal = Decimal(0)
    closed: bool = False
    past: list[str] = msgspec.field(default_factory=list)


def bank(database):
    app = App(
        "bank", events=[Moved, Closed], tenant="main", settings=Settings(database_url=database.url)
    )
    app.seen, app.pasts = [], []

    @app.fold(key="account")
    def accounts(state: Account, event: Moved | Closed) -> Account:
        if isinstance(event, Closed):
            return state.but(closed=True)
        return state.but(balance=state.balance + event.amount)

    @app.command(accounts)
    def move(state: Account, command: Move) -> list[Moved] | Refused:
        app.seen.append(state.balance)
        app.pasts.append(list(state.past))
        state.past.append("a function that changes what it was given")
        if state.closed:
            raise ValueError("closed")
        if state.balance + command.times * command.amount < 0:
            return Refused()
        return [Moved(command.account, command.amount)] * command.times

    @app.command(accounts, over(accounts, stream="account/{to}"))
    def send(mine: Account, theirs: Account, command: Send) -> list[Moved] | Refused:
        app.seen.append((mine.balance, theirs.balance))
        if mine.balance < command.amount:
            return Refused()
        return [Moved(command.account, -command.amount), Moved(command.to, command.amount)]

    return app


@pytest.fixture
def unread(monkeypatch):
    """A function that makes an app fail where it reads a stream for a decision."""

    def forbid(app):
        async def read(*_):
            raise AssertionError("a stream was read")

        monkeypatch.setattr(app.deciding._reads, "past", read)

    return forbid


async def test_the_next_decisions_on_the_same_streams_read_nothing(database, unread):
    async with bank(database) as app:
        await app.deploy()
        await app.do(Move("a", Decimal("0.10"), 3))
        await app.do(Move("b", Decimal(1)))
        unread(app)
        assert (await app.do(Move("a", Decimal("-0.20")))).versions == (4,)
        assert (await app.do(Send("b", "a", Decimal(1)))).versions == (2, 5)
        assert (await app.do(Move("a", Decimal(-1)))).versions == (6,)
        assert app.seen == [0, 0, Decimal("0.30"), (1, Decimal("0.10")), Decimal("1.10")]


async def test_no_function_changes_what_is_remembered_or_kept(database18):
    """``move`` adds to its state's list each time, as no such function should."""
    async with bank(database18) as app:
        await app.deploy()
        for _ in range(3):  # the first reads, the others remember
            await app.do(Move("a", Decimal(1)))
        await app.append(*(Moved("a", Decimal(1)) for _ in range(SPACING)))
        await app.do(Move("a", Decimal(1)))
        await asyncio.gather(*app.deciding._snapshots._tasks.values())
        with database18.admin() as admin:
            found = admin.execute("SELECT state -> 'past' FROM headwater.snapshots").fetchall()
        await app.do(Move("a", Decimal(1)))
        assert app.pasts == [[]] * len(app.pasts)
        assert found == [([],)]


async def test_what_others_append_is_seen(database):
    async with bank(database) as app, bank(database) as other:
        await app.deploy()
        await app.do(Move("a", Decimal(1)))
        await other.do(Move("a", Decimal(5)))
        # Refused at the remembered balance, and so decided again.
        assert (await app.do(Move("a", Decimal(-6)))).versions == (3,)
        assert app.seen == [0, 1, 6]
        # Accepted at it, and refused by the append.
        await other.do(Move("a", Decimal(2)))
        assert (await app.do(Move("a", Decimal(1)))).versions == (5,)
        assert app.seen[3:] == [0, 2]
        await other.append(Closed("a"))
        with pytest.raises(ValueError, match="closed"):
            await app.do(Move("a", Decimal(1)))


async def test_a_rejection_is_of_what_is_read(database):
    async with bank(database) as app:
        await app.deploy()
        await app.do(Move("a", Decimal(1)))
        assert isinstance(await app.do(Move("a", Decimal(-2))), Refused)
        assert app.seen == [0, 1, 1]


async def test_concurrent_commands_never_overdraw_what_is_remembered(database18):
    async with bank(database18) as app, bank(database18) as other:
        await app.deploy()
        await app.do(Move("a", Decimal(10)))
        moves = [each.do(Move("a", Decimal(-1))) for each in (app, other) * 15]
        outcomes = await asyncio.gather(*moves)
        assert sum(isinstance(outcome, Refused) for outcome in outcomes) == 20


async def test_an_append_of_unknown_outcome_is_not_tried_again(database18, monkeypatch):
    async with bank(database18) as app:
        await app.deploy()
        await app.do(Move("a", Decimal(1)))
        append = app.commits.append

        async def lost(group):
            await append(group)
            raise OSError("the answer was lost")

        monkeypatch.setattr(app.commits, "append", lost)
        with pytest.raises(OSError, match="the answer was lost"):
            await app.do(Move("a", Decimal(1)))
        assert len(await app.log.stream("account/a", tenant="main")) == 2


async def test_snapshots_are_kept_of_what_is_remembered(database18, unread):
    async with bank(database18) as app:
        await app.deploy()
        await app.do(Move("a", Decimal(1)))
        unread(app)
        await app.do(Move("a", Decimal(1), SPACING))
        await app.do(Move("a", Decimal(1)))
        await asyncio.gather(*app.deciding._snapshots._tasks.values())
        with database18.admin() as admin:
            found = admin.execute("SELECT version FROM headwater.snapshots").fetchall()
        assert found == [(SPACING + 1,)]


async def test_what_is_remembered_has_an_end(database18):
    async with bank(database18) as app:
        await app.deploy()
        app.deciding._remembered = remembered = Remembered(app.deciding._snapshots, 2000)
        for number in range(10):
            await app.do(Move(f"a{number}", Decimal(1)))
        assert 2 <= len(remembered._states) <= 4
        assert remembered._bytes <= 2000
        assert [of[2] for of in remembered._states][-1] == "account/a9"
