"""Publications in Kafka: in order, each event once, whatever is killed, late or repeated; the same as in test_nats.py."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace

import msgspec
import pytest
from jobs_shop import until
from kafka_ground import BUS, Ground, opened, settings_of
from kafka_server import END_OF_TRANSACTION, FENCED
from nats_server import free_port

from headwater import Document, Settings
from headwater.errors import (
    ExtraMissing,
    LeaseLost,
    StoreUnavailable,
    ViewDefinitionError,
    ViewStale,
)
from headwater.operations.health import view_rows
from headwater.relay import Batch
from headwater.stores.kafka.marks import headers_for
from headwater.testing.contract_app import Placed, Removed, fed, published
from headwater.testing.driving import drive, publish
from headwater.views.messages import Message

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


@pytest.mark.parametrize("point", ["before publish", "after publish"])
async def test_killed_around_a_publish_nothing_is_lost_or_doubled(ground, point):
    await ground.append(*range(150))
    await publish(ground.app)
    environment = {
        **os.environ,
        "HEADWATER_DATABASE_URL": ground.app.database().url,
        "HEADWATER_STORE_BUS_URL": ground.server.url,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headwater.testing.driving", "test_kafka:bus", "orders", "1", point, "3",
        env=environment, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await process.communicate()
    assert process.returncode == -signal.SIGKILL, said.decode()
    async with ground.app.database("headwater_relay").connection() as connection:
        recorded = await ground.view.record.checkpoint(connection)
    last = dict((await ground.events())[-1].headers())
    if point == "after publish":  # accepted, and the record does not know
        assert int(last["Headwater-Position"]) > recorded
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
    with pytest.raises(LeaseLost):
        await later.open(1)
    await later.open(3)
    await later.apply(Batch(0, upto))
    with pytest.raises(LeaseLost):
        await earlier.apply(Batch(0, upto))
    assert await ground.orders() == [*range(10)]
    await earlier.close()
    await later.close()


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
        await drive(app, second.view, 3)
        assert await second.orders() == [0, 1, 2, 3]
    assert await ground.orders() == [0, 1, 2, 3]


async def test_a_message_too_large_is_parked_and_the_next_one_goes_out(database18, kafka):
    bus = replace(BUS, max_message_bytes=3_000)
    async with opened(database18, kafka, bus) as ground:
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
    tail = await ground.engine.messages.tail(ground.channel)
    hold = Message(ground.channel.holds, replace(tail.mark, **wrong))
    headers = [(name, value.encode()) for name, value in headers_for(hold).items()]
    ground.send(SimpleNamespace(value=lambda: None, headers=lambda: headers))
    with pytest.raises(ViewStale, match=told):
        await drive(ground.app, ground.view, 2)


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
