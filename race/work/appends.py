"""Appends by concurrent writers: one event at a time, and batches to one stream. Events a second of each."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
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


def streams_of(work: Work) -> int:
    """Of all writers."""
    return work["writers"] * STREAMS_EACH


async def both(work: Work, many: Callable[[int, int, int], Awaitable[object]]) -> Figures:
    """Both figures of tasks: ``many`` takes a writer, its turn and how many events it appends."""
    writers, batch = work["writers"], work["batch"]
    one = await rate(writers, work["singles"] // writers, lambda w, turn: many(w, turn, 1))
    turns = work["in_batches"] // batch // writers
    batches = await rate(writers, turns, lambda w, turn: many(w, turn, batch), warm=2)
    return {"singles": one, "batches": batches * batch}


def both_in_threads(work: Work, many: Callable[[int, int, int], object]) -> Figures:
    """The same of threads."""
    writers, batch = work["writers"], work["batch"]
    one = rate_in_threads(writers, work["singles"] // writers, lambda w, turn: many(w, turn, 1))
    turns = work["in_batches"] // batch // writers
    batches = rate_in_threads(writers, turns, lambda w, turn: many(w, turn, batch), warm=2)
    return {"singles": one, "batches": batches * batch}


async def headwater(url: str, work: Work) -> Figures:
    """By ``app.append``, which shares commits between callers."""
    from bench import shop
    from headwater import Settings

    app = shop.make(Settings(database_url=url, pool_size=work["writers"]))
    async with app:
        await app.deploy()

        async def many(writer: int, turn: int, count: int) -> None:
            number = stream_of(writer, turn)
            await app.append(*(shop.event(number, streams_of(work)) for _ in range(count)))

        return await both(work, many)


async def raw(url: str, work: Work) -> Figures:
    """By plain INSERT, each in a commit of its own, into a table with a position and no other index."""
    connections, statements = await raw_connections(url, work["writers"], "events")

    async def many(writer: int, turn: int, count: int) -> None:
        number = stream_of(writer, turn)
        data = [json.dumps(document(number, streams_of(work))) for _ in range(count)]
        values = {"stream": f"order/o{number}", "data": data}
        await connections[writer].execute(statements["race.insert_events"], values)

    return await both(work, many)


def eventsourcing(url: str, work: Work) -> Figures:
    """By ``Application.save`` of aggregates that are held in memory, as its tutorial does, in threads."""
    from eventsourcing.application import Application

    from race.work.eventsourcing_orders import Order, settings

    app: Any = Application(env=settings(url, work["writers"]))
    orders = [Order() for _ in range(streams_of(work))]

    def many(writer: int, turn: int, count: int) -> None:
        number = stream_of(writer, turn)
        for _ in range(count):
            orders[number].place(**document(number, streams_of(work)))
        app.save(orders[number])

    figures = both_in_threads(work, many)
    app.close()
    return figures


def umadb(_url: str, work: Work) -> Figures:
    """By ``Client.append`` to its own server, with a client for each writer, in threads."""
    from umadb import Client, Event

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as data:
        command = [str(Path(sys.executable).with_name("umadb")), "--listen", address]
        server = subprocess.Popen([*command, "--db-path", data], stdout=subprocess.DEVNULL)
        try:
            clients = [_connected(Client, f"http://{address}") for _ in range(work["writers"])]

            def many(writer: int, turn: int, count: int) -> None:
                number = stream_of(writer, turn)
                data = json.dumps(document(number, streams_of(work))).encode()
                tags = [f"order:o{number}"]
                clients[writer].append(
                    [Event("order.placed", data, tags, uuid.uuid4()) for _ in range(count)]
                )

            return both_in_threads(work, many)
        finally:
            server.kill()
            server.wait()


def _connected(client: Any, url: str) -> Any:
    """A client whose server answers; waits up to 10 seconds for it."""
    deadline = time.monotonic() + 10
    while True:
        try:
            found = client(url)
            found.head()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return found


if __name__ == "__main__":
    run({"headwater": headwater, "raw": raw, "eventsourcing": eventsourcing, "umadb": umadb})
