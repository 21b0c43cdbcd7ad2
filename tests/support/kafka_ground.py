"""An app with a publication to Kafka, and its topic as another program sees it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from decimal import Decimal

import confluent_kafka
import msgspec
from jobs_shop import until

from headwater import Settings
from headwater.stores.kafka import Kafka
from headwater.testing.contract_app import Placed, published
from headwater.views.publication import channel_of

BUS = Kafka("bus", prepared=True)
CHANNELS = [channel_of("contract", "orders", edition) for edition in (1, 2)]
SECONDS = 60


class Ground:
    """An app with a publication, deployed and open, and its topic as another program sees it."""

    def __init__(self, app, server):
        self.app = app
        self.server = server
        self.engine = app._open.engines["bus"]
        self.view = app.stored("orders")
        self.channel = self.view.publication.channel

    async def append(self, *orders, text=None):
        events = [Placed(order=n, keyed=f"k{n % 7}", total=Decimal(n), text=text) for n in orders]
        return await self.app.append(*events)

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

    async def orders(self):
        return [msgspec.json.decode(one.value())["data"]["order"] for one in await self.events()]

    async def another(self):
        """The view as another process sees it."""
        view = self.app._open.views()["orders"]
        await self.app.database("headwater_relay").open()
        return view

    async def reached(self, position):
        async def has():
            async with self.app.database().connection() as connection:
                return await self.view.record.checkpoint(connection) >= position

        await until(has, seconds=SECONDS)

    def send(self, *records):
        """Adds records as another program would."""
        producer = confluent_kafka.Producer({"bootstrap.servers": self.server.bootstrap})
        for record in records:
            producer.produce(
                self.channel.stream, record.value(), headers=record.headers(), partition=0
            )
        assert producer.flush(SECONDS) == 0


def settings_of(database, url):
    return Settings(database_url=database.url, stores={"bus": url})


@asynccontextmanager
async def opened(database, server, bus=BUS, **options):
    async with published(settings_of(database, server.url), bus, **options) as app:
        await app.deploy()
        yield Ground(app, server)
