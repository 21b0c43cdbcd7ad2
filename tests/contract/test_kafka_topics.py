"""Topics of Kafka: made, refused, and listened to."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from confluent_kafka.admin import ConfigResource, NewTopic
from kafka_ground import BUS, opened

from headwater.errors import (
    StoreRefused,
    StoreUnavailable,
)
from headwater.stores.kafka import Kafka
from headwater.views.messages import Mark, Message
from headwater.views.publication import channel_of

pytestmark = pytest.mark.postgres

SECONDS = 60


@pytest.fixture
async def ground(database18, kafka):
    async with opened(database18, kafka) as ground:
        yield ground


async def test_topics_that_cannot_be_used_are_refused(ground):
    view = await ground.another()
    ground.server.delete(ground.channel.stream)
    with pytest.raises(StoreRefused, match="does not exist"):
        await view.open(1)
    ground.server.topic(ground.channel.stream, 3)
    with pytest.raises(StoreRefused, match="3 partitions"):
        await view.open(1)
    await view.close()


class Administrator:
    """In place of Kafka's client for topics, of which the mock cluster answers nothing: makes them there."""

    def __init__(self, server, policy):
        self.server = server
        self.policy = policy
        self.made = []

    def create_topics(self, topics, request_timeout):
        for topic in topics:
            self.made.append(topic)
            self.server.topic(topic.topic, topic.num_partitions)
        return {topic.topic: _answered(None) for topic in topics}

    def describe_configs(self, resources, request_timeout):
        found = {"cleanup.policy": self.policy, "max.message.bytes": "4321"}
        values = {name: SimpleNamespace(value=value) for name, value in found.items()}
        return {resource: _answered(values) for resource in resources}


def _answered(result):
    future = Future()
    future.set_result(result)
    return future


async def test_topics_are_made_with_one_partition_and_compacted_ones_are_refused(kafka, database18):
    bus = Kafka("bus", replicas=3, keep_seconds=60)
    async with opened(database18, kafka, bus) as ground:
        administrator = Administrator(kafka, "delete")
        ground.engine.administration = SimpleNamespace(
            AdminClient=lambda settings, logger: administrator,
            NewTopic=NewTopic,
            ConfigResource=ConfigResource,
        )
        for name in (ground.channel.stream, ground.channel.progress):
            kafka.delete(name)
        view = await ground.another()
        await view.open(1)
        first, second = administrator.made
        assert (first.topic, second.topic) == (ground.channel.progress, ground.channel.stream)
        assert (second.num_partitions, second.replication_factor) == (1, 3)
        assert (second.config["retention.ms"], second.config["retention.bytes"]) == ("60000", "-1")
        assert await ground.engine.messages.largest(ground.channel) == 4321
        administrator.policy = "compact,delete"
        with pytest.raises(StoreRefused, match="compacted"):
            await view.open(2)
        await view.close()


MARK = Mark("log", 1, 1, 1, 7, "e")


async def test_a_listener_waits_for_its_topic_and_leaves_nothing(kafka_server):
    channel = channel_of("late", "orders", 1)
    engine = BUS.engine(kafka_server.url)
    listening = await engine.messages.listen(channel, 0)
    coming = asyncio.create_task(listening.next())
    for topic in (channel.progress, channel.stream):
        kafka_server.topic(topic)
    sequence = await engine.messages.publish(channel, 0, [Message("s", MARK, b"{}", 3, "main/a/1")])
    async with asyncio.timeout(SECONDS):
        (kept,) = await coming
    assert (kept.sequence, kept.message.mark, kept.message.after) == (sequence, MARK, 3)
    for _ in range(2):
        await listening.close()
        await engine.close()
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(("listening", "kafka"))]


async def test_a_listener_tells_that_its_broker_is_silent_or_its_topic_made_anew(kafka_server):
    channel = channel_of("silent", "orders", 1)
    for topic in (channel.progress, channel.stream):
        kafka_server.topic(topic)
    engine = BUS.engine(kafka_server.url)
    sequence = await engine.messages.publish(channel, 0, [Message("s", MARK, b"{}")] * 3)
    for begin, breaks, mends, why in (
        (0, kafka_server.stop, kafka_server.go_on, "cannot be reached"),
        (sequence + 5, str, str, "lost its end"),
    ):
        listening = await engine.messages.listen(channel, begin)
        async with asyncio.timeout(SECONDS):
            if not begin:
                assert len(await listening.next()) > 0
            breaks()
            with pytest.raises(StoreUnavailable, match=why):
                while True:
                    await listening.next()
        mends()
        await listening.close()
    await engine.close()
