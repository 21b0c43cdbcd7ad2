"""An app with a publication to Kafka, and its topic as another program sees it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import confluent_kafka
from publications import SECONDS, PublicationGround, settings_of

from headwater.stores.kafka import Kafka
from headwater.stores.kafka.marks import headers_for, kept_from
from headwater.testing.contract_app import published
from headwater.views.publication import channel_of

BUS = Kafka("bus", prepared=True)
CHANNELS = [channel_of("contract", "orders", edition) for edition in (1, 2)]


class Ground(PublicationGround):
    """Its topic as another program sees it."""

    def records(self):
        """All records of the topic."""
        settings = {"bootstrap.servers": self.server.bootstrap, "group.id": "another"}
        settings |= {"enable.partition.eof": True, "fetch.wait.max.ms": 10}
        consumer = confluent_kafka.Consumer(settings)
        consumer.assign([confluent_kafka.TopicPartition(self.channel.stream, 0, 0)])
        found = []
        while (record := consumer.poll(SECONDS)) is not None and record.error() is None:
            found.append(record)
        consumer.close()
        return found

    async def events(self):
        """The records of events, in order."""
        records = await asyncio.to_thread(self.records)
        return [one for one in records if one.value() is not None]

    async def kept(self):
        return [kept_from(one).message for one in await self.events()]

    async def end_with(self, message):
        headers = [(name, value.encode()) for name, value in headers_for(message).items()]
        self.send(SimpleNamespace(value=lambda: None, headers=lambda: headers))

    def send(self, *records):
        """Adds records as another program would."""
        producer = confluent_kafka.Producer({"bootstrap.servers": self.server.bootstrap})
        for record in records:
            producer.produce(
                self.channel.stream, record.value(), headers=record.headers(), partition=0
            )
        assert producer.flush(SECONDS) == 0


@asynccontextmanager
async def opened(database, server, bus=BUS, **options):
    async with published(settings_of(database, server.url), bus, **options) as app:
        await app.deploy()
        yield Ground(app, server)
