"""The processes of one installation: started, killed, paused, and started again when they end by themselves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simulation.forking import Forked
from simulation.ledger import Ledger
from simulation.schedule import LOADS

AGAIN_SECONDS = 0.3
"""How soon a supervisor starts what ended by itself."""
ENDS_SECONDS = 30.0


@dataclass
class Told:
    """What load processes said, put together."""

    ledger: Ledger = field(default_factory=lambda: Ledger(sys.maxsize))
    stale: list[str] = field(default_factory=list)
    reads: int = 0
    ready: set[str] = field(default_factory=set)

    def hear(self, line: bytes) -> None:
        """One line; the last of a killed process may be cut off."""
        try:
            kind, what = json.loads(line)
        except ValueError:
            return
        if kind == "written":
            self.ledger.acknowledge(what, durable=True)
        elif kind == "undone":
            self.ledger.undo(what)
        elif kind == "stale":
            self.stale.append(what)
        elif kind == "ready":
            self.ready.add(what)
        elif kind == "read":
            self.reads += 1


class Processes:
    """By name. ``command`` says how a name is started, and how a command of an operator's."""

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        command: Callable[[str, int, str], list[str]],
        operator: Callable[[Sequence[str]], list[str]],
        trace: Callable[[str], None],
    ) -> None:
        self.told = Told()
        self._folder = folder
        self._environment = {**os.environ, **environment}
        self._command, self._operator, self._trace = command, operator, trace
        self._running: dict[str, Forked] = {}
        self._wanted: set[str] = set()
        self._paused: set[str] = set()
        self._starts: dict[str, int] = {}
        self._starting = asyncio.Lock()
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    def deploy(self, app: str) -> None:
        """What is started from now on runs that app."""
        self._environment["HEADWATER_APP"] = app

    async def start(self, name: str, doom: str = "") -> None:
        """Starts a process, unless it runs; one that dies at a point where that is named."""
        async with self._starting:  # whoever else starts it waits, and finds it running
            if name in self._running or self._closed:
                return
            self._wanted.add(name)
            number = self._starts[name] = self._starts.get(name, 0) + 1
            process = await self._fork(self._command(name, number, doom), name)
            self._running[name] = process
        task = asyncio.create_task(self._follow(name, process))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def once(self, command: Sequence[str]) -> int:
        """Runs an operator's command to its end; its exit code."""
        process = await self._fork(self._operator(command), f"operator-{command[0]}")
        async for _ in process.lines:
            pass
        return await process.wait()

    async def _fork(self, command: Sequence[str], name: str) -> Forked:
        return await Forked.start(command, self._environment, self._folder / f"{name}.log")

    async def _follow(self, name: str, process: Forked) -> None:
        async for line in process.lines:
            if name in LOADS:
                self.told.hear(line)
        code = await process.wait()
        self._running.pop(name, None)
        self._paused.discard(name)
        if name in self._wanted:
            self._trace(f"{name} ended by itself with code {code}")
            await asyncio.sleep(AGAIN_SECONDS)
            if name in self._wanted:
                await self.start(name)

    async def kill(self, name: str) -> str:
        """SIGKILL, and no start until it is asked for."""
        self._wanted.discard(name)
        return await self.signal(name, signal.SIGKILL)

    async def kill_pid(self, pid: int) -> str:
        """SIGKILL to one of ours, which its supervisor starts again."""
        name = self.name_of(pid)
        return "nobody" if name is None else await self.signal(name, signal.SIGKILL)

    def name_of(self, pid: int) -> str | None:
        """Which of ours has that process id."""
        return next((n for n, p in self._running.items() if p.pid == pid), None)

    async def pause(self, name: str | None) -> str:
        """SIGSTOP."""
        if name is None or name not in self._running:
            return "nobody"
        self._paused.add(name)
        return await self.signal(name, signal.SIGSTOP)

    async def resume(self) -> str:
        """SIGCONT to all that are paused."""
        names = sorted(self._paused)
        for name in names:
            await self.signal(name, signal.SIGCONT)
        self._paused.clear()
        return ", ".join(names) or "nobody"

    async def signal(self, name: str, number: signal.Signals) -> str:
        """Sends a signal; to whom."""
        process = self._running.get(name)
        if process is None or process.is_over:
            return "nobody"
        process.signal(number)
        if number == signal.SIGKILL:
            await self._forgotten(name, process)
        return f"{name}, process {process.pid}"

    async def _forgotten(self, name: str, process: Forked) -> None:
        """Returns once it is gone here too, so that it may be started again."""
        while self._running.get(name) is process:
            await asyncio.sleep(0.005)

    async def end(self, names: tuple[str, ...]) -> list[str]:
        """SIGTERM; those that did not end in time are killed and named."""
        self._wanted -= set(names)
        ending = {name: self._running[name] for name in names if name in self._running}
        for process in ending.values():
            process.signal(signal.SIGTERM)
        late = []
        for name, process in ending.items():
            try:
                await asyncio.wait_for(process.wait(), ENDS_SECONDS)
            except TimeoutError:
                late.append(name)
                process.signal(signal.SIGKILL)
            await self._forgotten(name, process)
        return late

    async def close(self) -> None:
        """Kills all, and starts none any more."""
        async with self._starting:
            self._closed = True
            self._wanted.clear()
            for process in self._running.values():
                process.signal(signal.SIGKILL)
        await asyncio.gather(*self._tasks, return_exceptions=True)
