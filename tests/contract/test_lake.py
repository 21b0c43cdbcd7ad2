"""Feeds as Parquet: exactly once under kills, no half a batch for readers, values as they were."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys

import obstore
import pyarrow.parquet as pq
import pytest
from bucket import BucketServer
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore, from_url

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

    def __init__(self, database, url, objects):
        self.database = database
        self.database_url = database.url
        self.url = url
        self.objects = objects
        self.urls = {"archive": url}

    def names(self, ending):
        """The names of all objects that end so."""
        listed = obstore.list(self.objects).collect()
        return sorted(found["path"] for found in listed if found["path"].endswith(ending))

    def get(self, name):
        return bytes(obstore.get(self.objects, name).bytes())

    def put(self, name, data):
        obstore.put(self.objects, name, data)

    def name_of(self, url):
        return url.removeprefix(f"{self.url}/")

    async def read(self, app, **options):
        tables = {}
        for url, file in await feed_of(app).files(**options):
            data = await asyncio.to_thread(self.get, self.name_of(url))
            read = pq.read_table(io.BytesIO(data)).to_pylist()
            tables.setdefault(file.type, []).extend(read)
        return tables

    async def tamper(self, app):
        (url, _), *_ = await feed_of(app).files()
        name = self.name_of(url)
        out = io.BytesIO()
        pq.write_table(pq.read_table(io.BytesIO(self.get(name))).slice(1), out)
        self.put(name, out.getvalue())

    def admin(self):
        return self.database.admin()


class FolderGround(LakeGround):
    def __init__(self, database, folder):
        super().__init__(database, f"file://{folder}", LocalStore(folder, mkdir=True))
        self.folder = folder

    def stop(self):
        self.folder.rename(f"{self.folder}.away")
        self.folder.write_text("in the way")

    def start(self):
        self.folder.unlink()
        self.folder.with_name(f"{self.folder.name}.away").rename(self.folder)


class BucketGround(LakeGround):
    def __init__(self, database, server):
        bucket = server.bucket()
        super().__init__(database, f"s3://{bucket}/lake", from_url(f"s3://{bucket}/lake"))
        self.server = server

    def stop(self):
        self.server.stop()

    def start(self):
        self.server.start()


@pytest.fixture(scope="module")
def bucket_server():
    server = BucketServer()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.variables.items():
            patch.setenv(name, value)
        yield server
    server.stop()


@pytest.fixture(params=["folder", "bucket"])
def ground(request, database18, tmp_path):
    if request.param == "folder":
        return FolderGround(database18, tmp_path / "lake")
    return BucketGround(database18, request.getfixturevalue("bucket_server"))


@pytest.fixture
def folder(database18, tmp_path):
    """For what does not depend on where the objects are, and takes many."""
    return FolderGround(database18, tmp_path / "lake")


async def test_the_bucket_refuses_a_second_first_write(bucket_server):
    """What every lake rests on, asked of the server itself: one of many writers creates an object."""
    objects = from_url(f"s3://{bucket_server.bucket()}/lake")

    async def creates(n):
        try:
            await obstore.put_async(objects, "one", str(n).encode(), mode="create")
        except AlreadyExistsError:
            return 0
        return 1

    assert sum(await asyncio.gather(*map(creates, range(30)))) == 1
    assert await creates(31) == 0


class TestLakeFeeds(FeedStoreContract):
    """The contract; what follows is the lake's own."""


async def test_a_planned_batch_is_written_as_planned(ground, database18):
    """Redelivery is the same batch: no object is left that no manifest names."""
    async with ground.app() as app:
        await fill(app, 200)
        await publish(app)
        await ground.dies(1, "after put", 2)
        left = set(ground.names(".parquet"))
        await fill(app, 500)
        await driven(app, 2)
        named = {ground.name_of(url) for url, _ in await feed_of(app).files()}
        assert left <= named


async def test_the_pointer_is_a_hint(ground):
    async with ground.app() as app:
        await fill(app, 100)
        view = app.stored("orders")
        await drive(app, view, 1)
        (pointer,) = ground.names("latest.json")
        old = ground.get(pointer)
        await fill(app, 100)
        await drive(app, view, 2)
        ground.put(pointer, old)
        assert sum(file.rows for _, file in await feed_of(app).files()) == 200
        assert (await driven(app, 3)).rows == 200


async def test_many_manifests_are_read_from_the_last_whole_one(folder):
    async with folder.app() as app:
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
        assert {name.split("/")[2] for name in ground.names("")} == {"2"}


def test_what_is_not_offered_is_refused_when_the_app_is_built(folder):
    with pytest.raises(ViewDefinitionError, match="does not run a fold"):
        make(folder.settings, lake_store())
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
