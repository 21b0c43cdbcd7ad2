"""A process that runs sagas of three steps: ``python -m bench.saga_process SYSTEM URL COUNT EACH_SECOND``.

It says ``ready`` and begins at the first line it reads. Headwater's works until the next line. DBOS's starts so many
workflows itself, 50 at once or so many each second, and prints how long all took and each, as one line of JSON.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import msgspec
import uvloop

from bench.job_process import lines

AT_ONCE = 50


async def headwater(url: str, _count: int, _each_second: float) -> None:
    """Takes part in the work."""
    from bench.shop import make
    from headwater import Settings

    app = make(Settings(database_url=url, pool_size=20), sagas=True)
    async with app:
        go, end = lines()
        await go.wait()
        async with app.working():
            await end.wait()


async def dbos(url: str, count: int, each_second: float) -> None:
    """Workflows of three empty steps, each run in the process that starts it."""
    from dbos import DBOS, DBOSConfig

    config = DBOSConfig(name="bench", system_database_url=url, log_level="ERROR", sys_db_pool_size=AT_ONCE, executor_id=str(os.getpid()))  # fmt: skip
    DBOS(config=config)

    @DBOS.step()
    async def step(number: int) -> int:
        return number

    @DBOS.workflow()
    async def three(number: int) -> int:
        return int(await step(number) + await step(number + 1) + await step(number + 2))

    DBOS.launch()
    for number in range(20):  # Headwater's workers have been warmed up too
        await (await DBOS.start_workflow_async(three, number)).get_result()
    go, _ = lines()
    await go.wait()
    waits: list[float] = []
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with room:
            began = time.perf_counter()
            await (await DBOS.start_workflow_async(three, number)).get_result()
            waits.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    running = []
    for number in range(count):
        running.append(asyncio.create_task(one(number)))
        if each_second:
            await asyncio.sleep(1 / each_second)
    await asyncio.gather(*running)
    print(msgspec.json.encode([time.perf_counter() - began, waits]).decode(), flush=True)


if __name__ == "__main__":
    _, system, database, number_of, rate = sys.argv
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(
            {"headwater": headwater, "dbos": dbos}[system](database, int(number_of), float(rate))
        )
    os._exit(0)
