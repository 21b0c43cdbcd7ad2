"""Every store of folds passes one contract."""

from __future__ import annotations

import pytest
from redis import Redis as Client
from redis_server import RedisServer

from headwater.stores.redis import Redis
from headwater.testing.stores import FoldStoreContract, Ground

pytestmark = pytest.mark.postgres


def no_store():
    return None


def redis_store():
    return Redis("fast")


class PostgresGround(Ground):
    reference = f"{__name__}:no_store"
    store = None

    def __init__(self, database_url):
        self.database_url = database_url

    def stop(self):
        raise NotImplementedError

    def start(self):
        raise NotImplementedError


class RedisGround(PostgresGround):
    reference = f"{__name__}:redis_store"
    store = Redis("fast")

    def __init__(self, database_url, server):
        super().__init__(database_url)
        self.server = server
        self.urls = {"fast": server.url()}

    def stop(self):
        self.server.stop()

    def start(self):
        self.server.start()


@pytest.fixture(scope="session")
def redis_server():
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def redis(redis_server):
    with Client(unix_socket_path=redis_server.socket) as client:
        client.flushall()
        yield client


class TestPostgresFolds(FoldStoreContract):
    @pytest.fixture
    def ground(self, database18):
        return PostgresGround(database18.url)


class TestRedisFolds(FoldStoreContract):
    @pytest.fixture
    def ground(self, database18, redis_server, redis):
        return RedisGround(database18.url, redis_server)
