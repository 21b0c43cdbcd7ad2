"""How each step of a schedule is done to an installation, and how all is mended."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg

from headwater.errors import EmbeddedPostgresError
from simulation.processes import Processes
from simulation.redis import RedisServer
from simulation.schedule import LOADS, PROCESSES, RELAYS, WORKERS, Step
from simulation.server import Server

MENDED_SECONDS = 1.0
"""How long the load goes on once all is mended."""
OWED_SECONDS = 60.0
"""How long a command that must succeed is started again once all is mended."""


class Faults:
    """Does steps; ``rebuilt`` are rebuilds' exit codes, ``owed`` the commands that have still to succeed."""

    def __init__(
        self,
        server: Server,
        redis: RedisServer,
        processes: Processes,
        folder: Path,
        say: Callable[[str], None],
    ) -> None:
        self.server, self.redis, self.processes = server, redis, processes
        self.folder, self.say = folder, say
        self.rebuilt: list[int] = []
        self.owed: list[list[str]] = []
        self.deployed = False
        self._over: tuple[str, ...] = ()
        self._under_way: set[asyncio.Task[None]] = set()
        self._crowd: list[psycopg.AsyncConnection[tuple[object, ...]]] = []

    async def do(self, step: Step) -> str:
        """Does a step; what came of it, for the trace."""
        known: dict[str, Callable[[str], Awaitable[str]]] = {
            "kill": self._kill, "start": self._start, "restart": self._restart, "pause": self._pause,
            "resume": self._resume, "terminate": self._terminate, "fill": self._fill, "free": self._free,
            "doom": self._doom, "jump": self._jump, "rebuild": self._rebuild, "forget": self._forget,
            "capture": self._capture, "deploy": self._deploy, "alter": self._alter,
        }  # fmt: skip
        try:
            return await known[step.do](step.whom)
        except (psycopg.Error, psutil.Error, EmbeddedPostgresError) as error:
            text = str(error).partition("\n")[0]
            return f"not done: {type(error).__name__}: {text}"

    async def mend(self) -> None:
        """All runs again, for a while still under the load; then that ends, and what is owed is done.

        Rebuilds and backfills give way to views that are behind, so under the load they may come to no end.
        """
        await self._free("connections")
        await self.processes.resume()
        await self._start("postgres")
        self.redis.resume()
        self.redis.start()
        for name in (*RELAYS, *WORKERS):
            await self.processes.start(name)
        await asyncio.sleep(MENDED_SECONDS)
        self._over = LOADS
        self.say("the load is told to end")
        if late := await self.processes.end(LOADS):
            self.say(f"{', '.join(late)} did not end and was killed")
        await asyncio.gather(*self._under_way)
        await self._settle()

    async def _settle(self) -> None:
        until = asyncio.get_running_loop().time() + OWED_SECONDS
        while self.owed and asyncio.get_running_loop().time() < until:
            for command in list(self.owed):
                if await self._command(command) == 0:
                    self.owed.remove(command)

    async def close(self) -> None:
        """Ends what is under way and all processes, and lets go of what is held."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self.processes.close()
        await self._free("connections")
        for process in self._owners():
            with suppress(psutil.Error):
                process.kill()
                process.wait(10)

    # Processes -----------------------------------------------------------------------------------

    async def _kill(self, whom: str) -> str:
        if whom == "postgres":
            await asyncio.to_thread(self.server.kill)
        elif whom == "redis":
            self.redis.kill()
        elif whom == "owner of clickhouse":
            owners = self._owners()
            for process in owners:
                process.kill()
            return ", ".join(f"process {process.pid}" for process in owners) or "nobody"
        elif whom in PROCESSES:
            return await self.processes.kill(whom)
        else:
            pid = await self.server.holder(whom.removeprefix("holder of "))
            return "nobody" if pid is None else await self.processes.kill_pid(pid)
        return "done"

    async def _start(self, whom: str) -> str:
        if whom == "postgres":
            await asyncio.to_thread(self.server.start)
        elif whom == "redis":
            self.redis.start()
        else:
            await self.processes.start(whom)
        return "done"

    async def _restart(self, _: str) -> str:
        await asyncio.to_thread(self.server.restart)
        return "done"

    async def _pause(self, whom: str) -> str:
        if whom == "redis":
            self.redis.pause()
            return "done"
        if whom.endswith("backends"):
            return f"{await self.server.pause(int(whom.split(maxsplit=1)[0]))} paused"
        holder = whom.removeprefix("holder of ")
        if holder == whom:
            return await self.processes.pause(whom)
        pid = await self.server.holder(holder)
        return await self.processes.pause(self.processes.name_of(pid or -1))

    async def _resume(self, whom: str) -> str:
        if whom == "redis":
            self.redis.resume()
        elif whom == "backends":
            self.server.resume()
        else:
            return await self.processes.resume()
        return "done"

    async def _doom(self, whom: str) -> str:
        """Kills a process and starts it again as one that dies at a point; the next one after it is sound."""
        name, _, doom = whom.partition(": ")
        killed = await self.processes.kill(name)
        await self.processes.start(name, doom)
        return killed

    async def _jump(self, whom: str) -> str:
        name, _, text = whom.partition(": ")
        (self.folder / "jump").write_text(text.removesuffix(" seconds"))
        return await self.processes.signal(name, signal.SIGUSR1)

    def _owners(self) -> list[psutil.Process]:
        """The owners of the embedded ClickHouse in this installation's folder."""
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if (command := process.info["cmdline"] or [])
            and "headwater.stores.clickhouse.owner" in command
            and any(word.startswith(str(self.folder)) for word in command)
        ]

    # Connections ---------------------------------------------------------------------------------

    async def _terminate(self, whom: str) -> str:
        return f"{await self.server.terminate(int(whom.split(maxsplit=1)[0]))} ended"

    async def _fill(self, _: str) -> str:
        """Takes every connection that is left to logins that are no superuser."""
        while True:
            try:
                self._crowd.append(await self.server.connect())
            except psycopg.OperationalError:
                return f"{len(self._crowd)} taken"

    async def _free(self, _: str) -> str:
        while self._crowd:
            await self._crowd.pop().close()
        return "done"

    # Operators -----------------------------------------------------------------------------------

    async def _rebuild(self, view: str) -> str:
        async def run() -> None:
            self.rebuilt.append(await self._command(["rebuild", view]))

        return self._begin(run())

    async def _forget(self, whom: str) -> str:
        tenant, _, who = whom.partition("/")
        return self._owe(["forget", who, "--tenant", tenant, "--reason", "simulated"])

    async def _capture(self, table: str) -> str:
        return self._owe(["capture", table, "--tenant-column", "tenant"])

    async def _alter(self, _: str) -> str:
        await self.server.admin("simulation.add_column")
        return "done"

    async def _deploy(self, _: str) -> str:
        """Starts all anew with the newer app, one after the other: what reads, then what writes; then views follow."""
        if self.deployed:
            return "nobody"
        self.deployed = True

        async def run() -> None:
            self.processes.deploy("simulation.shop:newer")
            for name in (*RELAYS, *WORKERS, *LOADS):
                await self.processes.end((name,))
                if name not in self._over:
                    await self.processes.start(name)
            self.say("the newer app runs everywhere")
            await self._until_done(["rebuild", "--stale"])

        return self._begin(run())

    def _owe(self, command: list[str]) -> str:
        return self._begin(self._until_done(command))

    async def _until_done(self, command: list[str]) -> None:
        """Runs a command, again once all is mended where it does not succeed."""
        if await self._command(command) != 0:
            self.owed.append(command)

    def _begin(self, work: Awaitable[None]) -> str:
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        return "begun"

    async def _command(self, command: Sequence[str]) -> int:
        code = await self.processes.once(command)
        self.say(f"{' '.join(command)} ended with code {code}")
        return code
