"""Processes for work that burns CPU: one call in each, so that a crash ends one call and no other.

They end with the process that started them, however that ends.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from multiprocessing.connection import wait
from typing import Any

from headwater.jobs.job import Job


class ProcessDied(Exception):
    """The process that ran a call ended before the call did."""


class Processes:
    """Processes that are kept for the next call; one that died is replaced."""

    def __init__(self) -> None:
        self._idle: list[ProcessPoolExecutor] = []
        self._all: set[ProcessPoolExecutor] = set()

    async def run_job(self, job: Job[..., Any], arguments: dict[str, Any]) -> Any:
        """Runs a job's function in a process. Raises what it raises, and ProcessDied."""
        return await self.run(call, *where(job.function), arguments)

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a module's function in a process. Raises what it raises, and ProcessDied."""
        process = self._idle.pop() if self._idle else self._started()
        alive = False
        try:
            loop = asyncio.get_running_loop()
            result = await loop.run_in_executor(process, function, *arguments)
            alive = True
        except BrokenProcessPool as error:
            raise ProcessDied(
                "the process that ran it died (killed, out of memory, or a crash)"
            ) from error
        except Exception:
            alive = True  # the function raised; the process did not
            raise
        else:
            return result
        finally:
            if alive:
                self._idle.append(process)
            else:
                self._end(process)

    def close(self) -> None:
        """Ends all processes, whatever they do. Idempotent."""
        for process in list(self._all):
            self._end(process)
        self._idle.clear()

    def _started(self) -> ProcessPoolExecutor:
        # Spawned, since a fork of a process with threads and connections may hang or share them.
        spawned = multiprocessing.get_context("spawn")
        process = ProcessPoolExecutor(1, mp_context=spawned, initializer=_end_with_parent)
        self._all.add(process)
        return process

    def _end(self, process: ProcessPoolExecutor) -> None:
        self._all.discard(process)
        children = list((getattr(process, "_processes", None) or {}).values())
        process.shutdown(wait=False, cancel_futures=True)
        for child in children:
            child.kill()


def where(function: Callable[..., Any]) -> tuple[str, str]:
    """The module and the name by which another process finds a function."""
    module = function.__module__
    if module == "__main__":
        module = getattr(sys.modules["__main__"].__spec__, "name", module)
    return module, function.__qualname__


def found(module: str, name: str) -> Any:
    """What a module has by a name. Raises ImportError and AttributeError."""
    value: Any = import_module(module)
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, though it was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="watches its parent", daemon=True).start()


def call(module: str, name: str, arguments: dict[str, Any]) -> Any:
    """Calls the function of a job in this process."""
    value = found(module, name)
    function: Callable[..., Any] = value.function if isinstance(value, Job) else value
    return function(**arguments)
