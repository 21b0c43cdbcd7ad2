"""Feeds as Parquet: exactly once under kills, no half a batch for readers, values as they were."""

from __future__ import annotations

import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from headwater import App
from headwater.errors import SettingError, ViewDefinitionError
from headwater.relay import Batch
from headwater.stores.lake import Lake
from headwater.testing.contract_app import Placed, make
from headwater.testing.driving import drive, publish
from headwater.testing.feeds import FeedGround, FeedStoreContract, driven, feed_of
from headwater.testing.stores import fill

pytestmark = pytest.mark.postgres


def lake_store():
    return Lake("archive", every_seconds=0.05)


class LakeGround(FeedGround):
    reference = f"{__name__}:lake_store"
    store = lake_store()

    points = ("after plan", "after put", "before put_new", "after put_new", "after put_pointer", "after move")  # fmt: skip

    def __init__(self, database, folder):
        self.database = database
        self.database_url = database.url
        self.folder = folder
        self.urls = {"archive": f"file://{folder}"}

    def stop(self):
        self.folder.rename(f"{self.folder}.away")
        self.folder.write_text("in the way")

    def start(self):
        self.folder.unlink()
        self.folder.with_name(f"{self.folder.name}.away").rename(self.folder)

    async def read(self, app, **options):
        tables = {}
        for url, file in await feed_of(app).files(**options):
            read = pq.ParquetFile(url.removeprefix("file://")).read().to_pylist()
            tables.setdefault(file.type, []).extend(read)
        return tables

    async def tamper(self, app):
        (url, _), *_ = await feed_of(app).files()
        path = url.removeprefix("file://")
        pq.write_table(pq.ParquetFile(path).read().slice(1), path)

    def admin(self):
        return self.database.admin()


@pytest.fixture
def ground(database18, tmp_path):
    return LakeGround(database18, tmp_path / "lake")


class TestLakeFeeds(FeedStoreContract):
    """The contract; what follows is the lake's own."""


async def test_a_planned_batch_is_written_as_planned(ground, database18):
    """Redelivery is the same batch: no object is left that no manifest names."""
    async with ground.app() as app:
        await fill(app, 200)
        await publish(app)
        await ground.dies(1, "after put", 2)
        left = {str(p.relative_to(ground.folder)) for p in ground.folder.rglob("*.parquet")}
        await fill(app, 500)
        await driven(app, 2)
        named = {url.partition("lake/")[2] for url, _ in await feed_of(app).files()}
        assert left <= named


async def test_the_pointer_is_a_hint(ground):
    async with ground.app() as app:
        await fill(app, 100)
        view = app.stored("orders")
        await drive(app, view, 1)
        (pointer,) = ground.folder.rglob("latest.json")
        old = pointer.read_bytes()
        await fill(app, 100)
        await drive(app, view, 2)
        pointer.write_bytes(old)
        assert sum(file.rows for _, file in await feed_of(app).files()) == 200
        assert (await driven(app, 3)).rows == 200


async def test_many_manifests_are_read_from_the_last_whole_one(ground):
    async with ground.app() as app:
        await fill(app, 230)
        last = await publish(app)
        view = app.stored("orders")
        await view.open(1)
        position = last - 230
        await view.apply(Batch(await view.open(2), position))
        for upto in range(position + 1, last + 1):
            await view.apply(Batch(upto - 1, upto))
        await view.close()
        verified = await driven(app, 3)
        assert verified.rows == 230


async def test_a_rebuild_leaves_nothing_of_the_generation_before(ground):
    async with ground.app() as app:
        await fill(app, 50)
        await driven(app, 1)
        await app.stored("orders").rebuild()
        assert (await driven(app, 2)).rows == 50
        left = {p.relative_to(ground.folder).parts[2] for p in ground.folder.rglob("*.json")}
        assert left == {"2"}
        assert not list(ground.folder.glob("*/orders/1/**/*.parquet"))


def test_what_is_not_offered_is_refused_when_the_app_is_built(ground):
    with pytest.raises(ViewDefinitionError, match="does not run a fold"):
        make(ground.settings, lake_store())
    app = App("shop", events=[Placed], tenant="main")
    with pytest.raises(ViewDefinitionError, match="names no event types"):
        app.feed("lake", types=[], store=lake_store())
    with pytest.raises(SettingError, match="HEADWATER_STORE_ARCHIVE_URL"):
        lake_store().engine("")


@pytest.mark.parametrize("package", ["obstore", "pyarrow"])
def test_a_missing_extra_is_named(package):
    code = (
        f"import sys; sys.modules['{package}'] = None\n"
        "from headwater.stores.lake import Lake\n"
        "from headwater.errors import ExtraMissing\n"
        "try: Lake('archive').engine('file:///tmp/x')\n"
        "except ExtraMissing as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'headwater[lake]'" in said.stdout
