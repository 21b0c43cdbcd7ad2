"""What was opened into other stores goes from them, byte by byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil
import pytest
from redis_server import RedisServer
from test_opening import ADA, BOB, Met, Signed, drive_all, holding, make, registered, summaries
from test_opening import declare as declare_folds

from headwater.errors import LeaseLost
from headwater.personal import FORGOTTEN
from headwater.stores.clickhouse import ClickHouse
from headwater.stores.lake import Lake
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
def engines(tmp_path):
    engines = Engines(tmp_path)
    yield engines
    engines.close()


async def test_redis_a_lake_and_clickhouse_let_go_of_it(database18, tmp_path, engines):
    app = make(database18, tmp_path, stores=engines.urls)
    customers, meetings, _ = declare_folds(app, Redis("quick"))
    opens = ["mail", "guest_name"]
    app.feed("archive", types=[Signed, Met], store=Lake("lake", every_seconds=0.05), opens=opens)
    app.feed(
        "typed", types=[Signed, Met], store=ClickHouse("analytics", every_seconds=0.05), opens=opens
    )
    folders = (engines.lake, engines.clickhouse, Path(engines.redis.socket).parent)
    async with app:
        await app.deploy()
        await app.append(Signed("1", ADA, "+44 1"), Signed("2", BOB))
        await drive_all(app)
        await app.append(Met("m", "2", "1", "Bob", f'"{ADA}"\n,'), Signed("3", "c@x"))
        await drive_all(app)
        assert (await customers.get("1")).mail == ADA
        assert await summaries(app) == dict.fromkeys(app.views, "equal")
        assert all(holding(folder, ADA) for folder in folders)
        certificate = await (await app.forgetting()).forget("1", "main")
        assert certificate.holds, certificate.places
        assert {f.where: (f.purged, f.note) for f in certificate.places} == {
            "view archive": (2, ""),
            "view typed": (2, ""),
            "view customers": (1, ""),
            "view domains": (1, ""),
            "view meetings": (1, ""),
        }
        assert (await customers.get("1")).mail == FORGOTTEN
        assert (await meetings.get("m")).names == ("Bob", FORGOTTEN)
        expected = dict.fromkeys(app.views, "equal") | {"domains": "equal except 1 parked"}
        assert await summaries(app) == expected
        assert [path for folder in folders for path in holding(folder, ADA)] == []
        assert all(holding(folder, BOB) for folder in folders)
        await app.append(Signed("4", "d@x"))
        await publish(app)
        for view in app.views:
            await drive(app, app.stored(view), 50)
        assert await summaries(app) == expected
        assert registered(database18) == 13


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
