"""How long a failover takes, and what it loses: the primary is killed under load and its standby promoted at once."""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import psycopg

from bench.ground import LOGIN, Figure
from headwater import App, Document, Event, Settings
from headwater.errors import HeadwaterError
from headwater.operations.embedded import EmbeddedPostgres
from headwater.operations.migrate import create_login, migrate
from headwater.testing.standby import Standby

WRITERS, LOAD_SECONDS = 8, 3.0
CHECKPOINT_SECONDS = 30.0


class Made(Event, type="bench.made", stream="bench/{writer}"):
    writer: str
    n: int


class Written(Document):
    count: int = 0


@dataclass(slots=True)
class Load:
    """Writers that go on through a failover, and what they were answered."""

    app: App
    answered: list[tuple[float, str, int]] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)
    over: bool = False

    async def write(self, writer: str) -> None:
        n = 0
        while not self.over:
            try:
                written = await self.app.append(Made(writer, n), idempotency_key=f"{writer} {n}")
                self.answered.append((time.perf_counter(), writer, n))
                if writer == "0":
                    await self.app.view("written").get(writer, at_least=written.token)
                    self.reads.append(time.perf_counter())
                n += 1
            except (HeadwaterError, psycopg.Error, OSError):
                await asyncio.sleep(0.01)


def app_of(url: str) -> App:
    """The app that writes and reads."""
    app = App("bench", events=[Made], tenant="main", settings=Settings(database_url=url))

    @app.fold(key="writer")
    def written(state: Written, event: Made) -> Written:  # noqa: ARG001 - it counts
        return state.but(count=state.count + 1)

    return app


async def once(folder: Path, *, synchronous: bool) -> tuple[float, float, int, int]:
    """Seconds from the kill to the first write and the first read with its token, events lost, and events answered before."""
    primary = EmbeddedPostgres(folder / "primary", settings={"shared_buffers": "256MB"})
    primary.start()
    try:
        await migrate(primary.url())
        await create_login(primary.url(), LOGIN, database_owner=True)
        with Standby(primary, folder / "standby") as standby:
            if synchronous:
                with psycopg.connect(primary.url(), autocommit=True) as admin:
                    admin.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
                    admin.execute("SELECT pg_reload_conf()")
            async with app_of(standby.either_url("postgres", user=LOGIN)) as app:
                await app.deploy()
                async with app.relay():
                    return await _through(Load(app), primary, standby)
    finally:
        primary.stop()


async def _through(
    load: Load, primary: EmbeddedPostgres, standby: Standby
) -> tuple[float, float, int, int]:
    writers = [asyncio.create_task(load.write(str(n))) for n in range(WRITERS)]
    await asyncio.sleep(LOAD_SECONDS)
    killed = time.perf_counter()
    await asyncio.to_thread(primary.kill)
    await asyncio.sleep(0.005)  # answers that were on their way
    before = len(load.answered)
    await asyncio.to_thread(standby.promote)
    with psycopg.connect(standby.postgres.url(), autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
        admin.execute("SELECT pg_reload_conf()")
    async with asyncio.timeout(CHECKPOINT_SECONDS):
        while len(load.answered) == before or load.reads[-1] < load.answered[before][0]:
            await asyncio.sleep(0.01)
    load.over = True
    await asyncio.gather(*writers)
    with psycopg.connect(standby.postgres.url()) as admin:
        rows = admin.execute("SELECT data->>'writer', (data->>'n')::int FROM headwater.events WHERE type = 'bench.made'").fetchall()  # fmt: skip
    lost = {(writer, n) for _, writer, n in load.answered[:before]} - set(rows)
    read = next(at for at in load.reads if at > load.answered[before][0])
    return load.answered[before][0] - killed, read - killed, len(lost), before


async def failover(rounds: int) -> list[Figure]:
    """Both ways of replication, in turn."""
    found: dict[bool, list[tuple[float, float, int, int]]] = {False: [], True: []}
    for _ in range(rounds):
        for synchronous, results in found.items():
            with TemporaryDirectory(prefix="headwater-failover-", dir="build/bench") as folder:
                Path(folder).chmod(0o711)
                results.append(await once(Path(folder), synchronous=synchronous))
                shutil.rmtree(folder, ignore_errors=True)
    figures = []
    for synchronous, results in found.items():
        how = "a synchronous standby" if synchronous else "an asynchronous standby"
        write, read = (median(result[place] for result in results) * 1e3 for place in (0, 1))
        lost, answered = sum(r[2] for r in results), sum(r[3] for r in results)
        figures += [
            Figure(f"kill to the first write, {how}", write, "ms"),
            Figure(f"kill to the first read with its token, {how}", read, "ms"),
            Figure(f"events lost of {answered:,} answered, {how}", lost, "events", aim="0" if synchronous else "", met=lost == 0 if synchronous else None),
        ]  # fmt: skip
    return figures
