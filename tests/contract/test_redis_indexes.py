"""What Redis keeps beside a fold's documents: rankings, counters, places, distinct counts."""

from __future__ import annotations

import asyncio
from datetime import datetime
from decimal import Decimal

import pytest
from redis import Redis as Client
from redis_server import RedisServer

from headwater import (
    App,
    Counter,
    Distinct,
    Document,
    Event,
    Places,
    Ranking,
    Settings,
)
from headwater.errors import (
    DefinitionError,
    KeyParked,
    LeaseLost,
    NotCaughtUp,
    StoreRefused,
    ViewDefinitionError,
)
from headwater.relay import Batch
from headwater.stores.redis import Redis
from headwater.testing.driving import drive, publish

pytestmark = pytest.mark.postgres

INDEXES = (Ranking("points"), Counter("paid"), Places("east", "north"), Distinct("visitor"))


class Moved(Event, type="game.moved", stream="player/{player}"):
    player: str
    visitor: str | None = None
    points: int = 0
    paid: Decimal = Decimal(0)
    east: float | None = None
    north: float | None = None


class Left(Event, type="game.left", stream="player/{player}"):
    player: str


class Player(Document):
    points: int | None = None
    paid: Decimal = Decimal(0)
    east: float | None = None
    north: float | None = None
    visitor: str | None = None
    since: datetime | None = None


def make(settings, indexes=INDEXES, *, wrong="poison"):
    app = App("game", events=[Moved, Left], tenant="main", settings=settings)

    @app.fold(key="player", store=Redis("fast"), indexes=indexes)
    def players(state: Player, event: Moved | Left) -> Player | None:
        if isinstance(event, Left):
            return None
        if event.visitor == wrong:
            raise ValueError(wrong)
        return Player(
            (state.points or 0) + event.points,
            state.paid + event.paid,
            event.east,
            event.north,
            event.visitor,
        )

    return app, players


@pytest.fixture(scope="module")
def server():
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def client(server):
    with Client(unix_socket_path=server.socket) as client:
        client.flushall()
        yield client


@pytest.fixture
def settings(database18, server, client):
    return Settings(database_url=database18.url, stores={"fast": server.url()})


async def fill(app, count, *, keys=17, tenant="main"):
    return await app.append(
        *(
            Moved(
                f"p{n % keys}", f"v{n % 50}", n, Decimal(n) / 4, n % 180 - 90 + 0.5, n % 120 - 60.25
            )
            for n in range(count)
        ),
        tenant=tenant,
    )


async def test_each_index_follows_the_documents(settings):
    app, players = make(settings)
    async with app:
        await app.deploy()
        await app.append(
            Moved("ann", "x", 10, Decimal("0.1"), 14.42, 50.08),
            Moved("bob", "x", 30, Decimal("99999999999999999999.25"), 14.50, 50.10),
            Moved("cid", None, 20),
            Moved("ann", "y", 5),
            Moved("ann", "z", 5, Decimal("0.2"), 14.43, 50.09),
        )
        written = await app.append(Moved("ann", "v", 1), tenant="other")
        await drive(app, app.stored("players"), 1)
        at = {"at_least": written.token}
        assert await players.leaders(**at) == [("bob", 30), ("cid", 20), ("ann", 20)]
        assert await players.leaders(1) == [("bob", 30)]
        assert [await players.rank(key, **at) for key in ("bob", "cid", "ann", "eve")] == [
            1,
            2,
            3,
            None,
        ]
        assert await players.count("ann", "bob", "eve", **at) == {
            "ann": Decimal("0.3"), "bob": Decimal("99999999999999999999.25"),
        }  # fmt: skip
        assert await players.distinct("ann", **at) == 3
        assert await players.distinct("ann", "bob", "cid", **at) == 3
        near = await players.near(14.42, 50.08, 20_000, **at)
        assert [key for key, _ in near] == ["ann", "bob"]
        assert 1_000 < near[0][1] < 2_000
        assert await players.near(14.42, 50.08, 2_000) == near[:1]
        assert await players.leaders(tenant="other", **at) == [("ann", 1)]
        assert await players.near(14.42, 50.08, 20_000, tenant="other") == []
        assert (await app.stored("players").verify()).summary == "equal"


async def test_a_document_that_leaves_takes_its_members_along(settings, client):
    app, players = make(settings)
    async with app:
        await app.deploy()
        await app.append(
            Moved("ann", "x", 10, Decimal(1), 1.0, 1.0), Moved("bob", "x", 9), Left("bob"),
            Moved("cid", "x", 5), Left("cid"), Moved("cid", "y", 7),
        )  # fmt: skip
        await drive(app, app.stored("players"), 1)
        assert await players.leaders() == [("ann", 10), ("cid", 7)]
        assert await players.distinct("cid") == 1, "what was before it left does not count"
        await app.append(Left("ann"), Left("cid"))
        await drive(app, app.stored("players"), 2)
        assert await players.leaders() == await players.near(1.0, 1.0, 10) == []
        assert await players.count("ann") == {}
        assert await players.distinct("ann", "cid") == 0
        assert (await app.stored("players").verify()).summary == "equal"
        left = {name.decode().partition("}:")[2] for name in client.scan_iter()}
        assert left == {"checkpoint", "tenants", "indexes"}


async def test_a_batch_again_or_of_a_stale_holder_changes_nothing(settings):
    app, players = make(settings)
    async with app:
        await app.deploy()
        last = (await fill(app, 60)).position
        await publish(app)
        view = app.stored("players")
        start = await view.open(1)
        await view.apply(Batch(start, last - 20))
        before = await players.leaders(20)
        with pytest.raises(LeaseLost):
            await view.apply(Batch(start, last - 20))
        assert await players.leaders(20) == before
        await view.close()
        await drive(app, view, 2)
        assert (await view.verify()).summary == "equal"


async def test_verify_finds_what_was_changed_by_hand(settings, client):
    app, _ = make(settings)
    async with app:
        await app.deploy()
        await fill(app, 60)
        view = app.stored("players")
        await drive(app, view, 1)
        (checkpoint,) = client.scan_iter("*:checkpoint")
        prefix = checkpoint.decode().removesuffix(":checkpoint")
        changes = [
            lambda: client.zincrby(f"{prefix}:ranking:points:main", 1, "p3"),
            lambda: client.zadd(f"{prefix}:ranking:points:main", {"ghost": 1}),
            lambda: client.hset(f"{prefix}:counter:paid:main", "p4", "7"),
            lambda: client.hdel(f"{prefix}:counter:paid:main", "p5"),
            lambda: client.geoadd(f"{prefix}:places:east:north:main", (1, 1, "p6")),
            lambda: client.pfadd(f"{prefix}:distinct:visitor:4:main:p7", "nobody"),
            lambda: client.delete(f"{prefix}:distinct:visitor:4:main:p8"),
        ]
        for number, change in enumerate(changes, start=1):
            change()
            assert (await view.verify()).differing == number
        named = {d.key: d.stored for d in (await view.verify()).differences}
        assert named["ghost"] == {"ranking:points": 1.0}
        assert set(named) == {"p3", "ghost", "p4", "p5", "p6", "p7", "p8"}


async def test_verify_while_the_relay_goes_on(settings):
    app, _ = make(settings)
    async with app:
        await app.deploy()
        async with app.relay():
            for _ in range(4):
                filling = asyncio.create_task(fill(app, 400))
                verified = await app.stored("players").verify()
                await filling
                assert verified.summary == "equal", verified


async def test_what_an_index_cannot_hold_is_parked_and_replayed(settings):
    app, players = make(settings)
    async with app:
        await app.deploy()
        await app.append(Moved("ann", "x", 1, Decimal(0), 1.0, 1.0))
        await app.append(Moved("ann", "y", 1, Decimal(0), 1.0, 89.0), Moved("bob", "poison", 1))
        written = await app.append(Moved("ann", "z", 1), Moved("bob", "w", 4), Moved("cid", "w", 3))
        view = app.stored("players")
        await drive(app, view, 1)
        with pytest.raises(KeyParked):
            await players.rank("ann", at_least=written.token)
        with pytest.raises(KeyParked):
            await players.leaders(at_least=written.token)
        assert await players.rank("cid", at_least=written.token) == 1
        assert await players.leaders() == [("cid", 3), ("ann", 1)]
        assert (await view.verify()).summary == "equal except 2 parked"
    mended, players = make(settings, wrong="")
    async with mended:
        view = mended.stored("players")
        assert await view.replay() == 2
        assert await players.leaders() == [("bob", 5), ("cid", 3), ("ann", 1)]
        assert await players.distinct("bob") == 2
        await view.discard([p.position for p in await _parked(mended)][:1])
        assert await players.rank("ann") == 3
        assert await players.distinct("ann") == 2
        await view.rebuild()
        await drive(mended, view, 2)


async def _parked(app):
    async with app.database("headwater_relay").connection() as connection:
        rows = await app.stored("players").record.parked(connection)
    return [type("Parked", (), {"position": row[0]}) for row in rows]


async def test_a_rebuild_beside_swaps_the_indexes_with_the_documents(settings, client):
    app, players = make(settings, INDEXES[:1])
    async with app:
        await app.deploy()
        await fill(app, 200)
        await drive(app, app.stored("players"), 1)
        with pytest.raises(DefinitionError, match="no Counter"):
            await players.count("p1")
    changed, players = make(settings)
    async with changed:
        assert await changed.stored("players").status() == "stale"
        verified = await changed.rebuilding("players").run()
        assert verified.summary == "equal"
        assert len(await players.count(*(f"p{n}" for n in range(17)))) == 17
        await changed.stored("players").rebuild()
        await drive(changed, changed.stored("players"), 10)
        generations = {name.decode().partition("}")[0][-1] for name in client.scan_iter()}
        assert generations == {"1", "3"}, (
            "all of the second is gone; the first is kept for a rollback"
        )


async def test_a_structure_of_another_type_stops_before_the_first_write(settings, client):
    app, _ = make(settings)
    async with app:
        await app.deploy()
        last = (await fill(app, 20)).position
        view = app.stored("players")
        start = await view.open(1)
        await publish(app)
        (checkpoint,) = client.keys()
        prefix = checkpoint.decode().removesuffix(":checkpoint")
        for name in ("counter:paid:main", "distinct:visitor:4:main:p1"):
            client.set(f"{prefix}:{name}", "mine")
            with pytest.raises(StoreRefused, match="HWTYPE"):
                await view.apply(Batch(start, last))
            client.delete(f"{prefix}:{name}")
            assert not client.exists(f"{prefix}:documents:main")
        await view.apply(Batch(start, last))
        await view.close()


async def test_a_lost_index_is_not_answered_from_before_the_token(settings, client):
    app, players = make(settings)
    async with app:
        await app.deploy()
        written = await fill(app, 20)
        await drive(app, app.stored("players"), 1)
        client.flushall()
        with pytest.raises(NotCaughtUp):
            await players.leaders(at_least=written.token)


async def test_a_step_with_indexes_holds_the_server_up_for_milliseconds(settings, client):
    app, _ = make(settings)
    async with app:
        await app.deploy()
        for n in range(3):
            await fill(app, 2_000, keys=2_000 - n)
        client.config_set("slowlog-log-slower-than", 300)  # at 0 what scripts call fills it
        client.config_set("slowlog-max-len", 1000)
        client.slowlog_reset()
        await drive(app, app.stored("players"), 1)
        scripts = [
            entry["duration"] for entry in client.slowlog_get(1000)
            if entry["command"].startswith(b"EVALSHA")
        ]  # fmt: skip
        assert len(scripts) >= 30, "200 events to a step: an index is one more write for each"
        # Microseconds. The longest is the loaded machine's; what bounds it is the size of a step.
        assert sorted(scripts)[len(scripts) // 2] < 20_000


@pytest.mark.parametrize(
    ("indexes", "said"),
    [
        ([Ranking("nothing")], "does not have"),
        ([Ranking("visitor")], "may be str"),
        ([Counter("east")], "may be float"),
        ([Places("east", "since")], "may be datetime"),
        ([Distinct("east")], "may be float"),
        ([Ranking("points"), Ranking("points")], "twice"),
    ],
)
def test_an_index_that_cannot_be_kept_is_refused_when_the_app_is_built(indexes, said):
    with pytest.raises(ViewDefinitionError, match=said):
        make(Settings(), indexes)


def test_a_store_without_indexes_refuses_them():
    app = App("game", events=[Moved, Left], tenant="main")
    with pytest.raises(ViewDefinitionError, match="not in Postgres"):
        app.fold(key="player", indexes=[Ranking("points")])
