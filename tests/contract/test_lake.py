"""Feeds as Parquet: exactly once under kills, no half a batch for readers, values as they were."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from decimal import Decimal

import obstore
import pyarrow.parquet as pq
import pytest
from bucket import BucketServer
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore, from_url

from headwater import App
from headwater.errors import SettingError, ViewDefinitionError
from headwater.relay import Batch
from headwater.stores.lake import Lake, Merging
from headwater.stores.lake.manifest import WHOLE_EVERY
from headwater.testing.contract_app import Placed, make
from headwater.testing.driving import drive, publish
from headwater.testing.feeds import FeedGround, FeedStoreContract, driven, feed_of
from headwater.testing.stores import fill

pytestmark = pytest.mark.postgres


def lake_store():
    """Merges early, so that the whole contract holds while files are merged."""
    return Lake("archive", every_seconds=0.05, merging=Merging(files=4))


def unmerged_store():
    return Lake("archive", every_seconds=0.05, merging=Merging(files=10_000))


def hasty_store():
    """Removes what was merged at once."""
    return Lake("archive", every_seconds=0.05, merging=Merging(files=4, grace_seconds=0))


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

    def use(self, function):
        """Declares the store otherwise, here and in processes that are killed."""
        self.reference = f"{__name__}:{function.__name__}"
        self.store = function()

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
    ground.use(unmerged_store)
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


# Merging -----------------------------------------------------------------------------------------


async def driven_in_batches(app, fence, batches=12):
    """Events of both types in as many batches; the feed is left open."""
    last = await fill(app, 10 * batches)
    first = last - 10 * batches
    await publish(app)
    view = app.stored("orders")
    position = await view.open(fence)
    for n in range(1, batches + 1):
        upto = first + 10 * n
        await view.apply(Batch(position, upto))
        position = upto
    return view


async def test_small_files_become_one_and_what_was_merged_goes_later(ground):
    ground.use(unmerged_store)
    async with ground.app() as app:
        await (await driven_in_batches(app, 1)).close()
        small = await feed_of(app).files()
        rows = await ground.read(app)
    assert len(small) == 12
    ground.use(lake_store)
    async with ground.app() as app:
        await app.stored("orders").open(2)
        await app.stored("orders").tend()
        await app.stored("orders").close()
        ((_, merged),) = await feed_of(app).files()
        assert (merged.after, merged.upto) == (small[0][1].after, small[-1][1].upto)
        assert await ground.read(app) == rows
        assert all(ground.get(ground.name_of(url)) for url, _ in small)  # for readers until later
        assert (await driven(app, 3)).rows == 120
    ground.use(hasty_store)
    async with ground.app() as app:
        await app.stored("orders").open(4)
        await app.stored("orders").tend()
        await app.stored("orders").close()
        named = [ground.name_of(url) for url, _ in await feed_of(app).files()]
        assert ground.names(".parquet") == named
        assert await ground.read(app) == rows


@pytest.mark.parametrize(
    "point",
    ["after write_merged", "after commit_merged", "before remove_unnamed", "after remove_unnamed"],
)
async def test_a_kill_while_merging_loses_and_leaves_nothing(folder, point):
    folder.use(unmerged_store)
    async with folder.app() as app:
        await (await driven_in_batches(app, 1)).close()
        rows = await folder.read(app)
    folder.use(hasty_store)
    await folder.dies("tend:2", point, 1)
    async with folder.app() as app:
        assert await folder.read(app) == rows
        await fill(app, 50)
        assert (await driven(app, 3)).rows == 170
        view = app.stored("orders")
        await view.open(4)
        await view.tend()
        await view.close()
        named = sorted(folder.name_of(url) for url, _ in await feed_of(app).files())
        assert folder.names(".parquet") == named
        assert (await view.verify()).summary == "equal"


async def test_files_are_merged_while_batches_go_on(ground):
    async with ground.app() as app, app.relay("orders"):
        feed = feed_of(app)
        for n in range(40):
            written = await app.append(Placed(n, f"k{n}", Decimal(n), count=n))
            files = await feed.files(at_least=written.token, timeout_seconds=60)
            assert sum(file.rows for _, file in files) == n + 1
        assert len(files) < 40
        stored = await ground.read(app)
        assert [row["count"] for row in stored["contract.placed"]] == list(range(40))


async def test_whole_manifests_forget_what_was_merged(folder):
    """Manifests that name all files take merging into account, and removal goes on after them."""
    folder.use(hasty_store)
    async with folder.app() as app:
        view = await driven_in_batches(app, 1, batches=2 * WHOLE_EVERY)
        await view.tend()
        await view.close()
        files = await feed_of(app).files()
        assert len(files) < 20
        assert folder.names(".parquet") == sorted(folder.name_of(url) for url, _ in files)
        verified = await view.verify()
        assert verified.summary == "equal", verified


async def test_a_rebuild_leaves_nothing_of_the_generation_before(ground):
    async with ground.app() as app:
        await fill(app, 50)
        await driven(app, 1)
        await app.stored("orders").rebuild()
        assert (await driven(app, 2)).rows == 50
        assert {name.split("/")[2] for name in ground.names("")} == {"2", "published.json"}


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
