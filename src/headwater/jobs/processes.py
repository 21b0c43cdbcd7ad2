"""Processes for jobs that burn CPU: one job in each, so that a crash ends one job and no other."""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from typing import Any

from headwater.jobs.job import Job


class ProcessDied(Exception):
    """The process that ran the job ended before the job did."""


class Processes:
    """Processes that are kept for the next job; one that died is replaced."""

    def __init__(self) -> None:
        self._idle: list[ProcessPoolExecutor] = []
        self._all: set[ProcessPoolExecutor] = set()

    async def run(self, job: Job[..., Any], arguments: dict[str, Any]) -> Any:
        """Runs a job's function in a process. Raises what it raises, and ProcessDied."""
        process = self._idle.pop() if self._idle else self._started()
        alive = False
        try:
            module, name = job.function.__module__, job.function.__qualname__
            if module == "__main__":
                module = getattr(sys.modules["__main__"].__spec__, "name", module)
            loop = asyncio.get_running_loop()
            result = await loop.run_in_executor(process, call, module, name, arguments)
            alive = True
        except BrokenProcessPool as error:
            raise ProcessDied(
                "the process that ran the job died (killed, out of memory, or a crash)"
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
        process = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        self._all.add(process)
        return process

    def _end(self, process: ProcessPoolExecutor) -> None:
        self._all.discard(process)
        children = list((getattr(process, "_processes", None) or {}).values())
        process.shutdown(wait=False, cancel_futures=True)
        for child in children:
            child.kill()


def call(module: str, name: str, arguments: dict[str, Any]) -> Any:
    """Calls the function of a job in this process."""
    found: Any = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    function: Callable[..., Any] = found.function if isinstance(found, Job) else found
    return function(**arguments)
