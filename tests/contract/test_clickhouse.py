"""ClickHouse: the contracts of feeds and SQL views, and what is its own."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from headwater.stores.clickhouse import ClickHouse
from headwater.testing.feeds import FeedGround, FeedStoreContract, feed_of
from headwater.testing.stores import fill

pytestmark = pytest.mark.postgres


def clickhouse_store():
    return ClickHouse("analytics", every_seconds=0.05, idle_seconds=20)


class ClickHouseGround(FeedGround):
    reference = f"{__name__}:clickhouse_store"
    store = clickhouse_store()
    points = ("after plan", "before put", "after put", "before advance", "after advance", "after move")  # fmt: skip

    def __init__(self, database, folder):
        from datetime import date

        self.earliest = date(1900, 1, 1)
        self.database = database
        self.database_url = database.url
        self.folder = folder
        self.urls = {"analytics": f"chdb://{folder}"}

    @property
    def owner(self):
        """The pid of the process that owns the engine."""
        return owner_of(self.folder)

    def stop(self):
        kill_owner(self.folder)
        self.folder.rename(f"{self.folder}.away")
        self.folder.write_text("in the way")

    def start(self):
        self.folder.unlink()
        self.folder.with_name(f"{self.folder.name}.away").rename(self.folder)

    async def read(self, app, **options):
        tables = {}
        for where, file in await feed_of(app).files(**options):
            engine = app._open.engines["analytics"]
            names = [row[0] for row in await engine.query(f"DESCRIBE TABLE {where}")]
            # The range that the file names: the tables are read one after the other, as a relay goes on.
            rows = await engine.query(
                f"SELECT * FROM {where} WHERE position > {file.after} AND position <= {file.upto} "
                "ORDER BY position"
            )
            tables.setdefault(file.type, []).extend(dict(zip(names, row, strict=True)) for row in rows)
        return tables

    async def tamper(self, app):
        engine = app._open.engines["analytics"]
        ((name,),) = await engine.query(
            "SELECT name FROM system.tables WHERE database = 'headwater' AND endsWith(name, '/orders/1/contract.placed')"
        )
        await engine.run(
            f"ALTER TABLE headwater.`{name}` DELETE WHERE count = 7 SETTINGS mutations_sync = 2"
        )

    def admin(self):
        return self.database.admin()


def owner_of(folder):
    """The pid of a folder's owner, or None."""
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "headwater.stores.clickhouse.owner" in command and str(folder) in command:
            return process.pid
    return None


def kill_owner(folder):
    import psutil

    if (pid := owner_of(folder)) is not None:
        process = psutil.Process(pid)
        process.kill()
        process.wait(10)


@pytest.fixture
def ground(database18, tmp_path):
    ground = ClickHouseGround(database18, tmp_path / "clickhouse")
    yield ground
    kill_owner(ground.folder)
    shutil.rmtree(ground.folder, ignore_errors=True)


class TestClickHouseFeeds(FeedStoreContract):
    """The contract; what follows is ClickHouse's own."""
