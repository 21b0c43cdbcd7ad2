"""A fold is rebuilt by several processes, each its slice of the keys, and is what one would have built."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
import sliced_shop
from redis_server import RedisServer
from sliced_shop import Order, Placed, Scanned, opened

from headwater import App, Settings
from headwater.errors import DefinitionError, RebuildInterrupted
from headwater.operations.health import view_rows
from headwater.testing.driving import drive

pytestmark = pytest.mark.postgres

_EVENTS = 6_000
_KEYS = 700


@pytest.fixture
def redis():
    server = RedisServer()
    yield server
    server.close()


async def fill(app: App) -> None:
    await app.append(*(Placed(f"k{n % _KEYS}", n) for n in range(_EVENTS)))


async def documents(app: App, view: str) -> dict[str, object]:
    return {key: document async for key, document in _every(app.view(view))}


async def _every(view):
    after = ""
    while page := await view.list(after=after, limit=500):
        for key, document in page:
            yield key, document
        after = page[-1][0]


async def generation(app: App, view: str) -> int:
    async with app.database("headwater_relay").connection() as connection:
        asked = "SELECT generation FROM headwater.views WHERE view = %s"
        row = await (await connection.execute(asked, [view])).fetchone()
        return row[0]


async def left_over(database, view: str) -> list[str]:
    with database.admin() as admin:
        asked = "SELECT view FROM headwater.views WHERE view LIKE %s"
        return [row[0] for row in admin.execute(asked, [f"{view}~next%"])]


def positions(database, view: str) -> list[int]:
    """Where the slices are."""
    with database.admin() as admin:
        asked = "SELECT position FROM headwater.checkpoints WHERE view LIKE %s"
        return [row[0] for row in admin.execute(asked, [f"{view}~next~%"])]


@pytest.mark.parametrize("view", ["orders", "fast_orders"])
async def test_what_two_processes_build_is_what_one_had_built(database18, redis, view):
    async with opened(database18.url, redis.url()) as app:
        await app.deploy()
        await fill(app)
        await drive(app, app.stored(view), 1)
        before = await documents(app, view)
        heard: list[tuple[int, int]] = []
        rebuild = app.rebuilding(view, share=1.0, processes=2)
        verified = await rebuild.run(lambda done, total: heard.append((done, total)))
        assert verified.summary == "equal"
        assert await documents(app, view) == before
        assert len(before) == _KEYS
        assert await generation(app, view) == 2
        assert await left_over(database18, view) == []
        assert heard[-1][0] == heard[-1][1]
        # It goes on from there as any view does: each event counts once.
        await app.append(Placed("k1", 5))
        await drive(app, app.stored(view), 2)
        assert (await app.view(view).get("k1")).events == before["k1"].events + 1
        assert (await app.stored(view).verify()).summary == "equal"


async def test_a_key_that_is_no_text_is_in_one_slice_however_it_is_written(database18):
    parcel = UUID("aaaaaaaa-0000-4000-8000-00000000000b")
    async with opened(database18.url) as app:
        await app.deploy()
        await app.append(*(Scanned(UUID(int=n), n) for n in range(50)), Scanned(parcel, 1))
        with database18.admin() as admin:
            loud = str(parcel).upper()
            asked = "SELECT headwater.append(%s, 'parcel.scanned', %s::jsonb, tenant => 'main')"
            admin.execute(asked, [f"parcel/{loud}", json.dumps({"parcel": loud, "grams": 2})])
        assert not app.view("parcels").fold.is_key_text
        await drive(app, app.stored("parcels"), 1)
        assert (await app.view("parcels").get(parcel)).scans == 2
        verified = await app.rebuilding("parcels", share=1.0, processes=3).run()
        assert verified.summary == "equal"
        assert (await app.view("parcels").get(parcel)).scans == 2


@pytest.mark.parametrize("view", ["orders", "fast_orders"])
async def test_a_process_that_is_killed_is_told_of_and_the_next_rebuild_goes_on(
    database18, redis, view, tmp_path, monkeypatch
):
    file = tmp_path / "kill"
    file.touch()
    # Told to children only: in this process the fold is not killed, since the file is gone before.
    async with opened(database18.url, redis.url()) as app:
        await app.deploy()
        await fill(app)
        await app.append(Placed("the-last", 1))
        file.unlink()
        await drive(app, app.stored(view), 1)
        before = await documents(app, view)
        file.touch()
        monkeypatch.setenv("SLICED_KILL_AT", "the-last")
        monkeypatch.setenv("SLICED_KILL_FILE", str(file))
        with pytest.raises(RebuildInterrupted, match="a slice of"):
            await app.rebuilding(view, share=1.0, processes=2).run()
        assert not file.exists()
        rows = {row[0]: row for row in await view_rows(app.database("headwater_operator"), {})}
        assert rows[f"{view}~next"][2] == "building"
        assert rows[f"{view}~next"][3] == min(reached := positions(database18, view))
        assert max(reached) > 0
        assert not any("~next~" in name for name in rows)
        assert sorted(await left_over(database18, view)) == [f"{view}~next", f"{view}~next~0", f"{view}~next~1"]  # fmt: skip
        # By one process, and in this one: the slices that were begun are finished.
        assert (await app.rebuilding(view, share=1.0).run()).summary == "equal"
        assert await left_over(database18, view) == []
        assert await documents(app, view) == before


async def test_a_parked_key_is_parked_in_what_is_built(database18, monkeypatch):
    async with opened(database18.url) as app:
        await app.deploy()
        await fill(app)
        await app.append(Placed("k3", -1), Placed("k3", 7), Placed("k4", 8))
        await drive(app, app.stored("orders"), 1)
        verified = await app.rebuilding("orders", share=1.0, processes=2).run()
        assert verified.equal
        assert verified.parked_keys == 1
        assert await left_over(database18, "orders") == []
        with database18.admin() as admin:
            asked = (
                "SELECT culprit, keys FROM headwater.parked WHERE view = 'orders' ORDER BY position"
            )
            assert admin.execute(asked).fetchall() == [(True, ["k3"]), (False, ["k3"])]
        monkeypatch.setattr(sliced_shop, "PARKED_BELOW", -10)
        assert await app.stored("orders").replay() == 2
        assert (await app.stored("orders").verify()).summary == "equal"


async def test_slices_go_with_their_candidate(database18, redis):
    """A candidate of another definition begins anew, with what it had set aside and its slices."""
    async with opened(database18.url, redis.url()) as app:
        await app.deploy()
        await fill(app)
        await drive(app, app.stored("orders"), 1)
        rebuild = app.rebuilding("orders", share=1.0, processes=3)
        async with rebuild.building.lease():
            await rebuild._begin()
        assert len(await left_over(database18, "orders")) == 4
        with database18.admin() as admin:
            admin.execute("UPDATE headwater.views SET fingerprint = 'another' WHERE view = 'orders~next'")  # fmt: skip
        assert (await app.rebuilding("orders", share=1.0).run()).summary == "equal"
        assert await left_over(database18, "orders") == []
        assert await generation(app, "orders") == 3


async def test_a_fold_that_others_do_not_find_is_refused(database18):
    app = App(
        "local", events=[Placed], tenant="main", settings=Settings(database_url=database18.url)
    )

    @app.fold(key="order")
    def things(state: Order, event: Placed) -> Order:
        return state.but(events=state.events + 1)

    async with app:
        await app.deploy()
        with pytest.raises(DefinitionError, match="others do not find"):
            app.rebuilding("things", processes=2)
        assert app.rebuilding("things") is not None
