"""One whole installation: processes, stores, readers; and how each step of a schedule is done to it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from random import SystemRandom
from typing import Any, LiteralString

import psycopg

from headwater import App, Settings
from headwater.errors import EmbeddedPostgresError
from headwater.operations.access import create_token
from simulation.ground import LOGIN, Ground
from simulation.processes import Processes
from simulation.readers import Readers
from simulation.redis import RedisServer
from simulation.schedule import LOADS, PROCESSES, RELAYS, WORKERS, Schedule, Step
from simulation.shop import SQL, TENANTS, make

WORKER_LEASE_SECONDS = 2
BACKGROUND_SECONDS = 2
START_SECONDS = 60.0


class Installation:
    """Made by ``installation``; ``trace`` is what was done when, in seconds after the load began."""

    def __init__(self, ground: Ground, name: str, folder: Path, broken: str) -> None:
        self.ground, self.folder, self.broken = ground, folder, broken
        self.url, self.admin_url = ground.postgres.url(name, user=LOGIN), ground.postgres.url(name)
        self.redis = RedisServer(folder)
        self.trace: list[str] = []
        self.rebuilds: list[tuple[str, int]] = []
        stores = {"quick": self.redis.url, "lake": f"file://{folder}/lake"}
        self.app: App = make(Settings(database_url=self.url, stores=stores)).app
        self._stores = stores
        self._began = time.monotonic()
        self._rebuilding: set[asyncio.Task[None]] = set()
        self._ports = dict.fromkeys(RELAYS, 0)
        self._seed = ""
        self.processes: Processes
        self.readers: Readers

    async def open(self, schedule: Schedule) -> None:
        """Starts all but the load."""
        self._seed = schedule.seed
        self.redis.start()
        await self.app.deploy()
        operator = self.app.database("headwater_operator")
        tokens = [
            (await create_token(operator, name=t, tenant=t, scopes=["append", "read"])).text
            for t in TENANTS
        ]
        self._ports = dict(zip(RELAYS, _free_ports(len(RELAYS)), strict=True))
        environment = {
            "HEADWATER_APP": "simulation.shop:app",
            "HEADWATER_DATABASE_URL": self.url,
            "HEADWATER_VERIFY_EVERY_SECONDS": str(BACKGROUND_SECONDS),
            "SIMULATION_BROKEN": self.broken,
            "SIMULATION_PORTS": " ".join(map(str, self._ports.values())),
            "SIMULATION_TOKENS": " ".join(tokens),
        } | {f"HEADWATER_STORE_{name.upper()}_URL": url for name, url in self._stores.items()}
        self.processes = Processes(self.folder, environment, self._command, self.say)
        self.readers = Readers(self.app, self.broken)
        await self.readers.start()
        for name in (*RELAYS, *WORKERS):
            await self.processes.start(name)
        async with asyncio.timeout(START_SECONDS):
            while await self.holder("fast") is None:
                await asyncio.sleep(0.05)

    def say(self, text: str) -> None:
        """Adds to the trace."""
        self.trace.append(f"{time.monotonic() - self._began:7.3f} {text}")

    def _command(self, name: str, number: int) -> list[str]:
        if name in LOADS:
            return ["simulation.load", name, f"{name}.{number}", self._seed]
        command = ["simulation.process", self.broken]
        if name in RELAYS:
            return [*command, "up", "--http", f"127.0.0.1:{self._ports[name]}"]
        if name in WORKERS:
            return [*command, "work", "--lease", str(WORKER_LEASE_SECONDS)]
        return [*command, "rebuild", name.removeprefix("rebuild-")]

    # A round -------------------------------------------------------------------------------------

    async def play(self, schedule: Schedule) -> None:
        """The load under the schedule; then all is mended, and what is under way comes to its end."""
        for name in LOADS:
            await self.processes.start(name)
        async with asyncio.timeout(START_SECONDS):
            while self.processes.told.ready != set(LOADS):
                await asyncio.sleep(0.02)
        self._began = time.monotonic()
        for step in schedule.steps:
            await self._until(step.at_seconds)
            if step.at_seconds > schedule.seconds and step.do not in {"start", "resume"}:
                continue
            self.say(f"{step.do} {step.whom}: {await self._done(step)}")
        await self._until(schedule.seconds)
        await self._mend()

    async def _until(self, seconds: float) -> None:
        await asyncio.sleep(max(0, self._began + seconds - time.monotonic()))

    async def _mend(self) -> None:
        await self.processes.resume()
        await asyncio.to_thread(self.ground.postgres.start)
        self.redis.start()
        for name in (*RELAYS, *WORKERS):
            await self.processes.start(name)
        self.say("the load is told to end")
        if late := await self.processes.end(LOADS):
            self.say(f"{', '.join(late)} did not end and was killed")
        await asyncio.gather(*self._rebuilding)

    async def _done(self, step: Step) -> str:
        """Does a step; what came of it, for the trace."""
        whom = step.whom
        if (step.do, whom) in _ENGINES:
            return await _ENGINES[step.do, whom](self)
        if step.do == "start" and whom in PROCESSES:
            await self.processes.start(whom)
            return "done"
        holder = whom.removeprefix("holder of ") if whom.startswith("holder of ") else None
        try:
            pid = None if holder is None else await self.holder(holder)
        except psycopg.Error as error:
            return f"not done: {type(error).__name__}"
        if step.do == "kill" and holder is not None:
            return "nobody" if pid is None else await self.processes.kill_pid(pid)
        if step.do == "kill":
            return await self.processes.kill(whom)
        if step.do == "pause":
            name = whom if holder is None else self.processes.name_of(pid or -1)
            return await self.processes.pause(name)
        if step.do == "resume":
            return await self.processes.resume()
        if step.do == "rebuild":
            task = asyncio.create_task(self._rebuild(whom))
            self._rebuilding.add(task)
            return "begun"
        assert step.do == "terminate", step
        return await self._terminate(int(whom.split()[0]))

    async def _rebuild(self, view: str) -> None:
        code = await self.processes.once(f"rebuild-{view}")
        self.rebuilds.append((view, code))
        self.say(f"the rebuild of {view} ended with code {code}")

    async def _terminate(self, count: int) -> str:
        parameters = {"salt": self._seed, "count": count}
        try:
            return f"{len(await self.admin('simulation.terminate', **parameters))} ended"
        except psycopg.Error as error:
            return f"not done: {type(error).__name__}"

    # What an administrator sees ------------------------------------------------------------------

    async def admin(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of a named statement, as the superuser. Raises psycopg.Error."""
        text: LiteralString = SQL[statement]
        async with await psycopg.AsyncConnection.connect(self.admin_url, autocommit=True) as admin:
            return await (await admin.execute(text, parameters)).fetchall()

    async def holder(self, name: str) -> int | None:
        """The process that holds a lease."""
        rows = await self.admin("simulation.holder", name=name)
        return rows[0][0] if rows else None

    async def close(self) -> None:
        """Kills what is left."""
        await self.readers.stop()
        await self.processes.close()


async def _kill_postgres(installation: Installation) -> str:
    try:
        await asyncio.to_thread(installation.ground.postgres.kill)
    except EmbeddedPostgresError as error:
        return f"not done: {error.message}"
    return "done"


async def _start_postgres(installation: Installation) -> str:
    await asyncio.to_thread(installation.ground.postgres.start)
    return "done"


async def _restart_postgres(installation: Installation) -> str:
    await asyncio.to_thread(installation.ground.postgres.restart, "immediate")
    return "done"


async def _kill_redis(installation: Installation) -> str:
    installation.redis.kill()
    return "done"


async def _start_redis(installation: Installation) -> str:
    installation.redis.start()
    return "done"


_ENGINES: dict[tuple[str, str], Callable[[Installation], Awaitable[str]]] = {
    ("kill", "postgres"): _kill_postgres,
    ("start", "postgres"): _start_postgres,
    ("restart", "postgres"): _restart_postgres,
    ("kill", "redis"): _kill_redis,
    ("start", "redis"): _start_redis,
}


@asynccontextmanager
async def installation(
    ground: Ground, schedule: Schedule, broken: str
) -> AsyncIterator[Installation]:
    """A fresh installation for one round, gone at the end of the block."""
    async with AsyncExitStack() as stack:
        name, folder = await stack.enter_async_context(ground.fresh())
        made = Installation(ground, name, folder, broken)
        stack.callback(made.redis.kill)
        made.redis.start()
        await stack.enter_async_context(made.app)
        await made.open(schedule)
        stack.push_async_callback(made.close)
        yield made


def _free_ports(count: int) -> list[int]:
    """Ports below those that the system gives to clients, which might take one meanwhile."""
    found: list[int] = []
    for port in SystemRandom().sample(range(20_000, 32_000), 1_000):
        with socket.socket() as bound, suppress(OSError):
            bound.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            break
    return found
