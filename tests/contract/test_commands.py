"""Deciding: commands on one stream, on several, and on keys, one after another and all at once."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from psycopg.errors import CheckViolation, DeadlockDetected

from headwater import Accepted, App, Command, Document, Event, Rejection, Settings, over
from headwater.commands import Decider
from headwater.commands.decider import Source
from headwater.errors import (
    CommandDefinitionError,
    DecisionOutdated,
    EventDefinitionError,
    IdempotencyKeyReused,
    InvalidEvent,
    InvalidStreamName,
    LimitExceeded,
    StateUnreadable,
    TenantRefused,
)

pytestmark = pytest.mark.postgres


class Opened(Event, type="account.opened", stream="account/{account}", keys=("mail:{mail}",)):
    account: str
    mail: str | None


class Deposited(Event, type="account.deposited", stream="account/{account}"):
    account: str
    amount: int


class Withdrawn(Event, type="account.withdrawn", stream="account/{account}"):
    account: str
    amount: int


class Booked(Event, type="room.booked", stream="guest/{guest}", keys=("room:{room}",)):
    guest: str
    room: str
    day: int


class Account(Document):
    balance: int = 0
    open: bool = False


class Mail(Document):
    taken: bool = False


class Room(Document):
    days: tuple[int, ...] = ()


class Open(Command, stream="account/{account}"):
    account: str
    mail: str | None = None


class Withdraw(Command, stream="account/{account}"):
    account: str
    amount: int


class Move(Command):
    """From one account of a customer, who may go below zero in one while the sum of both is positive."""

    source: str
    other: str
    amount: int


class Book(Command, stream="guest/{guest}"):
    guest: str
    room: str
    day: int


class Close(Command):
    account: str


class NoFunds(Rejection, frozen=True):
    """The account holds less than that."""

    balance: int


class MailTaken(Rejection, frozen=True):
    """Another account has this mail address."""


class RoomTaken(Rejection, frozen=True):
    """The room is booked on that day."""


def bank(database) -> App:
    app = App(
        "bank",
        events=[Opened, Deposited, Withdrawn, Booked],
        tenant="main",
        settings=Settings(database_url=database.url),
    )

    @app.fold(key="account")
    def accounts(state: Account, event: Opened | Deposited | Withdrawn) -> Account | None:
        if isinstance(event, Opened):
            return state.but(open=True)
        if event.amount == 13:
            raise ValueError("unlucky")
        sign = 1 if isinstance(event, Deposited) else -1
        return state.but(balance=state.balance + sign * event.amount)

    @app.fold(key="mail")
    def mails(state: Mail, event: Opened) -> Mail | None:
        return state.but(taken=True)

    @app.fold(key="room")
    def rooms(state: Room, event: Booked) -> Room | None:
        return state.but(days=(*state.days, event.day))

    @app.command(accounts, over(mails, key="mail:{mail}"))
    def open_account(state: Account, mail: Mail | None, command: Open) -> Opened | MailTaken | None:
        if mail is not None:
            return MailTaken()
        return None if state.open else Opened(command.account, command.mail)

    @app.command(accounts)
    def withdraw(state: Account, command: Withdraw) -> list[Withdrawn] | NoFunds:
        if state.balance < command.amount:
            return NoFunds(state.balance)
        return [Withdrawn(command.account, command.amount)]

    @app.command(
        over(accounts, stream="account/{source}"), over(accounts, stream="account/{other}")
    )
    def move(one: Account, other: Account, command: Move) -> Withdrawn | NoFunds:
        if one.balance + other.balance < command.amount:
            return NoFunds(one.balance + other.balance)
        return Withdrawn(command.source, command.amount)

    @app.command(over(rooms, key="room:{room}"))
    def book(room: Room, command: Book) -> Booked | RoomTaken:
        if command.day in room.days:
            return RoomTaken()
        return Booked(command.guest, command.room, command.day)

    return app


@pytest.fixture
async def app(database):
    async with bank(database) as app:
        await app.deploy()
        yield app


@pytest.fixture
async def app18(database18):
    async with bank(database18) as app:
        await app.deploy()
        yield app


async def stream(app, name):
    return [recorded.event for recorded in await app.log.stream(name, tenant="main")]


async def test_a_command_leads_to_facts_or_to_a_typed_rejection(app18):
    await app18.append(Deposited("a", 10))
    accepted = await app18.do(Withdraw("a", 4), metadata={"actor": "ada"})
    assert isinstance(accepted, Accepted)
    assert (accepted.events, accepted.versions) == ((Withdrawn("a", 4),), (2,))
    refused = await app18.do(Withdraw("a", 7))
    assert refused == NoFunds(6)
    assert refused.message == "The account holds less than that."
    (_, last) = await app18.log.stream("account/a", tenant="main")
    assert (last.event, last.metadata) == (Withdrawn("a", 4), {"actor": "ada"})


@pytest.mark.parametrize("key", [None, "once"])
async def test_the_facts_of_a_command_say_when_they_happened(app, key):
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    await app.append(Deposited("a", 10), occurred_at=noon - timedelta(hours=1))
    await app.do(Withdraw("a", 4), occurred_at=noon, idempotency_key=key)
    await app.do(Withdraw("a", 1))
    told = [recorded.occurred_at for recorded in await app.log.stream("account/a", tenant="main")]
    assert told == [noon - timedelta(hours=1), noon, None]


async def test_what_a_command_returns_is_read_at_its_token(app18):
    await app18.append(Deposited("a", 10))
    async with app18.relay():
        accepted = await app18.do(Withdraw("a", 4))
        assert (await app18.view("accounts").get("a", at_least=accepted.token)).balance == 6
        nothing = await app18.do(Open("a"))
        again = await app18.do(Open("a"))
        assert (again.events, again.token) == ((), nothing.token)
        assert (await app18.view("accounts").get("a", at_least=again.token)).open


async def test_concurrent_commands_never_overdraw(app):
    await app.append(Deposited("a", 10))
    answers = await asyncio.gather(*(app.do(Withdraw("a", 3)) for _ in range(12)))
    assert sorted(type(answer) is Accepted for answer in answers).count(True) == 3
    assert all(answer == NoFunds(1) for answer in answers if not isinstance(answer, Accepted))


# Beside the application's own tables ----------------------------------------------------------------


async def with_slips(app):
    """A table of the application's own, and what notes an amount in it."""
    async with app.transaction() as tx:
        await tx.connection.execute("CREATE SCHEMA bank")
        await tx.connection.execute("CREATE TABLE bank.slips (amount int CHECK (amount < 5))")

    async def note(tx, accepted):
        for event in accepted.events:
            await tx.connection.execute("INSERT INTO bank.slips VALUES (%s)", [event.amount])

    return note


async def slips(app):
    async with app.transaction() as tx:
        cursor = await tx.connection.execute("SELECT amount FROM bank.slips")
        return [amount for (amount,) in await cursor.fetchall()]


@pytest.mark.parametrize("key", [None, "once"])
async def test_what_the_application_writes_beside_a_command_commits_with_its_facts(app, key):
    note = await with_slips(app)
    await app.append(Deposited("a", 10))
    with pytest.raises(CheckViolation):
        await app.do(Withdraw("a", 5), beside=note, idempotency_key=key)
    assert await stream(app, "account/a") == [Deposited("a", 10)]
    assert await slips(app) == []
    await app.do(Withdraw("a", 4), beside=note, idempotency_key=key)
    assert await app.do(Withdraw("a", 9), beside=note) == NoFunds(6)
    assert await stream(app, "account/a") == [Deposited("a", 10), Withdrawn("a", 4)]
    assert await slips(app) == [4]


async def test_a_process_that_decided_there_before_writes_beside_all_the_same(app):
    note = await with_slips(app)
    await app.append(Deposited("a", 10))
    for _ in range(2):
        await app.do(Withdraw("a", 1))
        await app.do(Withdraw("a", 2), beside=note)
    assert len(await stream(app, "account/a")) == 5
    assert await slips(app) == [2, 2]


async def test_a_command_that_comes_again_writes_nothing_beside(app):
    note = await with_slips(app)
    await app.append(Deposited("a", 10))
    again = [app.do(Withdraw("a", 4), beside=note, idempotency_key="k") for _ in range(4)]
    assert sum(answer.duplicate for answer in await asyncio.gather(*again)) == 3
    assert await slips(app) == [4]


async def test_commands_all_at_once_write_beside_what_was_decided_and_no_more(app):
    note = await with_slips(app)
    await app.append(Deposited("a", 10))
    answers = await asyncio.gather(*(app.do(Withdraw("a", 3), beside=note) for _ in range(12)))
    assert sum(isinstance(answer, Accepted) for answer in answers) == 3
    assert await slips(app) == [3, 3, 3]


# Boundaries --------------------------------------------------------------------------------------


async def test_one_account_for_each_mail_address(app):
    """Uniqueness over streams: twenty accounts want four addresses at once."""
    answers = await asyncio.gather(*(app.do(Open(f"a{n}", f"m{n % 4}")) for n in range(20)))
    opened = [answer.events[0] for answer in answers if isinstance(answer, Accepted)]
    assert sorted(event.mail for event in opened) == ["m0", "m1", "m2", "m3"]
    assert sum(answer == MailTaken() for answer in answers) == 16


async def test_no_write_skew(app):
    """Each command reads both accounts and writes one of them: together they may not go below zero."""
    for n in range(6):
        await app.append(Deposited(f"x{n}", 5), Deposited(f"y{n}", 5))
    moves = [Move(f"{a}{n}", f"{b}{n}", 8) for n in range(6) for a, b in (("x", "y"), ("y", "x"))]
    answers = await asyncio.gather(*(app.do(move) for move in moves))
    for n in range(6):
        pair = answers[2 * n : 2 * n + 2]
        assert sum(isinstance(answer, Accepted) for answer in pair) == 1, n


async def test_no_room_is_booked_twice_whoever_books_and_however(app):
    """Seeded: deciders, plain appends of the same key and rollbacks, all at once."""
    chance = Random(5)
    wanted = [Book(f"g{n}", f"r{n % 3}", chance.randrange(6)) for n in range(60)]

    async def decide(command):
        await asyncio.sleep(chance.random() / 50)
        return await app.do(command)

    async def undo(n):
        async with app.database().connection() as connection:
            with pytest.raises(ZeroDivisionError):
                async with connection.transaction():
                    await app.on(connection).append(Booked(f"u{n}", f"r{n % 3}", 99))
                    await asyncio.sleep(chance.random() / 100)
                    raise ZeroDivisionError

    answers, _ = await asyncio.gather(
        asyncio.gather(*map(decide, wanted)),
        asyncio.gather(*(undo(n) for n in range(10))),
    )
    asked = {(command.room, command.day) for command in wanted}
    assert sum(isinstance(answer, Accepted) for answer in answers) == len(asked)
    events = [event for n in range(60) for event in await stream(app, f"guest/g{n}")]
    taken = [(event.room, event.day) for event in events]
    assert sorted(taken) == sorted(asked)


async def test_without_the_check_rooms_are_booked_twice(app18, monkeypatch):
    """The tests above can fail: a decider that does not say what it looked at overbooks."""
    decider = app18._deciders[Book]
    monkeypatch.setitem(app18._deciders, Book, _Careless(decider))
    answers = await asyncio.gather(*(app18.do(Book(f"g{n}", "r", 1)) for n in range(12)))
    assert sum(isinstance(answer, Accepted) for answer in answers) > 1


class _Careless:
    """A broken variant: it looks, and then appends whatever has happened since."""

    def __init__(self, decider):
        self._decider = decider
        self.name = decider.name
        self.sources = ()

    def decided(self, states, command):
        return self._decider.decided([None], command)


async def test_plain_sql_depends_on_what_it_saw(app, database):
    """Any language: read, decide, require, append, in one transaction."""
    await app.append(Booked("g", "r", 1))
    async with app.database().transaction("main") as connection:
        cursor = await connection.execute(
            "SELECT version FROM headwater.keys WHERE key = 'room:r' "
            "UNION ALL SELECT version FROM headwater.streams WHERE stream = 'guest/g'"
        )
        assert await cursor.fetchall() == [(1,), (1,)]
        await connection.execute(
            'SELECT headwater.require(\'{"guest/g": 1, "guest/new": 0}\', \'{"room:r": 1}\')'
        )
    await app.append(Booked("h", "r", 2))
    for streams, keys, what in (
        ("{}", '{"room:r": 1}', "The key 'room:r' is at version 2, not 1."),
        ('{"guest/g": 0}', "{}", "The stream 'guest/g' is at version 1, not 0."),
    ):
        with pytest.raises(DecisionOutdated, match=what):
            await _require(app, streams, keys)
    other = app.database()
    async with other.transaction("other") as connection:  # another tenant's keys are others
        await connection.execute("SELECT headwater.require('{}', '{\"room:r\": 0}')")


async def _require(app, streams, keys, tenant="main", named=None):
    async with app.database().transaction(tenant) as connection:
        await connection.execute("SELECT headwater.require(%s, %s, %s)", [streams, keys, named])


@pytest.mark.parametrize(
    ("streams", "keys", "named", "error"),
    [
        ("[]", "{}", None, "InvalidEvent"),
        ('{"guest/g": "1"}', "{}", None, "InvalidEvent"),
        ('{"Guest": 1}', "{}", None, InvalidStreamName),
        ("{}", '{"": 1}', None, LimitExceeded),
        ("{}", "{}", "other", TenantRefused),
    ],
)
async def test_what_cannot_be_required_is_refused(app, streams, keys, named, error):
    with pytest.raises(Exception) as raised:
        await _require(app, streams, keys, named=named)
    expected = error if isinstance(error, str) else error.__name__
    assert type(raised.value).__name__ == expected
    async with app.database("headwater_relay").connection() as connection:
        cursor = await connection.execute("SELECT count(*) FROM headwater.keys")
        assert await cursor.fetchone() == (0,)


async def test_keys_count_events_however_they_are_appended(app):
    await app.append(Booked("g", "r", 1))
    await app.append(*(Booked("g", "r", n) for n in range(2, 4)), Booked("h", "s", 1))
    async with app.transaction() as tx:
        await tx.append(Booked("i", "r", 4))
        await tx.append(Deposited("i", 4), keys=["room:s", "room:r"])
    with pytest.raises(LimitExceeded):
        await app.append(Booked("g", "r" * 300, 1))
    async with app.database().transaction("main") as connection:
        cursor = await connection.execute("SELECT key, version FROM headwater.keys ORDER BY key")
        assert await cursor.fetchall() == [("room:r", 5), ("room:s", 2)]
        cursor = await connection.execute(
            "SELECT k.key, count(*) FROM headwater.key_events AS k JOIN headwater.events AS e USING (position) "
            "WHERE k.key = ANY (e.keys) GROUP BY 1 ORDER BY 1"
        )
        assert await cursor.fetchall() == [("room:r", 5), ("room:s", 2)]
    async with app.database().transaction("other") as connection:
        cursor = await connection.execute("SELECT count(*) FROM headwater.keys")
        assert await cursor.fetchone() == (0,)


# Idempotency -------------------------------------------------------------------------------------


async def test_a_command_under_a_key_is_done_once(app):
    await app.append(Deposited("a", 10))
    answers = await asyncio.gather(
        *(app.do(Withdraw("a", 8), idempotency_key="w1") for _ in range(8))
    )
    assert sum(not answer.duplicate for answer in answers) == 1
    assert len({answer.positions for answer in map(_plain, answers)}) == 1
    assert len({answer.token for answer in answers}) == 1
    assert len(await stream(app, "account/a")) == 2
    with pytest.raises(IdempotencyKeyReused):
        await app.do(Withdraw("a", 1), idempotency_key="w1")


def _plain(answer):
    return Accepted(answer.token, (), tuple(answer.positions), tuple(answer.versions))


async def test_what_left_no_facts_runs_again_under_its_key(app18):
    assert await app18.do(Withdraw("a", 5), idempotency_key="w") == NoFunds(0)
    await app18.append(Deposited("a", 10))
    assert isinstance(await app18.do(Withdraw("a", 5), idempotency_key="w"), Accepted)


# What is refused ---------------------------------------------------------------------------------


async def test_a_state_that_cannot_be_folded_decides_nothing(app18):
    await app18.append(Deposited("a", 13))
    with pytest.raises(StateUnreadable, match=r"'accounts' fails at the event .* unlucky"):
        await app18.do(Withdraw("a", 1))


async def test_definitions_are_checked_when_the_app_is_built(app18):
    accounts = app18.view("accounts")

    def no_stream(state: Account, command: Close) -> None: ...
    def wrong_state(state: Room, command: Withdraw) -> None: ...
    def no_command(state: Account, command: Account) -> None: ...
    def twice(state: Account, command: Withdraw) -> None: ...
    def too_few(command: Withdraw) -> None: ...
    def no_field(state: Account, command: Withdraw) -> None: ...

    for function, overs in (
        (no_stream, [accounts]),
        (wrong_state, [accounts]),
        (no_command, [accounts]),
        (twice, [accounts]),
        (too_few, [accounts]),
        (no_field, [over(accounts, key="mail:{mail}")]),
    ):
        with pytest.raises(CommandDefinitionError):
            app18.command(*overs)(function)
    with pytest.raises(CommandDefinitionError, match="decides on Close"):
        await app18.do(Close("a"))
    with pytest.raises(CommandDefinitionError):
        over(accounts)

    class Wrong(Event, type="a.b", stream="a/{a}", keys=("b:{b}",)):
        a: str

    with pytest.raises(EventDefinitionError, match="malformed key"):
        App("wrong", events=[Wrong])


async def test_a_decider_is_a_plain_function(app18):
    decider = app18._deciders[Withdraw]
    assert isinstance(decider, Decider)
    assert all(isinstance(source, Source) for source in decider.sources)
    assert decider.decide(Account(balance=1), Withdraw("a", 2)) == NoFunds(1)


# From outside ------------------------------------------------------------------------------------


async def _blocked(admin, sessions):
    """Waits until so many sessions of this database wait for a lock."""
    async with asyncio.timeout(60):
        while admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ).fetchone() != (sessions,):
            await asyncio.sleep(0.01)


async def test_an_append_and_a_decision_on_its_keys_never_wait_in_a_circle(app, database):
    """One key is known, the other is new: both take them in the same order."""

    async def run(statement):
        async with app.database().transaction("main") as connection:
            await connection.execute(statement)

    with database.admin() as admin, database.admin() as holder:
        holder.execute("INSERT INTO headwater.keys VALUES ('main', 'a', 0)")
        with holder.transaction():
            holder.execute("SELECT FROM headwater.keys FOR UPDATE")
            event = '{"guest": "g", "room": "r", "day": 1}'
            append = (
                f"SELECT headwater.append('guest/g', 'room.booked', '{event}', keys => '{{a,b}}')"
            )
            appending = asyncio.create_task(run(append))
            await _blocked(admin, 1)
            deciding = asyncio.create_task(
                run("SELECT headwater.require('{}', '{\"a\": 1, \"b\": 1}')")
            )
            await _blocked(admin, 2)
        await asyncio.gather(appending, deciding)


@pytest.mark.parametrize(
    ("streams", "keys"),
    [
        ('{"a/b": 1.5}', "{}"),
        ('{"a/b": 1e30}', "{}"),
        ('{"a/b": -1}', "{}"),
        ("{}", '{"k": "1"}'),
        ("{}", '{"k": null}'),
        ("[1]", "{}"),
        ("{}", "null"),
    ],
)
async def test_versions_are_whole_numbers(app18, streams, keys):
    with pytest.raises(InvalidEvent, match="two objects of names and versions"):
        await _require(app18, streams, keys)


@pytest.mark.parametrize("bad", ["b\x00", "b\ud800", "b c", "b" * 300])
async def test_one_callers_name_fails_no_other(app18, bad):
    """Reads are shared by those who come at the same time."""
    names = ["a", "b", "c", bad, "d", "e"]
    asked = (app18.do(Withdraw(name, 1)) for name in names)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers] == [NoFunds] * 3 + [InvalidStreamName] + [
        NoFunds
    ] * 2


@pytest.mark.parametrize("bad", ["m\x00", "m\ud800", "m" * 300])
async def test_a_key_that_cannot_be_is_refused(app18, bad):
    with pytest.raises(LimitExceeded):
        await app18.do(Open("a", bad))


@pytest.mark.parametrize(
    "bad", [{"idempotency_key": "\ud800"}, {"tenant": "\ud800"}, {"tenant": "\x00"}]
)
async def test_what_is_no_text_fails_its_own_append_alone(app18, bad):
    for _ in range(3):
        asked = (app18.append(Deposited("a", 1), **options) for options in ({}, bad, {}))
        async with asyncio.timeout(60):
            first, refused, last = await asyncio.gather(*asked, return_exceptions=True)
        assert first.position
        assert last.position
        assert isinstance(refused, Exception)


async def test_an_append_that_is_ended_in_a_circle_goes_again(app, database):
    """A transaction that requires a stream and then appends a key takes them in another order than the append."""
    booked = "SELECT headwater.append(%s, 'room.booked', %s, keys => '{room:r}')"
    with database.admin() as admin:
        for attempt in range(5):  # on a slow machine Postgres may end the other of the two
            guest = f"g{attempt}"
            data = json.dumps({"guest": guest, "room": "r", "day": 1})
            with suppress(DeadlockDetected):
                async with app.database().transaction("main") as connection:
                    needed = json.dumps({f"guest/{guest}": 0})
                    await connection.execute("SELECT headwater.require(%s)", [needed])
                    appending = asyncio.create_task(app.append(Booked(guest, "r", 2)))
                    await _blocked(admin, 1)
                    await connection.execute(booked, [f"guest/{guest}", data])
            if (await appending).version == 2:
                return
    raise AssertionError("the append was never the one that was ended")
