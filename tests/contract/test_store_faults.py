"""What becomes of views when their engines fail, as operators see it: in `headwater views`, /readyz and metrics."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, asynccontextmanager
from decimal import Decimal

import httpx
import pytest
from redis import Redis as Client
from redis_server import RedisServer
from test_clickhouse import kill_owner

from headwater import App, Document, Settings
from headwater.entrances.http import listen, serving
from headwater.operations.health import view_rows
from headwater.stores.clickhouse import ClickHouse
from headwater.stores.clickhouse.placement import Placement
from headwater.stores.lake import Lake
from headwater.stores.redis import Redis
from headwater.testing.contract_app import Placed, Removed
from headwater.testing.stores import fill
from tests.support.faults import Disguise, Disk

pytestmark = pytest.mark.postgres

ELSEWHERE = ("counted", "totals", "archive")
PATIENCE_SECONDS = 120


class Counted(Document):
    events: int = 0


def make(settings, stores):
    """The same events in views everywhere; ``plain`` is beside the log."""
    app = App("contract", events=[Placed, Removed], tenant="main", settings=settings)
    sql = "SELECT keyed, count(*) AS events FROM contract.placed GROUP BY keyed"
    app.sql("plain", sql=sql)
    if "fast" in stores:

        @app.fold(key="keyed", store=Redis("fast"))
        def counted(state: Counted, event: Placed) -> Counted:
            return state.but(events=state.events + 1)

    if "analytics" in stores:
        app.sql(
            "totals", sql=sql, store=ClickHouse("analytics", every_seconds=0.05, idle_seconds=20)
        )
    if "lake" in stores:
        app.feed("archive", types=[Placed], store=Lake("lake", every_seconds=0.05))
    return app


class Ground:
    """A Redis, an engine of ClickHouse and a lake, on disks of their own."""

    def __init__(self, database, folder):
        self.database = database
        self.redis = RedisServer()
        self.disks = {
            name: Disk(folder / name, mb) for name, mb in (("analytics", 160), ("lake", 1))
        }
        self.engine = folder / "analytics" / "engine"
        self.urls = {
            "fast": self.redis.url(),
            "analytics": f"chdb://{self.engine}",
            "lake": f"file://{folder}/lake/objects",
        }

    def settings(self, **urls):
        return Settings(database_url=self.database.url, stores=self.urls | urls)

    def client(self):
        return Client(unix_socket_path=self.redis.socket)

    def close(self):
        kill_owner(self.engine)
        for disk in self.disks.values():
            disk.free()
            disk.close()
        self.redis.close()


@pytest.fixture
def ground(database18, tmp_path):
    with ExitStack() as stack:
        ground = Ground(database18, tmp_path)
        stack.callback(ground.close)
        yield ground


@asynccontextmanager
async def watched(app):
    """An open app's server, as its operators ask it."""
    async with serving(app, listen("127.0.0.1:0")) as server:
        headers = {"Authorization": f"Bearer {server.local_token}"}
        async with httpx.AsyncClient(base_url=server.url, headers=headers) as client:
            yield client


async def shows(app, client, state, said):
    """Waits until the three places say that of the views; ``said`` is what each tells an operator.

    All at once: what is stale is tried again every two seconds.
    """
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            rows = await view_rows(app.database("headwater_operator"), {})
            found = {row[0]: (row[6], str(row[8])) for row in rows}
            readiness = (await client.get("/readyz")).json()
            metrics = (await client.get("/metrics")).text
            assert readiness["ready"], "no view keeps a process from serving"
            checks = {check["check"]: check for check in readiness["checks"]}
            told = {"ok": state == "running", "finding": state, "required": False}
            if all(
                found[view][0] == state
                and what in found[view][1]
                and checks.get(f"view {view}") == {"check": f"view {view}", **told}
                and f'headwater_view_state{{view="{view}",state="{state}"}} 1' in metrics
                for view, what in said.items()
            ):
                return found


async def all_equal(app, views, written):
    async with asyncio.timeout(PATIENCE_SECONDS):
        for view in views:
            await app.reader._watch.reached(
                view, written.position, timeout_seconds=PATIENCE_SECONDS
            )
            verified = await app.stored(view).verify()
            assert verified.summary == "equal", verified


async def test_full_engines_delay_their_own_views_and_go_on_once_there_is_room(ground):
    app = make(ground.settings(), ground.urls)
    async with app:
        await app.deploy()
        async with app.relay(), watched(app) as client:
            await fill(app, 50)
            await shows(app, client, "running", dict.fromkeys(ELSEWHERE, ""))
            with ground.client() as redis:
                redis.config_set("maxmemory", redis.info("memory")["used_memory"] - 1)
            for disk in ground.disks.values():
                disk.fill()
            try:
                written = await app.append(
                    *(Placed(n, f"k{n}", Decimal(1), text="x" * 1000) for n in range(1000))
                )
                disks = ground.disks
                full = {"counted": "is full", "archive": disks["lake"].said}
                if disks["analytics"].is_mounted:  # else only this process's own files have an end
                    full["totals"] = disks["analytics"].said
                found = await shows(app, client, "retrying", full)
                assert found["plain"][0] == "running"
                assert await app.view("plain").get("k999", at_least=written.token)
            finally:
                for disk in ground.disks.values():
                    disk.free()
                with ground.client() as redis:
                    redis.config_set("maxmemory", 0)
            await all_equal(app, ELSEWHERE, written)
            await shows(app, client, "running", dict.fromkeys(ELSEWHERE, ""))


async def test_engines_of_unsupported_versions_are_refused_and_taken_up_once_they_are_newer(ground):
    """Older servers cannot be had from a wheel, so real ones say that they are older."""
    with ground.client() as redis:
        version = redis.info("server")["redis_version"].encode()
    redis = Disguise(ground.redis.socket, version, b"5" + version[1:])
    ground.engine.mkdir()
    store = ClickHouse("analytics", idle_seconds=20)
    engine = store.engine(ground.urls["analytics"])
    found = await engine.query("SELECT version()")
    number = found[0][0].encode()
    clickhouse = Disguise(str(Placement.of(ground.engine).socket), number, b"24" + number[2:])
    async with redis.listening() as fast, clickhouse.listening() as analytics:
        urls = {
            "fast": f"redis://127.0.0.1:{fast}/0",
            "analytics": f"http://127.0.0.1:{analytics}/headwater",
        }
        app = make(ground.settings(**urls), urls)
        async with app:
            await app.deploy()
            async with app.relay(), watched(app) as client:
                written = await app.append(Placed(1, "k1", Decimal(1)))
                said = {"counted": "is Redis 5", "totals": "is ClickHouse 24"}
                found = await shows(app, client, "retrying", said)
                assert all("StoreRefused" in found[view][1] for view in said)
                assert await app.view("plain").get("k1", at_least=written.token)
                redis.is_on = clickhouse.is_on = False
                await all_equal(app, said, written)
                await shows(app, client, "running", dict.fromkeys(said, ""))
    await engine.close()


@pytest.mark.parametrize("history", ["ahead of the log", "of another log"])
async def test_data_of_another_history_waits_for_a_rebuild(ground, history):
    """Another epoch alone is no fault: the log still has the last event that the data rests on."""
    app = make(ground.settings(), ground.urls)
    change = {
        "ahead of the log": "DELETE FROM headwater.events WHERE position > (SELECT max(position) - 5 FROM headwater.events)",
        "of another log": "UPDATE headwater.events SET id = gen_random_uuid() "
        "WHERE position = (SELECT max(position) FROM headwater.events)",
    }
    async with app:
        await app.deploy()
        async with app.relay():
            await fill(app, 40)
            written = await app.append(Placed(1, "k1", Decimal(1)))
            await all_equal(app, ELSEWHERE, written)
        with ground.database.admin() as admin:
            admin.execute("UPDATE headwater.log SET epoch = epoch + 1")
        async with app.relay(), watched(app) as client:
            written = await app.append(Placed(1, "k1", Decimal(1)))
            await all_equal(app, ELSEWHERE, written)
            await shows(app, client, "running", dict.fromkeys(ELSEWHERE, ""))
        with ground.database.admin() as admin:
            admin.execute(change[history])
        async with app.relay(), watched(app) as client:
            found = await shows(app, client, "stale", dict.fromkeys(ELSEWHERE, "restored"))
            assert all("ViewStale" in found[view][1] for view in ELSEWHERE)
            for view in ELSEWHERE:
                await app.stored(view).rebuild()
            written = await app.append(Placed(1, "k1", Decimal(1)))
            await all_equal(app, ELSEWHERE, written)
            await shows(app, client, "running", dict.fromkeys(ELSEWHERE, ""))


async def test_an_engine_that_is_away_at_the_start_is_waited_for(ground):
    ground.redis.stop()
    app = make(ground.settings(), {"fast"})
    async with app:
        await app.deploy()
        async with app.relay(), watched(app) as client:
            written = await app.append(Placed(1, "k1", Decimal(1)))
            await shows(app, client, "retrying", {"counted": "cannot be reached"})
            ground.redis.start()
            await all_equal(app, ["counted"], written)
