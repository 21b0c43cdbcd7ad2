"""How soon what one service commits is seen in the view of another, beside NATS's own publish and fetch in the same run."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import nats
import psycopg
from psycopg import sql

from bench.bus_process import Placed, billing, shop
from bench.ground import LOGIN, Figure, Ground
from headwater import Settings
from headwater.operations.migrate import create_login, migrate

EACH_SECOND, SECONDS, SAMPLED = 500, 10, 10
BODY = b"x" * 300


async def bus(ground: Ground) -> list[Figure]:
    """Appends at a steady rate; a reader elsewhere waits for each tenth by its token."""
    with nats_server() as url:
        limit = await of_nats(url)
        ours = await of_two_services(ground, url)
    middle, late = median(ours), quantiles(ours, n=100)[98]
    own_middle, own_late = median(limit), quantiles(limit, n=100)[98]
    at = f"at {EACH_SECOND}/s"
    return [
        Figure(f"commit to another service's view {at}, p50, beside NATS", middle, "ms", own_middle, "20 ms", middle <= 20),
        Figure(f"commit to another service's view {at}, p99, beside NATS", late, "ms", own_late, "100 ms", late <= 100),
    ]  # fmt: skip


async def of_two_services(ground: Ground, nats_url: str) -> list[float]:
    """Milliseconds from the end of a commit to a read elsewhere that has seen it."""
    urls = [await _database(ground, f"bench_{name}") for name in ("shop", "billing")]
    stores = {"bus": nats_url}
    source = shop(Settings(database_url=urls[0], stores=stores, pool_size=20))
    target, bills = billing(Settings(database_url=urls[1], stores=stores, pool_size=20))
    waits: list[float] = []

    async def placed(number: int) -> None:
        written = await source.append(Placed(f"{number}", number))
        began = time.perf_counter()
        if number % SAMPLED == 0:
            bill = await bills.get(f"{number}", at_least=written.token, timeout_seconds=60)
            waits.append((time.perf_counter() - began) * 1000)
            assert bill is not None
            assert bill.due == number

    async with source, target:
        await source.deploy()
        await target.deploy()
        async with _process("shop", urls[0], nats_url), _process("billing", urls[1], nats_url):
            await placed(0)
            await _steadily(placed, 2 * EACH_SECOND)  # warm
            waits.clear()
            await _steadily(placed, EACH_SECOND * SECONDS)
    return waits


async def of_nats(url: str) -> list[float]:
    """Milliseconds from the answer to a publish, one at a time, to its message at a consumer."""
    client = await nats.connect(url)
    stream = client.jetstream()
    await stream.add_stream(name="bench", subjects=["bench.>"])
    consumer = await stream.pull_subscribe("bench.>", durable="bench", stream="bench")
    published: dict[int, float] = {}
    came: dict[int, float] = {}
    count = EACH_SECOND * SECONDS

    async def fetch() -> None:
        while len(came) < count:
            with suppress(nats.errors.TimeoutError):
                for message in await consumer.fetch(50, timeout=1):
                    came[int((message.headers or {})["number"])] = time.perf_counter()
                    await message.ack()

    async def publish(number: int) -> None:
        published[number] = time.perf_counter()
        await stream.publish("bench.one", BODY, headers={"number": f"{number}"})

    fetching = asyncio.create_task(fetch())
    await _steadily(publish, count)
    await fetching
    await client.close()
    return [(came[number] - at) * 1000 for number, at in published.items()]


async def _steadily(do: Any, count: int) -> None:
    """Begins one each 1/500 s, whether the one before has ended or not."""
    began, running = time.perf_counter(), []
    for number in range(1, count + 1):
        running.append(asyncio.create_task(do(number)))
        await asyncio.sleep(max(began + number / EACH_SECOND - time.perf_counter(), 0))
    await asyncio.gather(*running)


@contextmanager
def nats_server() -> Iterator[str]:
    """A server with JetStream, from the wheel's binary."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="hw-nats-") as folder:
        command = [str(Path(sys.executable).with_name("nats-server")), "-a", "127.0.0.1", "-p", f"{port}", "-js", "-sd", folder]  # fmt: skip
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
        try:
            for _ in range(500):
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.02)
            yield f"nats://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


@asynccontextmanager
async def _process(which: str, url: str, nats_url: str) -> AsyncIterator[None]:
    command = [sys.executable, "-m", "bench.bus_process", which, url, nats_url]
    started = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert started.stdout is not None
        await started.stdout.readline()
        yield
    finally:
        started.kill()
        await started.wait()


async def _database(ground: Ground, name: str) -> str:
    with psycopg.connect(ground.server.url(), autocommit=True) as admin:
        for verb in ("DROP DATABASE IF EXISTS {} WITH (FORCE)", "CREATE DATABASE {}"):
            admin.execute(sql.SQL(verb).format(sql.Identifier(name)))
    url = ground.server.url(name)
    await migrate(url)
    await create_login(url, LOGIN, database_owner=True)
    return ground.server.url(name, user=LOGIN)
