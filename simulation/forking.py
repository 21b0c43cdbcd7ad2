"""Processes that need no time to start: forked from one that has imported all they need."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["simulation.process", "simulation.load", "simulation.imported"])


class Forked:
    """One process; ``lines`` is what it prints."""

    def __init__(self, process: ForkServerProcess, lines: asyncio.StreamReader) -> None:
        self.lines = lines
        self._process = process
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = loop.create_future()
        loop.add_reader(process.sentinel, self._end)

    @staticmethod
    async def start(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Forked:
        """Starts ``command``: a module of the simulation with a ``run``, and its arguments."""
        reading, writing = _FORKS.Pipe(duplex=False)
        arguments = (list(command), dict(environment), str(log), writing)
        process = _FORKS.Process(target=_become, args=arguments, daemon=True)
        process.start()
        writing.close()
        lines = asyncio.StreamReader(limit=2**20)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), os.fdopen(os.dup(reading.fileno()), "rb")
        )
        reading.close()
        return Forked(process, lines)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._ended.done()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, unless it has ended."""
        if not self.is_over:
            os.kill(self.pid, number)

    async def wait(self) -> int:
        """Its exit code, once it has ended; negative where a signal ended it."""
        return await asyncio.shield(self._ended)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process.sentinel)
        self._process.join()
        self._ended.set_result(self._process.exitcode or 0)


def _become(
    command: Sequence[str], environment: Mapping[str, str], log: str, printed: Connection
) -> None:
    os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), 2)
    os.dup2(printed.fileno(), 1)
    printed.close()
    os.environ.clear()
    os.environ.update(environment)
    module, *arguments = command
    sys.modules[module].run(arguments)
