"""Appends by concurrent writers: one event at a time, and batches to one stream. Events a second of each."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from race.work.shared import (
    STREAMS_EACH,
    Figures,
    Work,
    document,
    rate,
    rate_in_threads,
    raw_connections,
    run,
    stream_of,
)


def turns_of(work: Work) -> tuple[int, int, int, int]:
    """Writers, streams, turns of each writer with one event, and with a batch."""
    writers = work["writers"]
    batches = work["in_batches"] // work["batch"] // writers
    return writers, writers * STREAMS_EACH, work["singles"] // writers, batches


async def headwater(url: str, work: Work) -> Figures:
    """By ``app.append``, which shares commits between callers."""
    from bench import shop
    from headwater import Settings

    writers, streams, singles, batches = turns_of(work)
    app = shop.make(Settings(database_url=url, pool_size=writers))
    async with app:
        await app.deploy()

        async def one(writer: int, turn: int) -> None:
            await app.append(shop.event(stream_of(writer, turn), streams))

        async def batch(writer: int, turn: int) -> None:
            event = shop.event(stream_of(writer, turn), streams)
            await app.append(*[event] * work["batch"])

        return {
            "singles": await rate(writers, singles, one),
            "batches": await rate(writers, batches, batch, warm=2) * work["batch"],
        }


async def raw(url: str, work: Work) -> Figures:
    """By plain INSERT, each in a commit of its own, into a table with a position and no other index."""
    writers, streams, singles, batches = turns_of(work)
    connections, statements = await raw_connections(url, writers, "events")

    async def many(writer: int, turn: int, count: int) -> None:
        number = stream_of(writer, turn)
        data = [json.dumps(document(number, streams)) for _ in range(count)]
        values = {"stream": f"order/o{number}", "data": data}
        await connections[writer].execute(statements["race.insert_events"], values)

    return {
        "singles": await rate(writers, singles, lambda writer, turn: many(writer, turn, 1)),
        "batches": work["batch"]
        * await rate(
            writers, batches, lambda writer, turn: many(writer, turn, work["batch"]), warm=2
        ),
    }


def eventsourcing(url: str, work: Work) -> Figures:
    """By ``Application.save`` of aggregates that are held in memory, as its tutorial does, in threads."""
    from eventsourcing.application import Application

    from race.work.eventsourcing_orders import Order, settings

    writers, streams, singles, batches = turns_of(work)
    app: Any = Application(env=settings(url, writers))
    orders = [Order() for _ in range(streams)]

    def many(writer: int, turn: int, count: int) -> None:
        number = stream_of(writer, turn)
        for _ in range(count):
            orders[number].place(**document(number, streams))
        app.save(orders[number])

    one = rate_in_threads(writers, singles, lambda writer, turn: many(writer, turn, 1))
    batch = rate_in_threads(
        writers, batches, lambda writer, turn: many(writer, turn, work["batch"]), warm=2
    )
    app.close()
    return {"singles": one, "batches": batch * work["batch"]}


def umadb(_url: str, work: Work) -> Figures:
    """By ``Client.append`` to its own server, with a client for each writer, in threads."""
    from umadb import Client, Event

    writers, streams, singles, batches = turns_of(work)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as data:
        command = [str(Path(sys.executable).with_name("umadb")), "--listen", address]
        server = subprocess.Popen([*command, "--db-path", data], stdout=subprocess.DEVNULL)
        try:
            clients = [_connected(Client, f"http://{address}") for _ in range(writers)]

            def many(writer: int, turn: int, count: int) -> None:
                number = stream_of(writer, turn)
                data = json.dumps(document(number, streams)).encode()
                tags = [f"order:o{number}"]
                clients[writer].append(
                    [Event("order.placed", data, tags, uuid.uuid4()) for _ in range(count)]
                )

            one = rate_in_threads(writers, singles, lambda writer, turn: many(writer, turn, 1))
            batch = rate_in_threads(
                writers, batches, lambda writer, turn: many(writer, turn, work["batch"]), warm=2
            )
        finally:
            server.kill()
            server.wait()
    return {"singles": one, "batches": batch * work["batch"]}


def _connected(client: Any, url: str) -> Any:
    """A client whose server answers; waits up to 10 seconds for it."""
    for attempt in range(100):
        try:
            found = client(url)
            found.head()
        except Exception:
            if attempt == 99:
                raise
            time.sleep(0.1)
        else:
            return found
    raise AssertionError


if __name__ == "__main__":
    run({"headwater": headwater, "raw": raw, "eventsourcing": eventsourcing, "umadb": umadb})
