"""The how-to's example of a store passes the contract."""

from __future__ import annotations

import pytest
from sqlite_store import SQLite

from headwater.testing.stores import FoldStoreContract, Ground

pytestmark = pytest.mark.postgres


def sqlite_store():
    return SQLite("mine")


class SQLiteGround(Ground):
    reference = f"{__name__}:sqlite_store"
    store = sqlite_store()

    def __init__(self, database_url, path):
        self.database_url = database_url
        self.path = path
        self.urls = {"mine": str(path)}
        path.touch()

    def stop(self):
        self.path.rename(f"{self.path}.away")

    def start(self):
        self.path.with_name(f"{self.path.name}.away").rename(self.path)


class TestSQLiteFolds(FoldStoreContract):
    @pytest.fixture
    def ground(self, database18, tmp_path):
        return SQLiteGround(database18.url, tmp_path / "store.db")
