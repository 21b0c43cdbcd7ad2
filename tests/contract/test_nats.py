"""Publications in JetStream: in order, each event once, whatever is killed, late or repeated."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from decimal import Decimal
from typing import Annotated

import msgspec
import pytest
from nats_server import NatsCluster, NatsServer
from publications import PublicationContract, PublicationGround, settings_of

from headwater import App, Event, Settings
from headwater.errors import (
    LeaseLost,
    SettingError,
    StoreRefused,
    StoreUnavailable,
    ViewDefinitionError,
)
from headwater.events import Personal
from headwater.events.personal import is_sealed
from headwater.personal import MasterKeys
from headwater.stores.nats import Nats
from headwater.testing import driving
from headwater.testing.contract_app import Placed, Removed, fed, published
from headwater.testing.driving import drive

pytestmark = pytest.mark.postgres

BUS = Nats("bus")


def bus():
    return BUS


@pytest.fixture(scope="module")
def nats():
    server = NatsServer()
    yield server
    server.close()


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Begins before the first test: three servers need seconds to agree on a leader."""
    cluster = NatsCluster()
    yield cluster
    cluster.close()


class Ground(PublicationGround):
    """Its stream as another program sees it."""

    async def kept(self):
        found, at, messages = [], 0, self.engine.messages
        end = (await messages.tail(self.channel)).sequence
        while some := await messages.kept(self.channel, at, end):
            found += [one.message for one in some if one.message.body]
            at = some[-1].sequence
        return found

    async def api(self, verb, **request):
        answer = await self.engine.api(f"{verb}.{self.channel.stream}", request)
        assert answer is not None
        return answer

    async def clear(self):
        if await self.engine.api(f"STREAM.INFO.{self.channel.stream}", {}) is not None:
            await self.api("STREAM.DELETE")

    async def end_with(self, message):
        messages = self.engine.messages
        await messages.publish(
            self.channel, (await messages.tail(self.channel)).sequence, [message]
        )


@asynccontextmanager
async def opened(database, server, **options):
    async with published(settings_of(database, server.url), BUS, **options) as app:
        await app.deploy()
        yield Ground(app, server)


@pytest.fixture
async def ground(database18, nats):
    """A stream whose window against duplicates is over at once: nothing rests on it."""
    async with opened(database18, nats) as ground:
        await ground.clear()
        config = {"name": ground.channel.stream, "subjects": [f"{ground.channel.root}.>"]}
        await ground.api("STREAM.CREATE", **config, allow_atomic=True, duplicate_window=100_000_000)
        yield ground


@pytest.fixture
async def small(ground):
    config = (await ground.api("STREAM.INFO"))["config"]
    await ground.api("STREAM.UPDATE", **{**config, "max_msg_size": 3_000})
    return ground


class TestPublications(PublicationContract):
    bus = BUS
    reference = "test_nats:bus"


async def test_events_leave_in_order_each_once_as_cloud_events(database, nats):
    async with opened(database, nats) as ground:
        await ground.clear()
        async with ground.app.relay():
            for start in range(0, 600, 200):
                await ground.append(*range(start, start + 200))
            written = await ground.app.append(
                Removed(order=1, keyed="k1"), Placed(order=600, keyed="k", total=Decimal(1))
            )
            await ground.reached(written.positions[-1])
        assert await ground.orders() == [*range(601)]
        newest = (await ground.app.log.read(written.positions[0], max_rows=10, tenant="main"))[-1]
        last = (await ground.kept())[-1]
        assert last.subject == "headwater.contract.orders.events.contract.placed"
        event = msgspec.json.decode(last.body)
        assert (event["id"], event["subject"]) == (str(newest.id), "contract/600")
        assert (event["position"], last.mark.position) == (str(newest.position), newest.position)
        assert event["source"] == f"urn:headwater:{last.mark.log}"
        verified = await ground.view.verify()
        assert (verified.rows, verified.summary) == (601, "equal")


class Signed(Event, type="customer.signed", stream="customer/{customer}"):
    customer: str
    mail: Annotated[str, Personal("customer")]


async def test_personal_fields_leave_sealed(database18, nats):
    settings = settings_of(database18, nats.url, master_key=MasterKeys.new("m1"))
    app = App("people", events=[Signed], tenant="main", settings=settings)
    app.publish("signed", types=[Signed], bus=BUS)
    async with app:
        await app.deploy()
        await app.append(Signed(customer="7", mail="ada@example.org"))
        await drive(app, app.stored("signed"), 1)
        messages = app._open.engines["bus"].messages
        (_, kept) = await messages.kept(app.stored("signed").publication.channel, 0, 2)
        assert is_sealed(msgspec.json.decode(kept.message.body)["data"]["mail"])
        assert b"ada@" not in kept.message.body


async def test_an_emptied_stream_goes_on_where_the_record_is(ground):
    await ground.append(*range(5))
    await drive(ground.app, ground.view, 1)
    await ground.api("STREAM.PURGE")
    await ground.append(5, 6)
    await drive(ground.app, ground.view, 2)
    assert await ground.orders() == [5, 6]
    assert (await ground.view.verify()).summary == "equal"


async def test_lost_messages_at_the_end_are_published_again(ground):
    await ground.append(*range(5))
    await drive(ground.app, ground.view, 1)
    last = (await ground.api("STREAM.INFO"))["state"]["last_seq"]
    await ground.api("STREAM.MSG.DELETE", seq=last)
    assert (await ground.view.verify()).differing == 1
    fence = 2
    async with asyncio.timeout(60):
        while await ground.orders() != [*range(5)]:
            with suppress(LeaseLost):  # its id is known until the window is over
                await ground.append(5)
                await drive(ground.app, ground.view, fence)
                break
            fence += 1
    assert (await ground.orders())[:5] == [*range(5)]
    assert (await ground.view.verify()).summary == "equal"


async def test_verify_finds_what_is_missing_and_what_is_not_ours(ground):
    await ground.append(*range(5))
    await drive(ground.app, ground.view, 1)
    await ground.api("STREAM.MSG.DELETE", seq=3)
    verified = await ground.view.verify()
    assert (verified.rows, verified.differing) == (4, 1)
    assert verified.differences[0].expected == "a message"


async def test_a_server_that_is_killed_and_back_delays_and_no_more(database18):
    server = NatsServer()
    try:
        async with opened(database18, server) as ground, ground.app.relay():
            await ground.reached((await ground.append(*range(50))).positions[-1])
            server.kill()
            written = await ground.append(*range(50, 100))
            with pytest.raises(StoreUnavailable):
                await ground.engine.messages.tail(ground.channel)
            server.start()
            await ground.reached(written.positions[-1])
            assert await ground.orders() == [*range(100)]
    finally:
        server.close()


async def test_streams_that_cannot_be_used_are_refused(ground):
    await ground.api("STREAM.DELETE")
    subjects = [f"{ground.channel.root}.>"]
    view = await ground.another()
    for wrong in ({"allow_atomic": False}, {"allow_atomic": True, "retention": "workqueue"}):
        await ground.api("STREAM.CREATE", name=ground.channel.stream, subjects=subjects, **wrong)
        with pytest.raises(StoreRefused):
            await view.open(1)
        await ground.api("STREAM.DELETE")
    await view.close()


def test_what_cannot_be_is_refused_when_it_is_declared():
    with pytest.raises(SettingError, match="HEADWATER_STORE_BUS_URL"):
        BUS.engine("redis://here")
    with pytest.raises(ViewDefinitionError, match="does not run a feed"):
        fed(Settings(), BUS)
    with pytest.raises(ViewDefinitionError, match="edition"):
        published(Settings(), BUS, edition=0)


async def test_a_clusters_leader_killed_between_publishes(database18, cluster, monkeypatch):
    monkeypatch.setattr(driving, "PACE", replace(driving.PACE, longest_retry_seconds=0.2))
    settings = settings_of(database18, cluster.url)
    async with published(settings, Nats("bus", replicas=3)) as app:
        await app.deploy()
        await app.database("headwater_relay").open()
        ground = Ground(app, cluster)
        await ground.append(*range(200))
        await drive(app, ground.view, 1)
        leader = (await ground.api("STREAM.INFO"))["cluster"]["leader"]
        cluster.named(leader).kill()
        await ground.append(*range(200, 400))
        await drive(app, ground.view, 2)
        assert await ground.orders() == [*range(400)]
        assert (await ground.view.verify()).summary == "equal"
