"""How fast HTTP is: ingest, single events, and from a commit to a browser."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

import msgspec

from bench.appends import paced
from bench.ground import Figure, Ground, alternating
from bench.shop import Placed, event, make
from headwater import App, Settings
from headwater.entrances.http import listen, serving
from headwater.entrances.http.server import run
from headwater.events import encode
from headwater.operations.access import create_token

BULK = 100_000
BATCH = 500
SENDERS = 8
CONNECTIONS = 200
SINGLES_PER_SECOND = 500
EVENTS_PER_SECOND = 100
BROWSERS = 200
SECONDS = 10


class Client:
    """One connection that sends requests as they are: what a client costs is not measured."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._host, self._port, self._token = host, port, token
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def open(self) -> Client:
        """Connects."""
        self.reader, self.writer = await asyncio.open_connection(self._host, self._port)
        return self

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """A request as bytes."""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self._token}\r\n"
            f"Content-Type: application/x-ndjson\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def send(self, request: bytes) -> int:
        """Sends a request; the answer's status, once its body has come."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        await self.reader.readexactly(length)
        return int(head[9:12])

    async def close(self) -> None:
        """Closes the connection."""
        self.writer.close()


def line(placed: Placed) -> bytes:
    """An event as a line."""
    fields = {
        "stream": f"order/{placed.order}",
        "type": "order.placed",
        "data": msgspec.Raw(encode(placed)),
    }
    return msgspec.json.encode(fields) + b"\n"


@asynccontextmanager
async def served(app: App, *, relay: bool) -> AsyncIterator[tuple[str, int, str]]:
    """Another process that serves the app, and drives its views if asked to: host, port and a token."""
    operator = app.database("headwater_operator")
    token = await create_token(operator, name="bench", tenant="main", scopes=["append", "read"])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.http", "relay" if relay else "alone", app.database().url,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        host, port = (await process.stdout.readline()).split()
        yield host.decode(), int(port), token.text
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def ingest(ground: Ground, rounds: int) -> list[Figure]:
    """NDJSON in batches of 500, beside the same events through Python's bulk append."""
    async with ground.app() as (app, _), served(app, relay=False) as (host, port, token):
        clients = [await Client(host, port, token).open() for _ in range(SENDERS)]
        turn = 0

        def events() -> list[Placed]:
            nonlocal turn
            turn += 1
            return [event(turn * BULK + n, 10_000) for n in range(BULK)]

        async def bulk() -> float:
            batch = events()
            started = time.perf_counter()
            async with app.transaction() as tx:
                await tx.append(*batch)
            return BULK / (time.perf_counter() - started)

        async def by_http() -> float:
            lines = [line(placed) for placed in events()]
            requests = [
                clients[0].request("POST", "/v1/events", b"".join(lines[start : start + BATCH]))
                for start in range(0, BULK, BATCH)
            ]
            waiting = iter(requests)

            async def sender(client: Client) -> None:
                for request in waiting:
                    status = await client.send(request)
                    assert status == 201, status

            started = time.perf_counter()
            await asyncio.gather(*(sender(client) for client in clients))
            return BULK / (time.perf_counter() - started)

        await by_http()
        reached, limit = await alternating(rounds, by_http, bulk)
        for client in clients:
            await client.close()
    return [
        Figure("HTTP ingest, NDJSON, batches of 500", reached, "events/s", limit, "0.5", reached >= 0.5 * limit)
    ]  # fmt: skip


async def singles(ground: Ground) -> list[Figure]:
    """Single events in an open loop from 200 connections."""
    async with ground.app() as (app, _), served(app, relay=True) as (host, port, token):
        clients = [await Client(host, port, token).open() for _ in range(CONNECTIONS)]
        free: asyncio.Queue[Client] = asyncio.Queue()
        for client in clients:
            free.put_nowait(client)
        times: list[float] = []

        async def one(number: int) -> None:
            due = began + number / SINGLES_PER_SECOND
            client = await free.get()
            request = client.request("POST", "/v1/events", line(event(number, BULK)))
            status = await client.send(request)
            assert status == 201, status
            times.append((time.perf_counter() - due) * 1000)  # from when it was due
            free.put_nowait(client)

        began = time.perf_counter()
        await paced(one, SINGLES_PER_SECOND, SECONDS)
        for client in clients:
            await client.close()
    _, p99 = percentiles(times)
    name = f"HTTP single events, {SINGLES_PER_SECOND}/s from {CONNECTIONS} connections, p99"
    return [Figure(name, p99, "ms", None, "100 ms", p99 <= 100)]


async def live(ground: Ground) -> list[Figure]:
    """From a commit's return to a browser elsewhere, by server-sent events."""
    async with ground.app() as (app, _), served(app, relay=True) as (host, port, token):
        times = await browsing(app, f"{host} {port} {token}", BROWSERS, EVENTS_PER_SECOND)
    p50, p99 = percentiles(times)
    name = f"commit to browser by SSE, {BROWSERS} clients, {EVENTS_PER_SECOND} events/s"
    return [
        Figure(f"{name}, p50", p50, "ms", None, "10 ms", p50 <= 10),
        Figure(f"{name}, p99", p99, "ms", None, "50 ms", p99 <= 50),
    ]


async def browsing(app: App, where: str, browsers: int, events_per_second: int) -> list[float]:
    """Milliseconds from each commit's return until each of so many browsers, in another process, has the event."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.http", "browsers", f"{where} {browsers}",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**28,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    returned: dict[int, int] = {}

    async def append(number: int) -> None:
        written = await app.append(event(number, BULK))
        returned[written.position] = time.monotonic_ns()

    try:
        await process.stdout.readline()
        await paced(append, events_per_second, SECONDS)
        process.stdin.write(b"%d\n" % len(returned))
        seen = msgspec.json.decode(await process.stdout.readline(), type=list[tuple[int, int]])
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    assert len(seen) == len(returned) * browsers
    return [(came - returned[position]) / 1e6 for position, came in seen]


class Browser(asyncio.Protocol):
    """One client of a channel that notes when each event came, and nothing else."""

    def __init__(self, request: bytes, seen: list[tuple[int, int]]) -> None:
        self._request, self._seen = request, seen
        self._rest = b""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asks for the channel."""
        cast("asyncio.Transport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        """Notes the positions of what came."""
        now = time.monotonic_ns()
        if not self.opened.done() and b"id: " in data:
            self.opened.set_result(None)
        *parts, self._rest = (self._rest + data).split(b"\n\n")
        for part in parts:
            _, found, text = part.partition(b'data: {"position":')
            if found:
                self._seen.append((int(text[: text.index(b",")]), now))


async def browse(host: str, port: str, token: str, browsers: str) -> None:
    """Opens the channels, then waits for as many events as standard input says."""
    seen: list[tuple[int, int]] = []
    client = Client(host, int(port), token)
    request = client.request("GET", "/v1/live/events")
    loop = asyncio.get_running_loop()
    for _ in range(int(browsers)):
        _, browser = await loop.create_connection(lambda: Browser(request, seen), host, int(port))
        await browser.opened
    print("ready", flush=True)
    count = int(await asyncio.to_thread(sys.stdin.readline))
    deadline = time.monotonic() + 60
    while len(seen) < count * int(browsers) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    print(msgspec.json.encode(seen).decode(), flush=True)


async def everything(ground: Ground, rounds: int) -> list[Figure]:
    """All figures of HTTP."""
    return [*await ingest(ground, rounds), *await singles(ground), *await live(ground)]


def percentiles(times: Sequence[float]) -> tuple[float, float]:
    """The median and the 99th percentile."""
    ordered = sorted(times)
    return ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]


async def serve(role: str, url: str) -> None:
    """Serves until killed; as ``relay``, it drives the views in the same process, like `headwater up`."""
    app = make(Settings(database_url=url, pool_size=20))
    async with app, AsyncExitStack() as stack:
        if role == "relay":
            await stack.enter_async_context(app.relay())
        bound = listen("127.0.0.1:0")
        await stack.enter_async_context(serving(app, bound))
        print(*bound.getsockname()[:2], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    _, role, where = sys.argv
    run(browse(*where.split()) if role == "browsers" else serve(role, where))
