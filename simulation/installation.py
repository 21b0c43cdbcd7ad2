"""One whole installation: processes, stores, readers; played to by a schedule."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from random import SystemRandom

from headwater import App, Settings
from headwater.operations.access import create_token
from headwater.personal import MasterKeys
from headwater.personal.signing import Signer
from simulation.faults import Faults
from simulation.ground import LOGIN, Ground
from simulation.processes import Processes
from simulation.readers import Readers
from simulation.redis import RedisServer
from simulation.schedule import LOADS, RELAYS, WORKERS, Schedule
from simulation.server import Server
from simulation.shop import TENANTS, make

WORKER_LEASE_SECONDS = 2
BACKGROUND_SECONDS = 2
START_SECONDS = 60.0


class Installation:
    """Made by ``installation``; ``trace`` is what was done when, in seconds after the load began.

    ``app`` is the app that the checks ask: the newer one once it is deployed.
    """

    def __init__(self, ground: Ground, name: str, folder: Path, broken: str, seed: str) -> None:
        self.folder, self.broken, self.seed = folder, broken, seed
        self.redis = RedisServer(folder)
        self.server = Server(
            ground.postgres, ground.postgres.url(name, user=LOGIN), ground.postgres.url(name), seed
        )
        self.trace: list[str] = []
        self._stores = {
            "quick": self.redis.url,
            "lake": f"file://{folder}/lake",
            "analytics": f"chdb://{folder}/clickhouse",
        }
        self._settings = Settings(
            database_url=self.server.url,
            stores=self._stores,
            master_key=MasterKeys.new("m1"),
            signing_key=Signer.new(),
            forgotten_ledger=str(folder / "ledger" / "forgotten"),
        )
        self.app: App = make(self._settings).app
        self.newer: App = make(self._settings, newer=True).app
        self._began = time.monotonic()
        self._ports = dict.fromkeys(RELAYS, 0)
        self.processes: Processes
        self.readers: Readers
        self.faults: Faults

    async def open(self) -> None:
        """Starts all but the load."""
        self.redis.start()
        await self.app.deploy()
        operator = self.app.database("headwater_operator")
        tokens = [
            (await create_token(operator, name=t, tenant=t, scopes=["append", "read"])).text
            for t in TENANTS
        ]
        self._ports = dict(zip(RELAYS, _free_ports(len(RELAYS)), strict=True))
        self.processes = Processes(
            self.folder, self._environment(tokens), self._command, self._operator, self.say
        )
        self.faults = Faults(self.server, self.redis, self.processes, self.folder, self.say)
        self.readers = Readers(self.app, self.broken)
        await self.readers.start()
        for name in (*RELAYS, *WORKERS):
            await self.processes.start(name)
        async with asyncio.timeout(START_SECONDS):
            while await self.server.holder("fast") is None:
                await asyncio.sleep(0.05)

    def _environment(self, tokens: Sequence[str]) -> dict[str, str]:
        settings = self._settings
        return {
            "HEADWATER_APP": "simulation.shop:app",
            "HEADWATER_DATABASE_URL": settings.database_url,
            "HEADWATER_MASTER_KEY": settings.master_key,
            "HEADWATER_SIGNING_KEY": settings.signing_key,
            "HEADWATER_FORGOTTEN_LEDGER": settings.forgotten_ledger,
            "HEADWATER_VERIFY_EVERY_SECONDS": str(BACKGROUND_SECONDS),
            "SIMULATION_BROKEN": self.broken,
            "SIMULATION_JUMP": str(self.folder / "jump"),
            "SIMULATION_PORTS": " ".join(map(str, self._ports.values())),
            "SIMULATION_TOKENS": " ".join(tokens),
        } | {f"HEADWATER_STORE_{name.upper()}_URL": url for name, url in self._stores.items()}

    def say(self, text: str) -> None:
        """Adds to the trace."""
        self.trace.append(f"{time.monotonic() - self._began:7.3f} {text}")

    def _command(self, name: str, number: int, doom: str) -> list[str]:
        if name in LOADS:
            return ["simulation.load", name, f"{name}.{number}", self.seed]
        command = ["simulation.process", self.broken, doom]
        if name in RELAYS:
            return [*command, "up", "--http", f"127.0.0.1:{self._ports[name]}"]
        return [*command, "work", "--lease", str(WORKER_LEASE_SECONDS)]

    def _operator(self, command: Sequence[str]) -> list[str]:
        return ["simulation.process", self.broken, "", *command]

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
            if step.at_seconds > schedule.seconds and step.do not in {"start", "resume", "free"}:
                continue
            self.say(f"{step.do} {step.whom}: {await self.faults.do(step)}")
        await self._until(schedule.seconds)
        await self.faults.mend()

    async def _until(self, seconds: float) -> None:
        await asyncio.sleep(max(0, self._began + seconds - time.monotonic()))

    async def close(self) -> None:
        """Kills what is left."""
        await self.readers.stop()
        await self.faults.close()


@asynccontextmanager
async def installation(
    ground: Ground, schedule: Schedule, broken: str
) -> AsyncIterator[Installation]:
    """A fresh installation for one round, gone at the end of the block."""
    async with AsyncExitStack() as stack:
        name, folder = await stack.enter_async_context(ground.fresh())
        made = Installation(ground, name, folder, broken, schedule.seed)
        stack.callback(made.redis.kill)
        made.redis.start()
        await stack.enter_async_context(made.app)
        await stack.enter_async_context(made.newer)
        await made.open()
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
