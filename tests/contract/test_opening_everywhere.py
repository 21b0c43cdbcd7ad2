"""What was opened into other stores goes from them, byte by byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil
import pytest
from jobs_shop import until
from nats_server import NatsServer
from receiver import receiving
from redis_server import RedisServer
from test_blind_indexes import Opened
from test_opening import ADA, BOB, Met, Signed, drive_all, holding, make, summaries
from test_opening import declare as declare_folds
from test_personal_work import Welcome
from test_personal_work import declare as declare_work
from test_purposes import Agreed, TookBack
from test_purposes import declare as declare_purpose

from headwater.errors import LeaseLost, StoreUnavailable
from headwater.personal import FORGOTTEN
from headwater.stores.clickhouse import ClickHouse
from headwater.stores.lake import Lake
from headwater.stores.nats import Nats
from headwater.stores.redis import Redis
from headwater.testing.driving import drive, publish

pytestmark = pytest.mark.postgres


class Engines:
    def __init__(self, folder: Path) -> None:
        self.redis = RedisServer()
        self.clickhouse, self.lake = folder / "clickhouse", folder / "lake"
        self.urls = {
            "quick": self.redis.url(),
            "analytics": f"chdb://{self.clickhouse}",
            "lake": f"file://{self.lake}",
        }

    def close(self) -> None:
        self.redis.close()
        for process in psutil.process_iter(["cmdline"]):
            if str(self.clickhouse) in (process.info["cmdline"] or []):
                process.kill()
                process.wait(10)
        shutil.rmtree(self.clickhouse, ignore_errors=True)


@pytest.fixture
def nats():
    server = NatsServer()
    yield server
    server.close()


@pytest.fixture
def engines(tmp_path):
    engines = Engines(tmp_path)
    yield engines
    engines.close()


async def test_nothing_of_a_person_is_left_anywhere(own_server, tmp_path, engines, nats):
    """Every store and every table of ours: data, forget, and then every byte."""
    app = make(own_server, tmp_path, stores=engines.urls | {"bus": nats.url})
    for event in (Opened, Agreed, TookBack):
        app.events.add(event)
    clickhouse, lake = ClickHouse("analytics", every_seconds=0.05), Lake("lake", every_seconds=0.05)
    customers, _, _ = declare_folds(app)
    readers = declare_purpose(app, Redis("quick"))
    app.fold(key="customer", opens=["mail"], name="fast", store=Redis("quick"))(
        customers.fold.evolve
    )
    app.sql("plans", sql="SELECT plan, count(DISTINCT mail) AS n FROM customer.signed GROUP BY 1")
    app.sql(
        "mails", sql="SELECT mail, count(*) AS n FROM customer.signed GROUP BY 1", store=clickhouse
    )
    app.feed("archive", types=[Signed, Met], store=lake, opens=["mail", "guest_name"])
    app.feed("typed", types=[Signed, Met], store=clickhouse, opens=["mail", "guest_name"])
    app.publish("news", types=[Signed], bus=Nats("bus"))
    told, write = declare_work(app)
    app.webhooks([Signed])
    folders = {
        "redis": Path(engines.redis.socket).parent, "lake": engines.lake, "clickhouse": engines.clickhouse,
        "nats": Path(nats._folder.name), "postgres": Path(own_server.server.postgres.data_folder),
    }  # fmt: skip
    async with app, receiving() as receiver:
        await app.deploy()
        await app.outgoing_now.add("partner", receiver.url, tenant="main", private=True)
        async with app.relay(), app.working():
            await app.append(
                Agreed("1", "newsletter"), Signed("1", ADA, ADA), Signed("2", BOB, BOB)
            )
            await app.append(
                Met("m", "2", "1", BOB, f'"{ADA}"\n,'), Opened("1", ADA), Opened("2", BOB)
            )
            await app.enqueue(
                write("1", ADA), write("1", ADA, fail=True), write("1", ADA).but(delay_seconds=3600)
            )
            await app.do(Welcome("1", ADA))
            written = await app.append(Signed("2", BOB))
            for view in ("customers", "meetings", "domains", "fast", "readers"):
                await app.view(view).get("2", at_least=written.token, timeout_seconds=60)
            await until(lambda: len(receiver.got) >= 3)
            await until(lambda: len(told) >= 5)
            for view in ("archive", "typed", "news", "mails", "plans"):
                await until(lambda view=view: passed(own_server, view, written.position))
            assert (await readers.get("1")).mail == ADA
            with own_server.admin() as admin:
                admin.execute("CHECKPOINT")
            assert {name for name, folder in folders.items() if holding(folder, ADA)} == {"redis", "lake", "clickhouse", "postgres"}  # fmt: skip
            certificate = await (await app.forgetting()).forget("1", "main", "asked by letter")
            assert certificate.holds, certificate.places
            assert {f.where: f.purged for f in certificate.places if f.purged} == {
                "view customers": 1, "view meetings": 1, "view domains": 1, "view fast": 1, "view readers": 1,
                "view archive": 2, "view typed": 2, "blind indexes": 1,
            }  # fmt: skip
            assert [
                f for f in certificate.places if f.note and "sealed text only" not in f.note
            ] == []
            with own_server.admin() as admin:
                admin.execute("VACUUM")
                admin.execute("CHECKPOINT")
            left = {name: holding(folder, ADA) for name, folder in folders.items()}
            wal = {path for path in left["postgres"] if path.parent.name == "pg_wal"}
            assert {name: found for name, found in left.items() if set(found) - wal} == {}
            assert wal  # apart, as the certificate says: it is recycled, and backups expire
            assert any("WAL and backups" in text for text in certificate.remains)
            assert not [body for _, body in receiver.got if ADA.encode() in body]
            assert {name for name, folder in folders.items() if holding(folder, BOB)} == {"redis", "lake", "clickhouse", "postgres"}  # fmt: skip
            assert (await app.view("meetings").get("m")).names == (BOB, FORGOTTEN)
            written = await app.append(Signed("4", "d@x"), Met("n", "2", "4", BOB, "D"))
            for view in app.views:  # what was purged goes on
                await until(lambda view=view: passed(own_server, view, written.position))
        found = await summaries(app)
        assert found.pop("domains") == "equal except 1 parked"
        assert set(found.values()) == {"equal"}, found
        assert (await (await app.forgetting()).verify("1", "main")).holds


def passed(database, view, position):
    with database.admin() as admin:
        asked = "SELECT position FROM headwater.checkpoints WHERE view = %s"
        return admin.execute(asked, [view]).fetchone()[0] >= position


@pytest.mark.parametrize("kind", ["redis", "lake"])
async def test_a_write_that_was_under_way_comes_too_late(database18, tmp_path, kind):
    redis = RedisServer()
    urls = {"quick": redis.url(), "lake": f"file://{tmp_path}/lake"}
    app = make(database18, tmp_path, stores=urls)
    declare_folds(app, Redis("quick"))
    app.feed("archive", types=[Signed], store=Lake("lake", every_seconds=0.05), opens=["mail"])
    async with app:
        await app.deploy()
        await app.append(Signed("1", ADA), Signed("2", BOB))
        await publish(app)
        driven = app._open.views()[{"redis": "customers", "lake": "archive"}[kind]]
        owner, step = (driven.storage, "apply" if kind == "redis" else "append")
        real, begun, certificates = getattr(owner, step), [], []

        async def late(*arguments):  # registered, and not in the store
            if not begun:
                begun.append(True)
                certificates.append(await (await app.forgetting()).forget("1", "main"))
            await real(*arguments)

        setattr(owner, step, late)
        try:
            with pytest.raises(LeaseLost):
                await drive(app, driven, 1)
            assert certificates[0].holds
            await drive(app, app.stored(driven.name), 50)
            assert (await app.stored(driven.name).verify()).summary == "equal"
        finally:
            redis.close()
        assert holding(tmp_path / "lake", ADA) == []


async def test_a_store_that_is_down_is_purged_once_it_is_back(database18, tmp_path):
    redis = RedisServer()
    app = make(database18, tmp_path, stores={"quick": redis.url()})
    customers, _, _ = declare_folds(app, Redis("quick"))
    app.fold(key="customer", opens=["mail"], name="zones")(customers.fold.evolve)  # in Postgres
    try:
        async with app:
            await app.deploy()
            await app.append(Signed("1", ADA), Signed("2", BOB))
            await drive_all(app)
            redis.stop()
            with pytest.raises(StoreUnavailable):
                await (await app.forgetting()).forget("1", "main")
            (sealed, _) = await app.log.read(types=["customer.signed"], tenant="main")
            assert (await app.open_sealed(sealed.event)).mail == FORGOTTEN  # the key is gone
            redis.start()
            certificate = await (await app.forgetting()).verify("1", "main")
            assert not certificate.holds
            assert {f.where: f.left for f in certificate.places if f.left} == {
                "view customers": 1,
                "view domains": 1,
            }
            assert (await (await app.forgetting()).forget("1", "main")).holds
            assert (await customers.get("1")).mail == FORGOTTEN
            assert holding(Path(redis.socket).parent, ADA) == []
    finally:
        redis.close()
