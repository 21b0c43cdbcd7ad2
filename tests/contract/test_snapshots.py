"""Snapshots: long streams load fast, and nothing rests on them."""

from __future__ import annotations

import asyncio

import pytest

from headwater import App, Command, Document, Event, Rejection, Settings
from headwater.commands.snapshots import SPACING
from headwater.errors import StateUnreadable

pytestmark = pytest.mark.postgres


@pytest.fixture
def database(database18):
    """What is tested here does not hang on the version of Postgres."""
    return database18


class Moved(Event, type="account.moved", stream="account/{account}"):
    account: str
    cents: int


class Move(Command, stream="account/{account}"):
    account: str
    cents: int


class Overdrawn(Rejection, frozen=True):
    """There is less."""


class Account(Document):
    cents: int = 0
    moves: int = 0


def bank(database, factor=1, *, closes=False):
    app = App("bank", events=[Moved], tenant="main", settings=Settings(database_url=database.url))

    def once(state: Account, event: Moved) -> Account | None:
        return state.but(cents=state.cents + event.cents, moves=state.moves + 1)

    def twice(state: Account, event: Moved) -> Account | None:
        return state.but(cents=state.cents + 2 * event.cents, moves=state.moves + 1)

    def closing(state: Account, event: Moved) -> Account | None:
        if event.cents == 0:
            return None
        return state.but(cents=state.cents + event.cents, moves=state.moves + 1)

    evolve = closing if closes else (once if factor == 1 else twice)
    accounts = app.fold(key="account", name="accounts")(evolve)
    app.seen = []

    @app.command(accounts)
    def move(state: Account, command: Move) -> Moved | Overdrawn:
        app.seen.append((state.cents, state.moves))
        if state.cents + command.cents < 0:
            return Overdrawn()
        return Moved(command.account, command.cents)

    return app


async def fill(app, account, count):
    for start in range(0, count, 1000):
        await app.append(*(Moved(account, 1) for _ in range(min(1000, count - start))))


async def kept(app, database):
    """The snapshots, once those under way are kept: version and state."""
    await asyncio.gather(*app.deciding._snapshots._tasks.values())
    with database.admin() as admin:
        return admin.execute("SELECT version, state FROM headwater.snapshots ORDER BY version").fetchall()  # fmt: skip


async def test_a_long_stream_is_read_from_its_snapshot_on(database):
    async with bank(database) as app:
        await app.deploy()
        await fill(app, "a", 2 * SPACING + 3)
        assert (await app.do(Move("a", -1))).versions == (2 * SPACING + 4,)
        assert await kept(app, database) == [(2 * SPACING + 3, {"cents": 1003, "moves": 1003})]
        with database.admin() as admin:  # so that reading it all would show
            admin.execute('UPDATE headwater.snapshots SET state = \'{"cents": 7, "moves": 1003}\'')
    async with bank(database) as app:  # which remembers nothing
        await app.do(Move("a", 1))
        assert app.seen == [(6, 1004)]
        assert isinstance(await app.do(Move("a", -8)), Overdrawn)
        # Under a key, in one transaction with the facts, it is used too.
        await app.do(Move("a", 1), idempotency_key="k")
        assert app.seen[-1] == (7, 1005)
        assert [version for version, _ in await kept(app, database)] == [2 * SPACING + 3]


async def test_changed_code_and_an_emptied_table_read_the_stream_again(database):
    async with bank(database) as app:
        await app.deploy()
        await fill(app, "a", SPACING)
        await app.do(Move("a", 1))
        await kept(app, database)
    async with bank(database, factor=2) as app:
        await app.do(Move("a", 1))
        assert app.seen == [(2 * SPACING + 2, SPACING + 1)]
        assert [state["cents"] for _, state in await kept(app, database)] == [500, 1002]
    with database.admin() as admin:
        admin.execute("DELETE FROM headwater.snapshots")
    async with bank(database) as app:
        await app.do(Move("a", 1))
        assert app.seen == [(SPACING + 2, SPACING + 2)]


async def test_a_removed_document_and_short_streams(database18):
    async with bank(database18, closes=True) as app:
        await app.deploy()
        await fill(app, "a", SPACING)
        await app.append(Moved("a", 0))
        await app.do(Move("a", 3))
        assert await kept(app, database18) == [(SPACING + 1, None)]
    async with bank(database18, closes=True) as later:
        await later.do(Move("a", 1))
        assert app.seen + later.seen == [(0, 0), (3, 1)]
    async with bank(database18, closes=True) as app:
        await fill(app, "b", SPACING - 2)
        await app.do(Move("b", 1))
        assert len(await kept(app, database18)) == 1


async def test_tenants_and_streams_do_not_see_each_others(database18):
    async with bank(database18) as app:
        await app.deploy()
        for tenant in ("main", "other"):
            await app.append(*(Moved("a", 1) for _ in range(SPACING)), tenant=tenant)
        await app.do(Move("a", 1), tenant="main")
        await kept(app, database18)
        with database18.admin() as admin:
            admin.execute('UPDATE headwater.snapshots SET state = \'{"cents": 7, "moves": 1}\'')
        await app.do(Move("a", 1), tenant="other")
        await app.do(Move("b", 1), tenant="main")
        assert app.seen == [(SPACING, SPACING), (SPACING, SPACING), (0, 0)]
        async with app.database().transaction("third") as connection:
            cursor = await connection.execute("SELECT count(*) FROM headwater.snapshots")
            assert await cursor.fetchone() == (0,)


async def test_a_broken_snapshot_decides_nothing_and_says_what_to_do(database18):
    async with bank(database18) as app:
        await app.deploy()
        await fill(app, "a", SPACING)
        await app.do(Move("a", 1))
        await kept(app, database18)
    with database18.admin() as admin:
        admin.execute('UPDATE headwater.snapshots SET state = \'{"cents": "x"}\'')
    async with bank(database18) as app:
        with pytest.raises(StateUnreadable, match="Delete it from"):
            await app.do(Move("a", 1))
        await app.database("headwater_operator").open()
        async with app.database("headwater_operator").connection() as operator:
            await operator.execute("DELETE FROM headwater.snapshots")
        assert (await app.do(Move("a", 1))).versions == (SPACING + 2,)


async def test_what_nobody_makes_anew_is_forgotten(database18):
    async with bank(database18) as app:
        await app.deploy()
        await fill(app, "a", SPACING)
        await app.do(Move("a", 1))
        await kept(app, database18)
        with database18.admin() as admin:
            admin.execute("UPDATE headwater.snapshots SET made_at = now() - interval '31 days'")
        async with app.relay():
            with database18.admin() as admin:
                async with asyncio.timeout(60):
                    while admin.execute("SELECT count(*) FROM headwater.snapshots").fetchone()[0]:
                        await asyncio.sleep(0.01)
