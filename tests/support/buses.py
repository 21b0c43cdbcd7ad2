"""Both buses as the tests of inboxes break them: what a channel forgets, doubles or loses, and servers that are gone for a while."""

from __future__ import annotations

import itertools

import confluent_kafka
from kafka_server import KafkaServer
from nats_server import NatsServer
from two_services import bus_at

from headwater.views.publication import channel_of

CHANNELS = [channel_of("shop", "orders", edition) for edition in (1, 2)]
CHANNELS.append(channel_of("people", "signed", 1))


class OnNats:
    """A NATS of its own. Here the stream is there once its publication is open."""

    def __init__(self):
        self.server = NatsServer()
        self.url = self.server.url
        self._windows = itertools.count()

    async def forget(self):
        """No channel is there: two apps of one name have one."""
        engine = bus_at(self.url).engine(self.url)
        for channel in CHANNELS:
            await engine.api(f"STREAM.DELETE.{channel.stream}", {})
        await engine.close()

    async def allow_doubles(self, engine, channel):
        """The stream without a window against duplicates, so that anything may come twice.

        Each time another window: ids are forgotten by a timer, which a change sets off, now and then before it sees the change.
        """
        info = await engine.api(f"STREAM.INFO.{channel.stream}", {})
        config = {**info["config"], "duplicate_window": 100_000_000 + next(self._windows)}
        await engine.api(f"STREAM.UPDATE.{channel.stream}", config)

    async def send_a_strangers(self, engine, channel, body):
        await engine.request(f"{channel.events}.order.placed", body, {})

    def cut(self):
        self.server.kill()

    def back(self):
        self.server.start()

    def close(self):
        self.server.close()


class OnKafka:
    """A Kafka of its own, whose topics an operator has made: a mock cluster makes none."""

    def __init__(self):
        self.server = KafkaServer()
        self.url = self.server.url
        self._make()

    def _make(self):
        for channel in CHANNELS:
            self.server.topic(channel.stream)
            self.server.topic(channel.progress)

    async def forget(self):
        for channel in CHANNELS:
            self.server.delete(channel.stream)
            self.server.delete(channel.progress)
        self._make()

    async def allow_doubles(self, engine, channel):
        """It takes them anyway."""

    async def send_a_strangers(self, engine, channel, body):
        producer = confluent_kafka.Producer({"bootstrap.servers": self.server.bootstrap})
        producer.produce(channel.stream, body, partition=0)
        assert producer.flush(30) == 0

    def cut(self):
        self.server.down()

    def back(self):
        self.server.up()

    def close(self):
        self.server.close()


BUSES = {"nats": OnNats, "kafka": OnKafka}
