"""Live channels: events and changed rows as they come, resumed without a gap or a double."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from contextlib import asynccontextmanager
from decimal import Decimal

import httpx
import psutil
import pytest
import websockets
from redis_server import RedisServer

from headwater import Settings
from headwater.entrances.http import Limits, ticket
from headwater.stores.redis import Redis
from headwater.testing import contract_app
from tests.contract.test_http import append
from tests.support.web import api, line, serving_of, token_for

pytestmark = pytest.mark.postgres

SECONDS = 60


@pytest.fixture
async def client(database18):
    async with api(database18) as client:
        yield client


class Stream:
    """A server-sent event stream, as a browser reads it."""

    def __init__(self, response):
        self.response = response
        self.last_id = None
        self._lines = response.aiter_lines()

    async def next(self):
        """The next event: its name, id and data."""
        name, data = "message", []
        async with asyncio.timeout(SECONDS):
            async for text in self._lines:
                field, _, value = text.partition(": ")
                if field == "event":
                    name = value
                elif field == "id":
                    self.last_id = value
                elif field == "data":
                    data.append(value)
                elif not text and data:
                    return name, self.last_id, json.loads("\n".join(data))
        return None

    async def ready(self):
        """Waits until the channel is open and says where it begins."""
        async with asyncio.timeout(SECONDS):
            while self.last_id is None:
                field, _, value = (await anext(self._lines)).partition(": ")
                self.last_id = value if field == "id" else None
        return self


@asynccontextmanager
async def follow(client, path="/v1/live/events", resume=None, headers=None, **params):
    headers = dict(headers or {}) | ({} if resume is None else {"Last-Event-ID": resume})
    async with client.stream(
        "GET", path, params=params, headers=headers, timeout=SECONDS
    ) as response:
        assert response.status_code == 200, await response.aread()
        yield await Stream(response).ready()


async def test_events_come_as_they_are_published(client):
    async with follow(client) as stream:
        receipt = (await append(client, line(1), line(2))).json()
        for told in receipt["events"]:
            name, token, event = await stream.next()
            assert (name, event["position"]) == ("message", told["position"])
        assert token == receipt["token"]
        assert event["data"] == {"order": "2", "total": "5"}


async def test_a_client_resumes_after_the_last_event_that_it_saw(client):
    tokens = [(await append(client, line(n))).json()["token"] for n in range(4)]
    await client.get("/v1/events", params={"at_least": tokens[-1]})
    async with follow(client, resume=tokens[1]) as stream:
        assert [(await stream.next())[1] for _ in range(2)] == tokens[2:]
    async with follow(client, after="0") as stream:
        assert [(await stream.next())[1] for _ in range(4)] == tokens


async def test_filters_by_type_stream_category_and_key(client):
    receipts = [
        (await append(client, line(n, keys=["even"] if n % 2 == 0 else ["odd"]))).json()
        for n in range(4)
    ]
    tokens = [r["token"] for r in receipts]
    for wanted, expected in (
        ({"type": "order.placed"}, tokens),
        ({"stream": "order/2"}, tokens[2:3]),
        ({"category": "order"}, tokens),
        ({"key": "odd"}, [tokens[1], tokens[3]]),
        ({"key": "odd", "stream": "order/3"}, tokens[3:]),
    ):
        async with follow(client, after="0", **wanted) as stream:
            assert [(await stream.next())[1] for _ in expected] == expected
    async with follow(client, type="order.voided") as stream:
        assert stream.last_id


async def test_nobody_sees_another_tenants_events(client):
    _, other = await token_for(client, "other")
    async with follow(client) as mine, follow(client, headers=other) as theirs:
        await append(client, line(1), headers={"Content-Type": "application/x-ndjson"} | other)
        await append(client, line(2))
        assert (await theirs.next())[2]["stream"] == "order/1"
        assert (await mine.next())[2]["stream"] == "order/2"


async def test_clients_that_reconnect_at_random_miss_nothing_and_see_nothing_twice(client):
    count, clients = 600, 8
    chance = random.Random(7)

    async def write():
        for start in range(0, count, 6):
            await append(client, *(line(n) for n in range(start, start + 6)))
            await asyncio.sleep(chance.random() / 100)

    async def read(base_url):
        seen, resume = [], "0"
        async with httpx.AsyncClient(base_url=base_url, headers=client.headers) as own:
            while len(seen) < count:
                async with follow(own, resume=resume) as stream:
                    for _ in range(chance.randrange(1, 60)):
                        _, resume, event = await stream.next()
                        seen.append(event["position"])
                        if len(seen) == count:
                            break
        return seen

    readers = [asyncio.create_task(read(client.server.url)) for _ in range(clients)]
    await write()
    everything = await asyncio.gather(*readers)
    page = (await client.get("/v1/events", params={"limit": 1000})).json()["events"]
    positions = [event["position"] for event in page]
    assert len(positions) == count
    assert all(seen == positions for seen in everything)


async def test_a_burst_drops_nobody_though_the_queue_is_small(database18):
    limits = Limits(channel_messages=20, channel_bytes=10_000)
    async with api(database18, limits=limits) as client, follow(client) as stream:
        positions = []
        for start in range(0, 3000, 1000):
            receipt = await append(client, *(line(n) for n in range(start, start + 1000)))
            positions += [event["position"] for event in receipt.json()["events"]]
        seen = [(await stream.next())[2]["position"] for _ in positions]
        assert seen == positions


async def test_a_client_that_takes_nothing_is_dropped_with_a_reason(database18):
    limits = Limits(slow_seconds=1.0, channel_messages=50)
    async with api(database18, limits=limits) as client:
        host, port = client.server.url.removeprefix("http://").split(":")
        small = socket.socket()
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
        small.setblocking(False)
        await asyncio.get_running_loop().sock_connect(small, (host, int(port)))
        reader, writer = await asyncio.open_connection(sock=small, limit=2**14)
        writer.write(
            b"GET /v1/live/events?after=0 HTTP/1.1\r\nHost: x\r\n"
            b"Authorization: %b\r\n\r\n" % client.headers["authorization"].encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        metadata = {"note": "x" * 10_000}
        for start in range(0, 1500, 500):
            await append(client, *(line(n, metadata=metadata) for n in range(start, start + 500)))
        live = client.server.service.live
        async with asyncio.timeout(SECONDS):
            while not live.dropped:  # the socket is full, and nobody reads
                await asyncio.sleep(0.05)
            rest = await reader.read(-1)
        writer.close()
        assert b"event: dropped" in rest[-300:]
        assert b"took too little" in rest[-300:]
        assert live.open == 0


async def test_a_quiet_channel_says_that_it_is_alive_and_how_far_it_is(database18):
    async with (
        api(database18, limits=Limits(heartbeat_seconds=0.1)) as client,
        follow(client, type="order.voided") as stream,
    ):
        token = (await append(client, line(1))).json()["token"]
        async with asyncio.timeout(SECONDS):
            while stream.last_id != token:
                stream.last_id = None
                await stream.ready()


# Views -------------------------------------------------------------------------------------------


async def test_changed_rows_come_with_what_they_are_now(client):
    async with follow(client, "/v1/live/views/sales") as sales, follow(
        client, "/v1/live/views/orders", key="1"
    ) as one:  # fmt: skip
        token = (await append(client, line(1), line(11), line(2))).json()["token"]
        changes = [(await sales.next())[2] for _ in range(2)]
        assert sorted(changes, key=lambda c: c["key"]) == [
            {"key": "1", "row": {"bucket": 1, "orders": 2, "total": "10"}},
            {"key": "2", "row": {"bucket": 2, "orders": 1, "total": "5"}},
        ]
        assert sales.last_id == token
        assert (await one.next())[2] == {"key": "1", "row": {"total": "5", "events": 1}}
        await append(client, line(2), line(1))
        assert (await one.next())[2]["row"]["events"] == 2


async def test_a_view_channel_resumes_with_the_rows_that_changed_meanwhile(client):
    first = (await append(client, line(1), line(2))).json()["token"]
    await append(client, line(2))
    last = (await append(client, line(3))).json()["token"]
    await client.get("/v1/views/orders/3", params={"at_least": last})
    async with follow(client, "/v1/live/views/orders", resume=first) as stream:
        changes = [(await stream.next())[2] for _ in range(2)]
        assert {c["key"]: c["row"]["events"] for c in changes} == {"2": 2, "3": 1}
        assert stream.last_id == last


async def test_a_view_that_starts_over_says_so(client):
    token = (await append(client, line(1))).json()["token"]
    await client.get("/v1/views/totals", params={"at_least": token})  # the channel begins after it
    async with follow(client, "/v1/live/views/totals") as stream:
        await client.app.stored("totals").rebuild()
        await append(client, line(2))
        names = [(await stream.next())[0]]
        assert names == ["reset"]


async def test_a_view_over_documents_tells_the_rows_that_a_document_left_and_came_to(client):
    async with follow(client, "/v1/live/views/by_events") as groups:
        await append(client, line(1))
        assert (await groups.next())[2] == {
            "key": "1",
            "row": {"bucket": 1, "orders": 1, "total": "5"},
        }
        first = groups.last_id
        last = (await append(client, line(1))).json()["token"]
        changes = [(await groups.next())[2] for _ in range(2)]
    expected = {"1": None, "2": {"bucket": 2, "orders": 1, "total": "10"}}
    assert {c["key"]: c["row"] for c in changes} == expected
    async with follow(client, "/v1/live/views/by_events", resume=first) as groups:
        changes = [(await groups.next())[2] for _ in range(2)]
        assert {c["key"]: c["row"] for c in changes} == expected
        assert groups.last_id == last


async def test_a_view_over_documents_says_when_too_much_has_changed(client, database18):
    first = (await append(client, line(1))).json()["token"]
    with database18.admin() as admin:
        admin.execute(
            "SELECT setval('headwater.position_seq', last_value + 200000) FROM headwater.position_seq"
        )
    for n in range(60):  # batches; every fiftieth forgets changes of long ago
        last = (await append(client, line(n))).json()["token"]
        await client.get("/v1/views/by_events", params={"at_least": last})
    async with follow(client, "/v1/live/views/by_events", resume=first) as groups:
        name, _, data = await groups.next()
        assert (name, "read the view again" in data["reason"]) == ("reset", True)


async def told(client, check, finding):
    """Waits until /readyz says that of a view; the process stays ready whatever its views do."""
    async with asyncio.timeout(SECONDS):
        while True:
            answer = await client.get("/readyz")
            assert (answer.status_code, answer.json()["ready"]) == (200, True)
            if {"check": check, "finding": finding}.items() <= next(
                c for c in answer.json()["checks"] if c["check"] == check
            ).items():
                return
            await asyncio.sleep(0.05)


@pytest.fixture
def redis():
    server = RedisServer()
    yield server
    server.close()


async def test_a_view_in_another_store_is_read_and_followed_alike(database18, redis):
    settings = Settings(database_url=database18.url, stores={"fast": redis.url()})
    app = contract_app.make(settings, Redis("fast"))
    async with app, serving_of(app) as client:
        written = await app.append(*(contract_app.Placed(n, f"k{n}", Decimal(n)) for n in range(3)))
        at_least = {"at_least": written.token}
        one = await client.get("/v1/views/orders/k1", params=at_least)
        page = await client.get("/v1/views/orders", params=at_least | {"limit": 2})
        rest = await client.get("/v1/views/orders", params={"after": page.json()["next"]})
        here = await client.get("/v1/views/plain", params=at_least)
        rows = page.json()["rows"] + rest.json()["rows"]
        assert one.json() == rows[1]["row"]
        assert rows == here.json()["rows"]
        async with follow(client, "/v1/live/views/orders") as stream:
            await app.append(contract_app.Placed(1, "k1", contract_app.POISON))
            await app.append(contract_app.Placed(1, "k1", Decimal(7)))
            await app.append(contract_app.Placed(2, "k2", Decimal(8)))
            _, _, change = await stream.next()
            now = await client.get("/v1/views/orders/k2")
            assert change == {"key": "k2", "row": now.json()}
        await told(client, "view orders", "running, 2 parked")
        redis.stop()
        await app.append(contract_app.Placed(3, "k3", Decimal(9)))
        await told(client, "view orders", "retrying, 2 parked")
        redis.start()
        await told(client, "view orders", "running, 2 parked")
    mended = contract_app.make(settings, Redis("fast"), poisonous=False)
    async with (
        mended,
        serving_of(mended) as client,
        follow(client, "/v1/live/views/orders") as stream,
    ):
        assert await mended.stored("orders").replay() == 2
        name, _, _ = await stream.next()
        assert name == "reset"


# How channels are opened ---------------------------------------------------------------------------


async def test_a_ticket_opens_one_channel_once(client):
    ticket = (await client.post("/v1/tickets")).json()["ticket"]
    bare = {"Authorization": ""}
    async with follow(client, headers=bare, ticket=ticket) as stream:
        assert stream.last_id
        again = await client.get("/v1/live/events", params={"ticket": ticket}, headers=bare)
        assert again.status_code == 401
    elsewhere = await client.get("/v1/events", params={"ticket": ticket}, headers=bare)
    assert elsewhere.status_code == 401


async def test_an_application_makes_tickets_that_open_the_named_channel_alone(client):
    bare = {"Authorization": ""}
    for named, path, others in (
        ("views/orders", "/v1/live/views/orders", ("/v1/live/events", "/v1/live/views/sales")),
        ("events", "/v1/live/events", ("/v1/live/views/orders",)),
    ):
        made = await ticket(client.app, named)
        for other in others:
            refused = await client.get(other, params={"ticket": made}, headers=bare)
            assert refused.status_code == 401, other
        async with follow(client, path, headers=bare, ticket=made) as stream:
            assert stream.last_id
        again = await client.get(path, params={"ticket": made}, headers=bare)
        assert again.status_code == 401
    url = f"{client.server.url.replace('http', 'ws')}/v1/live/views/orders"
    made = await ticket(client.app, "views/orders")
    async with websockets.connect(f"{url}?ticket={made}", origin=client.server.url):
        pass
    made = await ticket(client.app, "events")
    with pytest.raises(websockets.InvalidStatus):
        await websockets.connect(f"{url}?ticket={made}", origin=client.server.url)


async def test_channels_are_refused_clearly(database18):
    async with api(database18, limits=Limits(channels=1)) as client:
        for path, status in {
            "/v1/live/events?colour=red": 400,
            "/v1/live/events?after=yesterday": 400,
            "/v1/live/views/nowhere": 404,
        }.items():
            answer = await client.get(path)
            assert (answer.status_code, "detail" in answer.json()) == (status, True), path
        async with follow(client) as first:
            full = await client.get("/v1/live/events")
            assert (full.status_code, full.json()["code"]) == (503, "too_busy")
            assert first.last_id
        async with asyncio.timeout(SECONDS):
            while client.server.service.live.open:
                await asyncio.sleep(0.01)


async def test_who_is_connected_is_known_until_they_go(client):
    async def members():
        return [m["member"] for m in (await client.get("/v1/presence/lobby")).json()["members"]]

    _, other = await token_for(client, "other")
    async with follow(client, room="lobby", member="ada") as ada:
        async with follow(client, room="lobby", member="bob") as bob:
            assert await members() == ["ada", "bob"]
            assert ada.last_id == bob.last_id
            theirs = await client.get("/v1/presence/lobby", headers=other)
            assert theirs.json()["members"] == []
        async with asyncio.timeout(SECONDS):
            while await members() != ["ada"]:
                await asyncio.sleep(0.01)


async def test_a_thousand_clients_each_get_every_event(client):
    """In one process, which holds both ends; what it grew by is an upper bound of what a client costs."""
    count, events = 1_000, 20
    process = psutil.Process()
    before = process.memory_info().rss
    host, port = client.server.url.removeprefix("http://").split(":")
    request = (
        "GET /v1/live/events HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: {client.headers['authorization']}\r\n\r\n"
    ).encode()

    async def connect():
        reader, writer = await asyncio.open_connection(host, int(port), limit=2**16)
        writer.write(request)
        await reader.readuntil(b"\nid: ")
        return reader, writer

    async def read(reader):
        seen = []
        while len(seen) < events:
            text = await reader.readuntil(b"\n\n")
            seen += [json.loads(part)["position"] for part in text.split(b"data: ")[1:]]
        return seen

    async with asyncio.timeout(SECONDS):
        connections = await asyncio.gather(*(connect() for _ in range(count)))
        assert client.server.service.live.open == count
        grown = (process.memory_info().rss - before) / count
        positions = []
        for n in range(events):
            receipt = (await append(client, line(n))).json()
            positions += [event["position"] for event in receipt["events"]]
        everything = await asyncio.gather(*(read(reader) for reader, _ in connections))
    for _, writer in connections:
        writer.close()
    assert all(seen == positions for seen in everything)
    assert grown < 200_000, f"{grown:,.0f} bytes a client"


# WebSockets ----------------------------------------------------------------------------------------


def socket_to(client, path, **options):
    url = client.server.url.replace("http", "ws") + path
    headers = {"Authorization": client.headers["authorization"]}
    return websockets.connect(url, additional_headers=headers, **options)


async def test_a_websocket_carries_the_same_messages(client):
    async with socket_to(client, "/v1/live/events?type=order.placed") as events, socket_to(
        client, "/v1/live/views/orders"
    ) as rows:  # fmt: skip
        token = (await append(client, line(1))).json()["token"]
        async with asyncio.timeout(SECONDS):
            event = json.loads(await events.recv())
            row = json.loads(await rows.recv())
        assert (event["id"], event["event"], event["data"]["stream"]) == (
            token,
            "message",
            "order/1",
        )
        assert row["data"] == {"key": "1", "row": {"total": "5", "events": 1}}
        await append(client, line(2))
        assert json.loads(await events.recv())["data"]["stream"] == "order/2"
    async with socket_to(client, f"/v1/live/events?after={token}") as events:
        assert json.loads(await events.recv())["data"]["stream"] == "order/2"


async def test_a_websocket_that_takes_nothing_is_closed_with_a_reason(database18):
    limits = Limits(slow_seconds=3.0, channel_messages=50)
    async with api(database18, limits=limits) as client:
        # A queue of one message: the client's library stops reading when nobody takes it.
        async with socket_to(client, "/v1/live/events?after=0", max_queue=1) as events:
            metadata = {"note": "x" * 10_000}
            for start in range(0, 3000, 500):
                lines = (line(n, metadata=metadata) for n in range(start, start + 500))
                await append(client, *lines)
            live = client.server.service.live
            async with asyncio.timeout(SECONDS):
                while not live.dropped:
                    await asyncio.sleep(0.05)
                with pytest.raises(websockets.ConnectionClosedError) as closed:
                    while True:
                        await events.recv()
        assert closed.value.rcvd.code == 1013
        assert "took too little" in closed.value.rcvd.reason
        assert live.open == 0


async def test_a_websocket_is_refused_before_it_opens(client):
    for path, options, status in (
        ("/v1/live/events?colour=red", {}, 400),
        ("/v1/live/views/nowhere", {}, 404),
        ("/v1/live/events", {"origin": "https://evil.example"}, 403),
    ):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await socket_to(client, path, **options).__aenter__()
        assert refused.value.response.status_code == status, path
    url = client.server.url.replace("http", "ws") + "/v1/live/events"
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(url).__aenter__()
    assert refused.value.response.status_code == 401
    ticket = (await client.post("/v1/tickets")).json()["ticket"]
    async with websockets.connect(f"{url}?ticket={ticket}", origin=client.server.url):
        assert client.server.service.live.open == 1


async def test_all_channels_end_when_the_server_stops(database18):
    async with api(database18) as client:
        stream = follow(client)
        following = await stream.__aenter__()
        events = await socket_to(client, "/v1/live/events").__aenter__()
        await client.server.service.close()
        name, _, data = await following.next()
        assert (name, data) == ("dropped", {"reason": "the server stops"})
        with pytest.raises(websockets.ConnectionClosed):
            await events.recv()
        await stream.__aexit__(None, None, None)
