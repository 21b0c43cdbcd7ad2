"""Publications in JetStream: in order, each event once, whatever is killed, late or repeated."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from decimal import Decimal
from typing import Annotated

import msgspec
import pytest
from nats_server import NatsCluster, NatsServer

from headwater import App, Event, Settings
from headwater.errors import (
    LeaseLost,
    SettingError,
    StoreRefused,
    StoreUnavailable,
    ViewDefinitionError,
    ViewStale,
)
from headwater.events import Personal
from headwater.events.personal import is_sealed
from headwater.personal import MasterKeys
from headwater.relay import Batch
from headwater.stores.nats import Nats
from headwater.testing import driving
from headwater.testing.contract_app import Placed, Removed, fed, published
from headwater.testing.driving import drive, publish
from headwater.views.messages import Message

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


class Ground:
    """An app with a publication, deployed and open, and its channel as another program sees it."""

    def __init__(self, app, server):
        self.app = app
        self.server = server
        self.engine = app._open.engines["bus"]
        self.view = app.stored("orders")
        self.channel = self.view.publication.channel

    async def append(self, *orders, text=None):
        events = [Placed(order=n, keyed=f"k{n % 7}", total=Decimal(n), text=text) for n in orders]
        return await self.app.append(*events)

    async def kept(self):
        """The messages of events, in order."""
        found, at, messages = [], 0, self.engine.messages
        end = (await messages.tail(self.channel)).sequence
        while some := await messages.kept(self.channel, at, end):
            found += [one.message for one in some if one.message.body]
            at = some[-1].sequence
        return found

    async def orders(self):
        return [msgspec.json.decode(m.body)["data"]["order"] for m in await self.kept()]

    async def api(self, verb, **request):
        answer = await self.engine.api(f"{verb}.{self.channel.stream}", request)
        assert answer is not None
        return answer

    async def another(self):
        """The view as another process sees it."""
        view = self.app._open.views()["orders"]
        await self.app.database("headwater_relay").open()
        return view


def settings_of(database, url, **given):
    return Settings(database_url=database.url, stores={"bus": url}, **given)


@asynccontextmanager
async def opened(database, server, **options):
    async with published(settings_of(database, server.url), BUS, **options) as app:
        await app.deploy()
        yield Ground(app, server)


@pytest.fixture
async def ground(database18, nats):
    """A stream whose window against duplicates is over at once: nothing rests on it."""
    async with opened(database18, nats) as ground:
        if await ground.engine.api(f"STREAM.INFO.{ground.channel.stream}", {}) is not None:
            await ground.api("STREAM.DELETE")
        config = {"name": ground.channel.stream, "subjects": [f"{ground.channel.root}.>"]}
        await ground.api("STREAM.CREATE", **config, allow_atomic=True, duplicate_window=100_000_000)
        yield ground


async def test_events_leave_in_order_each_once_as_cloud_events(database, nats):
    async with opened(database, nats) as ground:
        if await ground.engine.api(f"STREAM.INFO.{ground.channel.stream}", {}) is not None:
            await ground.api("STREAM.DELETE")
        async with ground.app.relay():
            for start in range(0, 600, 200):
                await ground.append(*range(start, start + 200))
            written = await ground.app.append(
                Removed(order=1, keyed="k1"), Placed(order=600, keyed="k", total=Decimal(1))
            )
            await reached(ground, written.positions[-1])
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


async def reached(ground, position):
    async with asyncio.timeout(60):
        while True:
            async with ground.app.database().connection() as connection:
                if await ground.view.record.checkpoint(connection) >= position:
                    return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("point", "call"),
    [("before publish", 3), ("after publish", 3)],
)
async def test_killed_around_a_publish_nothing_is_lost_or_doubled(ground, point, call):
    await ground.append(*range(150))
    await publish(ground.app)
    environment = {
        **os.environ,
        "HEADWATER_DATABASE_URL": ground.app.database().url,
        "HEADWATER_STORE_BUS_URL": ground.server.url,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headwater.testing.driving", "test_nats:bus", "orders", "1", point, str(call),
        env=environment, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await process.communicate()
    assert process.returncode == -signal.SIGKILL, said.decode()
    async with ground.app.database("headwater_relay").connection() as connection:
        recorded = await ground.view.record.checkpoint(connection)
    kept = await ground.kept()
    if point == "after publish" and call == 3:  # accepted, and the record does not know
        assert kept[-1].mark.position > recorded
    await drive(ground.app, ground.view, 2)
    assert await ground.orders() == [*range(150)]
    assert (await ground.view.verify()).summary == "equal"


async def test_whoever_lost_the_lease_is_refused_at_once_and_later(ground):
    await ground.append(*range(10))
    upto = await publish(ground.app)
    earlier, later = await ground.another(), await ground.another()
    assert await earlier.open(1) == 0
    assert await later.open(2) == 0
    with pytest.raises(LeaseLost):
        await earlier.apply(Batch(0, upto))
    assert await ground.orders() == []
    await later.apply(Batch(0, upto))
    with pytest.raises(LeaseLost):
        await earlier.apply(Batch(0, upto))
    assert await ground.orders() == [*range(10)]
    await earlier.close()
    await later.close()


async def test_a_publish_that_expects_another_end_leaves_nothing(ground):
    await ground.append(*range(3))
    upto = await publish(ground.app)
    view = await ground.another()
    await view.open(1)
    view._sequence -= 1
    with pytest.raises(LeaseLost):
        await view.apply(Batch(0, upto))
    assert await ground.orders() == []
    await view.close()


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


async def test_a_rebuild_publishes_nothing_again_and_another_edition_everything(ground):
    await ground.append(*range(3))
    await drive(ground.app, ground.view, 1)
    await ground.view.rebuild()
    await ground.append(3)
    await drive(ground.app, ground.view, 2)
    assert await ground.orders() == [0, 1, 2, 3]
    settings = settings_of(ground.app.database(), ground.server.url)
    async with published(settings, BUS, edition=2) as app:
        second = Ground(app, ground.server)
        assert (await app.deploy())["orders"] == "stale"
        await second.view.rebuild()
        if await second.engine.api(f"STREAM.INFO.{second.channel.stream}", {}) is not None:
            await second.api("STREAM.DELETE")
        await drive(app, second.view, 3)
        assert await second.orders() == [0, 1, 2, 3]
    assert await ground.orders() == [0, 1, 2, 3]


async def test_a_message_too_large_is_parked_and_the_next_one_goes_out(ground):
    config = (await ground.api("STREAM.INFO"))["config"]
    await ground.api("STREAM.UPDATE", **{**config, "max_msg_size": 3_000})
    await ground.append(0)
    await ground.append(1, text="x" * 4_000)
    await ground.append(2)
    await drive(ground.app, ground.view, 1)
    assert await ground.orders() == [0, 2]
    assert (await ground.view.verify()).summary == "equal except 1 parked"


@pytest.mark.parametrize(
    ("told", "wrong"), [("another log", {"log": "another"}), ("restored", {"event": "0" * 32})]
)
async def test_a_log_without_the_last_message_is_told_so(ground, told, wrong):
    """The last message as another log, or this one before it was restored, would have left it."""
    await ground.append(*range(3))
    await drive(ground.app, ground.view, 1)
    messages = ground.engine.messages
    tail = await messages.tail(ground.channel)
    hold = Message(ground.channel.holds, replace(tail.mark, **wrong))
    await messages.publish(ground.channel, tail.sequence, [hold])
    with pytest.raises(ViewStale, match=told):
        await drive(ground.app, ground.view, 2)


async def test_a_server_that_is_killed_and_back_delays_and_no_more(database18):
    server = NatsServer()
    try:
        async with opened(database18, server) as ground, ground.app.relay():
            await reached(ground, (await ground.append(*range(50))).positions[-1])
            server.kill()
            written = await ground.append(*range(50, 100))
            with pytest.raises(StoreUnavailable):
                await ground.engine.messages.tail(ground.channel)
            server.start()
            await reached(ground, written.positions[-1])
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
