"""What several files of contract tests begin with."""

from __future__ import annotations

import asyncio

import jobs_shop
import pytest
from kafka_ground import CHANNELS
from kafka_server import KafkaServer
from warm import warm

from headwater.testing.stores import Ground


@pytest.fixture(autouse=True, scope="session")
def _killed_processes_start_at_once():
    """The contracts' processes are forked from one that has imported Headwater."""

    async def drives(_, arguments, environment):
        module = "headwater.testing.driving"
        done = await asyncio.to_thread(warm().run, arguments, env=environment, module=module)
        return done.returncode

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ground, "drives", drives)
        yield


@pytest.fixture
async def jobs_app(database):
    """The app with queues, deployed, on every supported Postgres."""
    jobs_shop.events.clear()
    async with jobs_shop.make(database) as app:
        await app.deploy()
        with database.admin() as admin:
            admin.execute(jobs_shop.LOG)
        yield app


@pytest.fixture
async def jobs_app18(database18):
    """The same on the wheel's Postgres."""
    jobs_shop.events.clear()
    async with jobs_shop.make(database18) as app:
        await app.deploy()
        with database18.admin() as admin:
            admin.execute(jobs_shop.LOG)
        yield app


@pytest.fixture(scope="module")
def kafka_server():
    """A Kafka of the file's own."""
    server = KafkaServer()
    yield server
    server.go_on()
    server.close()


@pytest.fixture
def kafka(kafka_server):
    """The same, with the empty topics of the contract's publication."""
    topics = [name for channel in CHANNELS for name in (channel.stream, channel.progress)]
    for topic in topics:
        kafka_server.topic(topic)
    yield kafka_server
    kafka_server.go_on()
    for topic in topics:
        kafka_server.delete(topic)
