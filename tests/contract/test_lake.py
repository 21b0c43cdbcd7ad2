"""Feeds as Parquet: exactly once under kills, no half a batch for readers, values as they were."""

from __future__ import annotations

import subprocess
import sys
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import msgspec
import pyarrow.parquet as pq
import pytest

from headwater import App
from headwater.errors import (
    LeaseLost,
    NotCaughtUp,
    SettingError,
    StoreUnavailable,
    ViewDefinitionError,
    ViewStale,
)
from headwater.relay import Batch
from headwater.stores.lake import Lake
from headwater.testing.contract_app import Line, Placed, Removed, fed, make
from headwater.testing.driving import drive, publish
from headwater.testing.faults import FEED_POINTS
from headwater.testing.stores import Ground, fill

pytestmark = pytest.mark.postgres


def lake_store():
    return Lake("archive", every_seconds=0.05)


class LakeGround(Ground):
    reference = f"{__name__}:lake_store"
    store = lake_store()

    def __init__(self, database_url, folder):
        self.database_url = database_url
        self.folder = folder
        self.urls = {"archive": f"file://{folder}"}

    def stop(self):
        self.folder.rename(f"{self.folder}.away")
        self.folder.write_text("in the way")

    def start(self):
        self.folder.unlink()
        self.folder.with_name(f"{self.folder.name}.away").rename(self.folder)

    @asynccontextmanager
    async def app(self):
        async with fed(self.settings, self.store) as app:
            await app.deploy()
            yield app


@pytest.fixture
def ground(database18, tmp_path):
    return LakeGround(database18.url, tmp_path / "lake")


async def rows(app, **options):
    """All rows of the feed, by type."""
    tables = {}
    for url, file in await app._feeds["orders"].files(**options):
        read = pq.ParquetFile(url.removeprefix("file://")).read().to_pylist()
        tables.setdefault(file.type, []).extend(read)
    return tables


async def driven(app, fence):
    view = app.stored("orders")
    await drive(app, view, fence)
    verified = await view.verify()
    assert verified.summary == "equal", verified
    return verified


@pytest.mark.parametrize("point", FEED_POINTS)
async def test_a_kill_at_any_point_loses_and_doubles_nothing(ground, point):
    async with ground.app() as app:
        await fill(app, 150)
        await app.append(*(Removed(n, f"k{n}") for n in range(50)))
        await publish(app)
        await ground.dies(1, point, 2)
        verified = await driven(app, 2)
        assert verified.rows == 200
        stored = await rows(app)
        assert [row["count"] for row in stored["contract.placed"]] == list(range(150))
        assert len(stored["contract.removed"]) == 50


async def test_a_planned_batch_is_written_as_planned(ground, database18):
    """Redelivery is the same batch: no object is left that no manifest names."""
    async with ground.app() as app:
        await fill(app, 200)
        await publish(app)
        await ground.dies(1, "after put", 2)
        left = {str(p.relative_to(ground.folder)) for p in ground.folder.rglob("*.parquet")}
        await fill(app, 500)
        await driven(app, 2)
        named = {url.partition("lake/")[2] for url, _ in await app._feeds["orders"].files()}
        assert left <= named


async def test_order_fence_and_repetition(ground):
    async with ground.app() as stale, ground.app() as app:
        last = await fill(app, 60)
        await publish(app)
        old, new = stale.stored("orders"), app.stored("orders")
        start = await old.open(1)
        await old.apply(Batch(start, last - 40))
        with pytest.raises(LeaseLost):
            await old.apply(Batch(start, last - 40))
        with pytest.raises(LeaseLost):
            await old.apply(Batch(last - 20, last))
        assert await new.open(2) == last - 40
        with pytest.raises(LeaseLost):
            await old.apply(Batch(last - 40, last - 20))
        await old.close()
        await new.apply(Batch(last - 40, last))
        await new.close()
        assert (await driven(app, 3)).rows == 60


async def test_values_survive(ground):
    placed = Placed(
        1, "k", Decimal("12345678901234567890123456789.000000001"), 'ž 🐎 "\\ \n, \t', 2**63 - 1, 0.1,
        datetime(2026, 2, 28, 23, 59, 59, 123456, tzinfo=UTC), date(1, 1, 1), UUID(int=7),
        [Line("a", Decimal("0.10"), ["x", ""])], {"none": None, "": "empty"},
    )  # fmt: skip
    async with ground.app() as app:
        await app.append(placed, Placed(2, "", Decimal(-1), None, -(2**63)))
        await app.append(Placed(3, "k", Decimal(1), ""), tenant="its-x")
        await driven(app, 1)
        first, second, third = (await rows(app))["contract.placed"]
        assert (Decimal(first["total"]), first["text"], first["count"]) == (
            placed.total, placed.text, placed.count,
        )  # fmt: skip
        assert (first["ratio"], first["at"], first["day"]) == (0.1, placed.at, placed.day)
        assert UUID(first["id"]) == placed.id
        assert msgspec.json.decode(first["lines"], type=list[Line]) == placed.lines
        assert msgspec.json.decode(first["notes"]) == placed.notes
        assert (second["keyed"], second["text"], second["at"], second["count"]) == (
            "",
            None,
            None,
            -(2**63),
        )
        assert (third["text"], third["tenant"], third["stream"]) == ("", "its-x", "contract/3")


async def test_no_reader_sees_half_a_batch(ground):
    """A relay writes; a reader reads all the while: what it sees always ends at a batch's end."""
    async with ground.app() as app, app.relay():
        for n in range(10):
            written = await app.append(
                *(Placed(n, f"k{n}", Decimal(n)) for _ in range(50)), Removed(n, f"k{n}")
            )
            stored = await rows(app)
            placed = len(stored.get("contract.placed", []))
            assert placed == 50 * len(stored.get("contract.removed", []))
        stored = await rows(app, at_least=written.token, timeout_seconds=20)
        assert len(stored["contract.placed"]) == 500


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
        assert sum(file.rows for _, file in await app._feeds["orders"].files()) == 200
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


async def test_tampering_is_found(ground):
    async with ground.app() as app:
        await fill(app, 30)
        await driven(app, 1)
        (url, _), *_ = await app._feeds["orders"].files()
        path = url.removeprefix("file://")
        table = pq.ParquetFile(path).read()
        pq.write_table(table.slice(1), path)
        assert not (await app.stored("orders").verify()).equal


async def test_a_lake_that_is_away_delays_its_feed_and_is_caught_up(ground):
    async with ground.app() as app, app.relay() as relay:
        written = await app.append(Placed(1, "k", Decimal(1)))
        await app._feeds["orders"].files(at_least=written.token, timeout_seconds=20)
        ground.stop()
        try:
            written = await app.append(Placed(1, "k", Decimal(1)))
            with pytest.raises(NotCaughtUp):
                await app._feeds["orders"].files(at_least=written.token, timeout_seconds=1)
            with pytest.raises(StoreUnavailable):
                await app._feeds["orders"].files()
            assert relay.standings["orders"].state == "retrying"
        finally:
            ground.start()
        files = await app._feeds["orders"].files(at_least=written.token, timeout_seconds=30)
        assert sum(file.rows for _, file in files) == 2


async def test_a_restored_log_is_noticed(ground, database18):
    async with ground.app() as app:
        await fill(app, 50)
        await driven(app, 1)
        with database18.admin() as admin:
            admin.execute("UPDATE headwater.log SET epoch = epoch + 1")
        await fill(app, 50)
        assert (await driven(app, 2)).rows == 100
        with database18.admin() as admin:
            admin.execute(
                "DELETE FROM headwater.events WHERE position > (SELECT max(position) - 10 FROM headwater.events)"
            )
        with pytest.raises(ViewStale, match="restored"):
            await app.stored("orders").open(3)
        await app.stored("orders").close()
        await app.stored("orders").rebuild()
        assert (await driven(app, 4)).rows == 90
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
