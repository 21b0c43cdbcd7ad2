"""What another service publishes comes into the log: each event once, in order, whatever is killed, doubled or missing."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Annotated

import msgspec
import pytest
import two_services
from buses import BUSES
from jobs_shop import until
from two_services import BUS, Due, Gone, Noted, Placed, Voided, billing, bus_at, running, shop
from warm import warm

from headwater import App, Event, Settings
from headwater.errors import (
    DefinitionError,
    ForeignToken,
    KeyParked,
    LeaseLost,
    NotCaughtUp,
    StaleToken,
    UnknownInbox,
    ViewDefinitionError,
)
from headwater.events import Personal
from headwater.events.personal import is_sealed
from headwater.personal import MasterKeys
from headwater.readers.received import Wait
from headwater.relay import Batch
from headwater.testing.driving import publish

pytestmark = pytest.mark.postgres

INBOX = "inbox/shop/orders"
SECONDS = 90


@pytest.fixture(scope="module")
def servers():
    """A server of each bus, started when first asked for."""
    started = {}

    def server(name):
        if name not in started:
            started[name] = BUSES[name]()
        return started[name]

    yield server
    for one in started.values():
        one.close()


@pytest.fixture(params=BUSES)
async def bus(request, servers):
    """Each bus, where nothing was published."""
    server = servers(request.param)
    yield server
    await server.forget()


@pytest.fixture
async def kafka(servers):
    """Kafka, where nothing was published."""
    server = servers("kafka")
    yield server
    await server.forget()


@pytest.fixture
async def nats(servers):
    """NATS, where nothing was published."""
    server = servers("nats")
    yield server
    await server.forget()


class Two:
    """Both services, open; ``out`` tells what the shop's stream is, ``came`` what billing has received."""

    def __init__(self, source, target, bills, bus):
        self.source, self.target, self.bills, self.bus = source, target, bills, bus
        self.engine = source._open.engines["bus"]
        self.channel = source.stored("orders").publication.channel

    async def place(self, *orders, **more):
        return await self.source.append(*(Placed(order=f"{n}", total=n, **more) for n in orders))

    async def bill(self, order, token, **more):
        return await self.bills.get(f"{order}", at_least=token, timeout_seconds=SECONDS, **more)

    async def came(self):
        await publish(self.target)
        found = await self.target.log.read(0, max_rows=10_000, tenant="main")
        return [(type(each.event).__name__, each.event.order) for each in found]

    async def stands(self, **wanted):
        """The inbox, once it is so."""

        async def so():
            (state,) = await self.target.inboxes_now.states()
            return state if all(getattr(state, k) == v for k, v in wanted.items()) else None

        return await until(so, seconds=SECONDS)

    async def kept(self):
        tail = await self.engine.messages.tail(self.channel)
        found, at = [], 0
        while some := await self.engine.messages.kept(self.channel, at, tail.sequence):
            found, at = found + some, some[-1].sequence
        return found

    async def send(self, *messages):
        """Adds messages as another program would, each once its id is forgotten."""
        for message in messages:
            async with asyncio.timeout(SECONDS):
                while True:
                    tail = await self.engine.messages.tail(self.channel)
                    with suppress(LeaseLost):
                        await self.engine.messages.publish(self.channel, tail.sequence, [message])
                        break
                    await asyncio.sleep(0.02)
                    await self.bus.allow_doubles(self.engine, self.channel)


@asynccontextmanager
async def both(database, another, bus, *, relays=(True, True), **options):
    target, bills = billing(another.url, bus.url, **options)
    async with (
        running(shop(database, bus), relay=relays[0]) as source,
        running(target, relay=relays[1]),
    ):
        yield Two(source, target, bills, bus)


async def test_what_is_published_comes_in_once_in_order_and_says_where_it_is_from(
    database, another, nats
):
    async with both(database, another, nats) as two:
        for start in range(0, 600, 200):
            await two.place(*range(start, start + 200))
        written = await two.source.append(Noted("1"), Voided("7"))
        bill = await two.bill(7, written.token)
        assert (bill.due, bill.events) == (0, 2)
        assert await two.came() == [("Due", f"{n}") for n in range(600)] + [("Gone", "7")]
        last = (await two.target.log.stream("bill/7", tenant="main"))[-1]
        first = (await two.source.log.stream("order/7", tenant="main"))[-1]
        log = two.source.database().identity.log_id
        assert last.metadata["cause"] == {
            "source": f"urn:headwater:{log}",
            "id": str(first.id),
            "position": first.position,
        }
        assert (last.metadata["correlation"], last.occurred_at) == (
            str(first.id),
            first.recorded_at,
        )


async def test_doubles_and_strangers_change_nothing(database18, another18, bus):
    async with both(database18, another18, bus) as two:
        written = await two.place(*range(5))
        await two.bill(4, written.token)
        await bus.allow_doubles(two.engine, two.channel)
        events = [one.message for one in await two.kept() if one.message.body]
        await two.send(events[3], events[0], events[4], events[3])
        await bus.send_a_strangers(two.engine, two.channel, b"hello")
        sequence = (await two.engine.messages.span(two.channel))[1]
        await two.stands(sequence=sequence, parked=1)
        assert await two.came() == [("Due", f"{n}") for n in range(5)]
        (parked,) = await two.target.inboxes_now.parked()
        assert parked.reason == "it is not Headwater's"


async def dies(url, bus_url, point, call):
    """A process of one of the services, until it kills itself at a point."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, two_services.__file__, url, bus_url, point, str(call),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await process.communicate()
    assert process.returncode == -signal.SIGKILL, said.decode()


@pytest.mark.parametrize(
    ("point", "call"),
    [("before commit", 1), ("after commit", 1), ("after apply", 2)],
)
async def test_killed_around_a_commit_nothing_is_lost_or_doubled(
    database18, another18, bus, point, call
):
    async with both(database18, another18, bus, relays=(True, False)) as two:
        written = await two.place(*range(300))
        await dies(another18.url, bus.url, point, call)
        async with two.target.relay():
            await two.bill(299, written.token)
        assert await two.came() == [("Due", f"{n}") for n in range(300)]


@pytest.mark.parametrize("point", ["before deliver", "after deliver", "after end"])
async def test_killed_within_a_publish_to_kafka_nothing_is_lost_or_doubled(
    database18, another18, kafka, point
):
    """After the hold: with nothing sent, within a transaction that nobody ends, and with what nobody knows to be there."""
    async with both(database18, another18, kafka, relays=(False, True)) as two:
        written = await two.place(*range(300))
        await dies(database18.url, kafka.url, point, 2)
        async with two.source.relay():
            await two.bill(299, written.token)
        assert await two.came() == [("Due", f"{n}") for n in range(300)]


class Small(Event, type="order.placed", stream="bill/{order}"):
    """Takes no long note."""

    order: str
    total: int
    note: Annotated[str, msgspec.Meta(max_length=3)] | None = None


class Wider(Event, type="order.placed", stream="bill/{order}", version=2):
    order: str
    total: int
    note: str | None = None


async def test_what_cannot_be_appended_is_parked_and_its_stream_waits(database18, another18, bus):
    async with both(database18, another18, bus, types=(Small, Gone)) as two:
        await two.source.append(Placed("1", 1), Placed("2", 2, note="long"), Placed("3", 3))
        written = await two.source.append(Voided("2"), Voided("3"))
        await two.stands(position=written.positions[-1], parked=2)
        assert await two.came() == [("Small", "1"), ("Small", "3"), ("Gone", "3")]
        first, second = await two.target.inboxes_now.parked(INBOX)
        assert (first.stream, first.culprit, second.culprit) == ("order/2", True, False)
        assert "note" in first.reason
        assert await two.target.inboxes_now.replay(INBOX) == 0
        third = await two.source.append(Voided("2"))
        await two.stands(position=third.position, parked=3)
    mended, _ = billing(another18.url, bus.url, types=(Wider, Gone))
    async with running(mended):

        def position_of(token):
            return mended.reader.position_of(token, tenant="main", wait=Wait(SECONDS))

        with pytest.raises(KeyParked) as parked:
            await position_of(written.token)
        assert parked.value.position == first.position
        assert await mended.inboxes_now.replay(INBOX) == 3
        stream = await mended.log.stream("bill/2", tenant="main")
        assert [type(each.event) for each in stream] == [Wider, Gone, Gone]
        assert stream[-1].position == await position_of(third.token)
        with pytest.raises(UnknownInbox):
            await mended.inboxes_now.replay("inbox/shop/other")


async def test_the_command_line_lists_replays_and_accepts(database18, another18, nats, tmp_path):
    async with both(database18, another18, nats, types=(Small, Gone)) as two:
        written = await two.source.append(Placed("1", 1), Placed("2", 2, note="long"))
        await two.stands(position=written.position, parked=1)

        async def said(*arguments):
            environment = os.environ | {
                "PYTHONPATH": os.pathsep.join([*sys.path, str(tmp_path)]),
                "COLUMNS": "300",
            }
            command = ["--app", "two_services_app:app", *arguments]
            done = await asyncio.to_thread(warm().run, command, env=environment, cwd=tmp_path)
            return done.stdout + done.stderr

        (tmp_path / "two_services_app.py").write_text(
            "import two_services\nfrom test_inboxes import Gone, Small\n"
            f"app, _ = two_services.billing({another18.url!r}, {nats.url!r}, types=(Small, Gone))\n"
        )
        assert '"inbox":"inbox/shop/orders"' in await said("inboxes", "list", "--json")
        metrics = await said("metrics")
        told = f'headwater_inbox_position{{inbox="{INBOX}"}} {written.position}'
        assert told in metrics
        assert f'headwater_inbox_parked_messages{{inbox="{INBOX}"}} 1' in metrics
        assert f'headwater_inbox_state{{inbox="{INBOX}",state="running"}} 1' in metrics
        received = re.search(r"headwater_inbox_received_at_seconds\{.*\} ([\d.]+)", metrics)
        assert 0 <= time.time() - float(received[1]) < 600
        listed = await said("parked", "--json")
        assert f'"position":{written.position}' in listed
        shown = await said("parked", "--view", INBOX, "--show", f"{written.position}")
        assert '"note":"long"' in shown.replace(" ", "")
        assert "0 replayed" in await said("parked", "--view", INBOX, "--replay")
        assert "1 given up" in await said(
            "parked", "--view", INBOX, "--discard", f"{written.position}"
        )
        assert f"after position {written.position}" in await said("inboxes", "accept", INBOX)
        assert "no inbox" in await said("inboxes", "accept", "inbox/shop/other")


async def test_a_message_given_up_lets_the_others_through(database18, another18, nats):
    async with both(database18, another18, nats, types=(Small, Gone)) as two:
        await two.source.append(Placed("2", 2, note="long"))
        written = await two.source.append(Voided("2"))
        await two.stands(position=written.position, parked=2)
        first, _ = await two.target.inboxes_now.parked(INBOX)
        assert await two.target.inboxes_now.discard(INBOX, [first.position]) == 1
        third = await two.source.append(Voided("2"))
        await two.stands(position=third.position, parked=0)
        stream = await two.target.log.stream("bill/2", tenant="main")
        assert [type(each.event) for each in stream] == [Gone, Gone]


async def test_a_token_waits_for_what_was_written_elsewhere(database18, another18, bus):
    async with both(database18, another18, bus) as two:
        await two.bill(1, (await two.place(1)).token)
        # What is not published is waited for too: the publisher says how far it is.
        assert (await two.bill(1, (await two.source.append(Noted("1"))).token)).events == 1
        ahead = two.source.database().identity.token((await two.place(2)).position + 100)
        with pytest.raises(NotCaughtUp, match="'shop'"):
            await two.bills.get("1", at_least=ahead, timeout_seconds=0.05)
        identity = two.source.database().identity
        with pytest.raises(StaleToken, match="epoch 9"):
            await two.bills.get("1", at_least=replace(identity, epoch=9).token(1))
        with pytest.raises(ForeignToken):
            await two.bills.get("1", at_least=replace(identity, log_id="0" * 8).token(1))


async def test_a_token_over_http(database18, another18, nats):
    from tests.support.web import serving_of

    async with (
        both(database18, another18, nats, relays=(True, False)) as two,
        serving_of(two.target) as client,
    ):
        written = await two.place(5)
        asked = {"at_least": written.token, "timeout_seconds": "30"}
        row = await client.get("/v1/views/bills/5", params=asked)
        assert (row.status_code, row.json()) == (200, {"due": 5, "events": 1})
        overview = (await client.get("/v1/overview")).json()
        (inbox,) = overview["inboxes"]
        assert (inbox["name"], inbox["position"], inbox["parked"]) == (INBOX, written.position, 0)
        assert inbox["state"] == "running"
        page = await client.get("/v1/events", params=asked)
        assert [event["stream"] for event in page.json()["events"]] == ["bill/5"]


async def test_a_restored_source_is_told_of_until_it_is_accepted(database18, another18, nats):
    async with both(database18, another18, nats) as two:
        await two.bill(1, (await two.place(1)).token)
    with database18.admin() as admin:
        admin.execute("UPDATE headwater.log SET epoch = epoch + 1")
    async with both(database18, another18, nats) as two:
        written = await two.place(2)
        state = await two.stands(state="stale")
        assert "restored" in state.detail
        assert await two.came() == [("Due", "1")]
        assert await two.target.inboxes_now.accept(INBOX) == state.position
        await two.bill(2, written.token)
        assert await two.came() == [("Due", "1"), ("Due", "2")]


async def test_missing_messages_are_noticed(database18, another18, nats):
    async with both(database18, another18, nats, relays=(True, False)) as two:
        written = await two.place(1, 2, 3)
        await until(lambda: _has(two, 3), seconds=SECONDS)
        for one in await two.kept():
            if one.message.body and one.message.mark.position == written.positions[1]:
                request = {"seq": one.sequence}
                await two.engine.api(f"STREAM.MSG.DELETE.{two.channel.stream}", request)
        async with two.target.relay():
            state = await two.stands(state="stale")
            assert f"--after {written.positions[1]}" in state.detail or "no longer" in state.detail
            assert await two.came() == [("Due", "1")]
            await two.target.inboxes_now.accept(INBOX, after=written.positions[1])
            await two.bill(3, written.token)
        assert await two.came() == [("Due", "1"), ("Due", "3")]


async def test_what_retention_deleted_unread_is_noticed(database18, another18, kafka):
    async with both(database18, another18, kafka, relays=(True, False)) as two:
        written = await two.place(1, 2, 3)
        await until(lambda: _has(two, 3), seconds=SECONDS)
        third = (await two.kept())[-1]
        kafka.server.truncate(two.channel.stream, third.sequence - 1)
        async with two.target.relay():
            state = await two.stands(state="stale")
            assert f"up to {written.positions[1]} are no longer in the stream" in state.detail
            await two.target.inboxes_now.accept(INBOX, after=written.positions[1])
            await two.bill(3, written.token)
        assert await two.came() == [("Due", "3")]


async def _has(two, count):
    return sum(bool(one.message.body) for one in await two.kept()) == count


async def test_another_edition_repeats_nothing_that_is_known(database18, another18, bus):
    async with both(database18, another18, bus) as two:
        await two.bill(2, (await two.place(1, 2)).token)
    target, bills = billing(another18.url, bus.url, edition=2)
    async with running(shop(database18, bus, edition=2), relay=False) as source:
        await source.stored("orders").rebuild()
        async with source.relay(), running(target):
            two = Two(source, target, bills, bus)
            await two.bill(3, (await two.place(3)).token)
            assert await two.came() == [("Due", f"{n}") for n in (1, 2, 3)]


async def test_a_stream_made_anew_goes_on(database18, another18, bus):
    async with both(database18, another18, bus) as two:
        await two.bill(1, (await two.place(1, 2, 3)).token)
    await bus.forget()
    async with both(database18, another18, bus) as two:
        await two.bill(4, (await two.place(4)).token)
        assert await two.came() == [("Due", f"{n}") for n in (1, 2, 3, 4)]


async def test_whoever_lost_the_lease_appends_nothing(database18, another18, bus):
    async with both(database18, another18, bus, relays=(True, False)) as two:
        earlier, later = (two.target._open.inboxes()[INBOX] for _ in range(2))
        start = await earlier.open(1)
        await two.place(1)
        upto = start
        while not await two.came():
            upto = await asyncio.wait_for(earlier.frontier.beyond(upto), SECONDS)
            if any(getattr(one, "message", None) and one.message.body for one in earlier._arrived):
                await later.open(2)
                with pytest.raises(LeaseLost):
                    await earlier.apply(Batch(start, upto))
                break
        assert await two.came() == []
        with pytest.raises(LeaseLost):
            await earlier.open(1)
        await earlier.close()
        await later.close()


async def test_the_bus_gone_and_back_delays_and_no_more(database18, another18, bus):
    async with both(database18, another18, bus) as two:
        await two.bill(1, (await two.place(1)).token)
        bus.cut()
        written = await two.place(2)
        bus.back()
        await two.bill(2, written.token)
        assert await two.came() == [("Due", "1"), ("Due", "2")]


class Signed(Event, type="customer.signed", stream="customer/{customer}"):
    customer: str
    mail: Annotated[str, Personal("customer")]


class Known(Event, type="customer.signed", stream="customer/{customer}"):
    customer: str
    mail: str


async def test_personal_fields_are_carried_sealed_or_refused(database18, another18, bus):
    source = Settings(
        database_url=database18.url, stores={"bus": bus.url}, master_key=MasterKeys.new("m1")
    )
    people = App("people", events=[Signed], tenant="main", settings=source)
    people.publish("signed", types=[Signed], bus=bus_at(bus.url))
    settings = Settings(database_url=another18.url, stores={"bus": bus.url})
    mailing = App("mailing", events=[Known, Signed][:1], tenant="main", settings=settings)
    mailing.receive("signed", source="people", bus=bus_at(bus.url), types=[Known])
    async with running(people), running(mailing):
        await people.append(Signed("7", "ada@example.org"))
        (known,) = await until(
            lambda: mailing.log.read(0, max_rows=10, tenant="main"), seconds=SECONDS
        )
        assert is_sealed(known.event.mail)
    refusing = App("refusing", events=[Signed], tenant="main")
    with pytest.raises(ViewDefinitionError, match=r"Signed\.mail is personal"):
        refusing.receive("signed", source="people", bus=BUS, types=[Signed])


def test_what_cannot_be_is_refused_when_it_is_declared():
    app = App("billing", events=[Due, Gone], tenant="main")
    app.receive("orders", source="shop", bus=BUS, types=[Due])
    with pytest.raises(DefinitionError, match="twice"):
        app.receive("orders", source="shop", bus=BUS, types=[Due])
    with pytest.raises(DefinitionError, match="go round"):
        app.publish("again", types=[Due], bus=BUS)
    with pytest.raises(DefinitionError, match="from itself"):
        app.receive("orders", source="billing", bus=BUS, types=[Due])
    with pytest.raises(ViewDefinitionError, match="no event types"):
        app.receive("none", source="shop", bus=BUS, types=[])
