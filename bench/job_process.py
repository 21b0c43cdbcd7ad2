"""A process that runs empty jobs by one of several systems: ``python -m bench.job_process SYSTEM URL WORKERS``.

It says ``ready``, begins at the first line it reads, and ends at the next or at the end of its input; then it
prints one line of JSON: for each job that carried a time, how long after it the job began, in milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading

import msgspec
import uvloop

from bench.job_waits import WAITS, began


def lines() -> tuple[asyncio.Event, asyncio.Event]:
    """Says ``ready``; events that are set by the first line read and the next."""
    loop, go, end = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def read() -> None:
        for event in (go, end):
            sys.stdin.readline()
            loop.call_soon_threadsafe(event.set)

    threading.Thread(target=read, daemon=True).start()
    print("ready", flush=True)
    return go, end


async def headwater(url: str, workers: int) -> None:
    """Headwater's own."""
    from bench.jobs import job_app

    app = job_app(url, workers)
    async with app:
        go, end = lines()
        await go.wait()
        async with app.working():
            await end.wait()


async def pgqueuer(url: str, workers: int) -> None:
    """PgQueuer over asyncpg, a hundred jobs a batch."""
    import asyncpg
    from pgqueuer import AsyncpgDriver, PgQueuer

    queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(url)))

    @queuer.entrypoint("empty")
    async def empty(job: object) -> None:
        began(int(getattr(job, "payload", b"") or b"0"))

    go, end = lines()
    await go.wait()
    running = asyncio.create_task(queuer.qm.run(batch_size=max(workers, 100)))
    await end.wait()
    queuer.qm.shutdown.set()
    await asyncio.wait({running}, timeout=5)


async def procrastinate(url: str, workers: int) -> None:
    """Procrastinate over psycopg."""
    from bench.job_peers import procrastinate_app

    app = procrastinate_app(url)
    async with app.open_async():
        go, end = lines()
        await go.wait()
        running = asyncio.create_task(
            app.run_worker_async(
                concurrency=workers, install_signal_handlers=False, listen_notify=True
            )
        )
        await end.wait()
        running.cancel()
        await asyncio.wait({running}, timeout=5)


async def dbos(url: str, workers: int) -> None:
    """DBOS, looking for jobs each 10 ms instead of each second."""
    from dbos import DBOS

    from bench.job_peers import dbos_config

    DBOS(config=dbos_config(url))

    @DBOS.workflow(name="empty")
    async def empty(at_ns: int) -> None:
        began(at_ns)

    go, end = lines()
    await go.wait()
    DBOS.launch()
    await DBOS.register_queue_async("plain", worker_concurrency=workers, polling_interval_sec=0.01)
    await end.wait()


if __name__ == "__main__":
    systems = {
        "headwater": headwater,
        "pgqueuer": pgqueuer,
        "procrastinate": procrastinate,
        "dbos": dbos,
    }
    _, system, database, count = sys.argv
    # On the loop that `headwater work` runs on, whoever is measured.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(systems[system](database, int(count)))
    print(msgspec.json.encode(WAITS).decode(), flush=True)
    os._exit(0)
