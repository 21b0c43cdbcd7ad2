"""Publications in Kafka: in order, each event once, whatever is killed, late or repeated."""

from __future__ import annotations

import sys
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace

import msgspec
import pytest
from jobs_shop import until
from kafka_ground import BUS, opened
from kafka_server import END_OF_TRANSACTION, FENCED
from nats_server import free_port
from publications import PublicationContract, settings_of

from headwater import Document, Settings
from headwater.errors import (
    ExtraMissing,
    LeaseLost,
    StoreUnavailable,
    ViewDefinitionError,
)
from headwater.operations.health import view_rows
from headwater.relay import Batch
from headwater.testing.contract_app import Placed, Removed, fed, published
from headwater.testing.driving import drive, publish

pytestmark = pytest.mark.postgres

SECONDS = 60


class Sum(Document):
    total: Decimal = Decimal(0)


def bus():
    return BUS


@pytest.fixture
async def ground(database18, kafka):
    async with opened(database18, kafka) as ground:
        yield ground


@pytest.fixture
async def small(database18, kafka):
    async with opened(database18, kafka, replace(BUS, max_message_bytes=3_000)) as ground:
        yield ground


class TestPublications(PublicationContract):
    bus = BUS
    reference = "test_kafka:bus"


async def test_events_leave_in_order_each_once_as_cloud_events(ground):
    async with ground.app.relay():
        for start in range(0, 600, 200):
            await ground.append(*range(start, start + 200))
        written = await ground.app.append(
            Removed(order=1, keyed="k1"), Placed(order=600, keyed="k", total=Decimal(1))
        )
        await ground.reached(written.positions[-1])
    assert await ground.orders() == [*range(601)]
    newest = (await ground.app.log.read(written.positions[0], max_rows=10, tenant="main"))[-1]
    last = (await ground.events())[-1]
    event, headers = msgspec.json.decode(last.value()), dict(last.headers())
    assert (last.key(), last.partition()) == (b"main/contract/600", 0)
    assert headers["Headwater-Subject"] == b"headwater.contract.orders.events.contract.placed"
    assert headers["content-type"] == b"application/cloudevents+json"
    assert (event["id"], event["subject"]) == (str(newest.id), "contract/600")
    assert event["position"].encode() == headers["Headwater-Position"]
    assert event["source"] == f"urn:headwater:{headers['Headwater-Log'].decode()}"
    verified = await ground.view.verify()
    assert (verified.rows, verified.summary) == (601, "equal")


async def test_what_the_brokers_fence_is_a_lost_lease_and_the_next_goes_on(ground):
    """The mock cluster fences nobody: it is told to answer as brokers do to whom another has fenced."""
    await ground.append(*range(3))
    upto = await publish(ground.app)
    view = await ground.another()
    await view.open(1)
    ground.server.fail(END_OF_TRANSACTION, FENCED)
    with pytest.raises(LeaseLost, match="fenced"):
        await view.apply(Batch(0, upto))
    await view.close()
    await drive(ground.app, ground.view, 2)
    assert sorted({*await ground.orders()}) == [0, 1, 2]


async def test_what_retention_emptied_goes_on_where_the_record_is(ground):
    await ground.append(*range(5))
    await drive(ground.app, ground.view, 1)
    _, last = await ground.engine.messages.span(ground.channel)
    ground.server.truncate(ground.channel.stream, last)
    assert await ground.engine.messages.span(ground.channel) == (last + 1, last)
    await ground.append(5, 6)
    await drive(ground.app, ground.view, 2)
    first, end = await ground.engine.messages.span(ground.channel)
    kept = await ground.engine.messages.kept(ground.channel, first - 1, end)
    assert sum(bool(one.message.body) for one in kept) == 2
    assert (await ground.view.verify()).summary == "equal"


async def test_a_topic_made_anew_goes_on_where_the_record_is(ground):
    await ground.append(*range(5))
    await drive(ground.app, ground.view, 1)
    ground.server.delete(ground.channel.stream)
    ground.server.topic(ground.channel.stream)
    await ground.append(5, 6)
    await drive(ground.app, ground.view, 2)
    assert await ground.orders() == [5, 6]


async def test_verify_finds_what_is_doubled_changed_and_missing(ground):
    await ground.append(*range(5))
    await drive(ground.app, ground.view, 1)
    third, last = (await ground.events())[2:5:2]
    changed = SimpleNamespace(value=lambda: b"{}", headers=last.headers)
    ground.send(third, changed)
    verified = await ground.view.verify()
    assert (verified.rows, verified.differing) == (7, 2)
    ground.server.delete(ground.channel.stream)
    ground.server.topic(ground.channel.stream)
    ground.send(third)
    verified = await ground.view.verify()
    assert (verified.rows, verified.differing) == (1, 2)
    assert {one.expected for one in verified.differences} == {"a message"}


async def test_a_strangers_message_stays_and_is_passed_by(ground):
    await ground.append(*range(3))
    await drive(ground.app, ground.view, 1)
    ground.send(SimpleNamespace(value=lambda: b"hello", headers=list))
    await ground.append(3)
    await drive(ground.app, ground.view, 2)
    bodies = [one.value() for one in await ground.events()]
    assert (len(bodies), bodies.count(b"hello")) == (5, 1)
    assert (await ground.view.verify()).summary == "equal"


async def test_a_server_that_stops_and_goes_on_delays_and_no_more(ground):
    async with ground.app.relay():
        await ground.reached((await ground.append(*range(50))).positions[-1])
        ground.server.stop()
        written = await ground.append(*range(50, 100))
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await ground.engine.messages.tail(ground.channel)
        ground.server.go_on()
        await ground.reached(written.positions[-1])
        found = await ground.orders()
        assert list(dict.fromkeys(found)) == [*range(100)]


async def test_a_broker_that_is_not_there_delays_nobody_else(database18):
    """Neither the start nor another view; the outcome names the address, and not who logs in."""
    url = f"kafka://ada:secret@127.0.0.1:{free_port()}?mechanism=SCRAM-SHA-256"
    app = published(settings_of(database18, url), BUS)

    @app.fold(key="order")
    def totals(state: Sum, event: Placed) -> Sum:
        return state.but(total=state.total + event.total)

    async with app:
        await app.deploy()
        async with app.relay():
            written = await app.append(Placed(order=1, keyed="k", total=Decimal(3)))
            found = await totals.get("1", at_least=written.token, timeout_seconds=SECONDS)
            assert found.total == 3

            async def why():
                rows = await view_rows(app.database("headwater_operator"), {})
                (row,) = [row for row in rows if row[0] == "orders"]
                return str(row[8]) if row[6] == "retrying" else None

            said = await until(why, seconds=SECONDS)
            assert "127.0.0.1" in said
            assert "secret" not in said
            assert "ada" not in said


def test_what_cannot_be_is_refused_when_it_is_declared(monkeypatch):
    with pytest.raises(ViewDefinitionError, match="does not run a feed"):
        fed(Settings(), BUS)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(ExtraMissing) as missing:
        BUS.engine("kafka://here:9092")
    assert "headwater[kafka]" in missing.value.hint
