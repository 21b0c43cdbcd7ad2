"""From a commit to its receipt in another process at a steady rate, and how fast that process catches up.

``SYSTEM URL WORK`` writes, and starts ``SYSTEM URL WORK FIRST COUNT``, which follows: it says ``ready``, and once it has
the events from the first number on, so many, it prints when each came, by the clock that all processes share.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any
from urllib.parse import parse_qs, urlsplit

from race.work.shared import Figures, Work, document, run

MANY = 10_000_000
"""Streams: none has two events, and an event's number is in its data."""
CHUNK = 5_000
SLOT = "debezium"
POLL_MS = 1
"""How long Debezium gathers a batch. Its default is 500, which is then its latency."""


class Receipts:
    """When each event came, in nanoseconds of the shared clock; printed once all have come."""

    def __init__(self) -> None:
        first, count = sys.argv[4:6]
        self.first, self.count = int(first), int(count)
        self.times: dict[int, int] = {}

    def received(self, order: str) -> bool:
        """Notes an event by its order's name; whether all have come."""
        number = int(order[1:])
        if number >= self.first:
            self.times.setdefault(number, time.monotonic_ns())
        return len(self.times) >= self.count


@asynccontextmanager
async def follower(system: str, url: str, work: Work, first: int, count: int) -> AsyncIterator[Any]:
    """The process that follows, once it is ready."""
    command = [sys.executable, "-m", "race.work.relay", system, url, json.dumps(work)]
    process = await asyncio.create_subprocess_exec(
        *command, str(first), str(count), stdout=asyncio.subprocess.PIPE, limit=2**26
    )
    try:
        assert process.stdout is not None
        while (await process.stdout.readline()).strip() != b"ready":
            if process.stdout.at_eof():
                raise RuntimeError(f"{system} did not start to follow")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def times_of(process: Any) -> dict[int, int]:
    """What the follower has seen, once it has seen all; what Java logs before it is passed over."""
    while line := await process.stdout.readline():
        if line.startswith(b"{"):
            return {int(number): at for number, at in json.loads(line).items()}
    raise RuntimeError("the process that follows has ended early")


async def measure(
    system: str,
    url: str,
    work: Work,
    append: Callable[[int], Awaitable[object]],
    bulk: Callable[[range], Awaitable[object]],
) -> Figures:
    """Both figures. The events of the first second are not measured."""
    each, warm = work["each_second"], work["each_second"]
    steady = each * work["seconds"]
    returned: dict[int, int] = {}
    async with follower(system, url, work, warm, steady) as process:
        began = time.perf_counter()
        for number in range(warm + steady):
            await asyncio.sleep(max(began + number / each - time.perf_counter(), 0))
            await append(number)
            returned[number] = time.monotonic_ns()
        seen = await times_of(process)
        await process.wait()
    found = quantiles(((at - returned[number]) / 1e6 for number, at in seen.items()), n=100)
    first = warm + steady
    for start in range(first, first + work["behind"], CHUNK):
        await bulk(range(start, start + CHUNK))
    async with follower(system, url, work, first, work["behind"]) as process:
        came = sorted((await times_of(process)).values())
    rate = (len(came) - 1) / ((came[-1] - came[0]) / 1e9)
    return {"p50": found[49], "p99": found[98], "rate": rate}


def _tell(receipts: Receipts) -> None:
    print(json.dumps(receipts.times), flush=True)


async def headwater(url: str, work: Work) -> Figures:
    """`app.append`, and `app.log.tail` in the process of the relay, which publishes the watermark."""
    from bench import shop
    from headwater import App, Settings

    app = App("race", events=[shop.Placed], tenant="main", settings=Settings(database_url=url))
    async with app:
        if len(sys.argv) > 4:
            receipts = Receipts()
            async with app.relay():
                print("ready", flush=True)
                async for found in app.log.tail():
                    assert isinstance(found.event, shop.Placed)
                    if receipts.received(found.event.order):
                        break
                _tell(receipts)
            return {}
        await app.deploy()

        async def append(number: int) -> None:
            await app.append(shop.event(number, MANY))

        async def bulk(numbers: range) -> None:
            async with app.transaction() as tx:
                await tx.append(*(shop.event(number, MANY) for number in numbers))

        return await measure("headwater", url, work, append, bulk)


@asynccontextmanager
async def _table(url: str) -> AsyncIterator[tuple[Any, Any, Any]]:
    """The table of a peer and its two ways to write: one event a commit, and many."""
    from psycopg import AsyncConnection

    insert = "INSERT INTO outbox (id, data) SELECT n, d::jsonb FROM unnest(%s::bigint[], %s::text[]) AS u (n, d)"

    async def bulk(numbers: range) -> None:
        data = [json.dumps(document(number, MANY)) for number in numbers]
        await connection.execute(insert, [list(numbers), data], prepare=True)

    async def append(number: int) -> None:
        await bulk(range(number, number + 1))

    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS outbox (id bigint PRIMARY KEY, data jsonb NOT NULL)")  # fmt: skip
        yield connection, append, bulk


async def raw(url: str, work: Work) -> Figures:
    """A table, and a SELECT each millisecond of what has a higher id; right only because one connection writes."""
    async with _table(url) as (connection, append, bulk):
        if len(sys.argv) <= 4:
            return await measure("raw", url, work, append, bulk)
        receipts, after, done = Receipts(), -1, False
        print("ready", flush=True)
        while not done:
            select = "SELECT id, data FROM outbox WHERE id > %s ORDER BY id LIMIT 1000"
            rows = await (await connection.execute(select, [after], prepare=True)).fetchall()
            for after, data in rows:  # noqa: B007 - the last is where the next look begins
                done = receipts.received(data["order"])
            if not rows:
                await asyncio.sleep(0.001)
        _tell(receipts)
    return {}


async def debezium(url: str, work: Work) -> Figures:
    """Debezium's embedded engine on the outbox table, by its slot."""
    if len(sys.argv) > 4:
        await asyncio.to_thread(_debezium_follows, url)
        return {}
    async with _table(url) as (_, append, bulk), _on_tcp(url) as port:
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as kept:
            where = f"{url}&tcp={port}&offsets={kept}/offsets.dat"
            return await measure("debezium", where, work, append, bulk)


@asynccontextmanager
async def _on_tcp(url: str) -> AsyncIterator[int]:
    """A port that leads to the server's socket: the embedded Postgres listens on no other, and Java on no such."""
    asked = parse_qs(urlsplit(url).query)
    socket = str(Path(asked["host"][0]) / f".s.PGSQL.{asked['port'][0]}")

    async def pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while some := await source.read(2**16):
            target.write(some)
            await target.drain()
        target.close()

    async def both(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(socket)
        await asyncio.gather(
            pipe(reader, far_writer), pipe(far_reader, writer), return_exceptions=True
        )

    server = await asyncio.start_server(both, "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


def _debezium_follows(url: str) -> None:
    """Runs the engine until all events have come.

    Configured as https://debezium.io/documentation/reference/stable/development/engine.html and
    https://debezium.io/documentation/reference/stable/connectors/postgresql.html say for pgoutput.
    """
    from pydbzengine import BasePythonChangeHandler, DebeziumEngine

    parts = urlsplit(url)
    asked = parse_qs(parts.query)
    receipts, all_came = Receipts(), threading.Event()

    class Handler(BasePythonChangeHandler):  # type: ignore[misc, unused-ignore]
        def handleJsonBatch(self, records: list[Any]) -> None:  # noqa: N802 - the engine's name
            for record in records:
                row = json.loads(str(record.value()))["after"]
                if receipts.received(json.loads(row["data"])["order"]):
                    all_came.set()

    engine = DebeziumEngine(
        properties={
            "name": "race",
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
            "offset.storage.file.filename": asked["offsets"][0],
            "offset.flush.interval.ms": "1000",
            "topic.prefix": "race",
            "database.hostname": "127.0.0.1",
            "database.port": asked["tcp"][0],
            "database.user": parts.username,
            "database.password": "none",
            "database.dbname": parts.path.lstrip("/"),
            "plugin.name": "pgoutput",
            "publication.autocreate.mode": "filtered",
            "slot.name": SLOT,
            "snapshot.mode": "no_data",
            "poll.interval.ms": str(POLL_MS),
            "table.include.list": "public.outbox",
            "key.converter.schemas.enable": "false",
            "value.converter.schemas.enable": "false",
        },
        handler=Handler(),
    )
    threading.Thread(target=engine.run, daemon=True).start()
    _wait_for_slot(url)
    print("ready", flush=True)
    all_came.wait()
    _tell(receipts)
    engine.close()
    os._exit(0)  # threads of the JVM would keep the process


def _wait_for_slot(url: str) -> None:
    """Until the engine reads its slot."""
    import psycopg

    active = "SELECT FROM pg_replication_slots WHERE slot_name = %s AND active AND database = current_database()"
    with psycopg.connect(url.partition("&tcp=")[0], autocommit=True) as connection:
        while connection.execute(active, [SLOT]).fetchone() is None:
            time.sleep(0.1)


if __name__ == "__main__":
    run({"headwater": headwater, "raw": raw, "debezium": debezium})
