"""The relay's process, as seen by who starts and kills it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 15.0


class RelayEnded(Exception):
    """The relay ended though nobody told it to."""


class RelayProcess:
    """``python -m examples.airport.relay``, in a process group of its own.

    It ends when its standard input does, so it never outlives this process. What it has to say goes
    to a file.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it was started, and neither stopped nor killed."""
        return self._process is not None

    def start(self) -> None:
        """Starts the process."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "examples.airport.relay"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """``kill -9``."""
        if (process := self._process) is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self._close()

    def stop(self) -> None:
        """Lets the process finish its batches and give its leases back."""
        if (process := self._process) is not None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
            self._close()

    def check(self) -> None:
        """Raises RelayEnded if the process is gone."""
        if self._process is not None and (code := self._process.poll()) is not None:
            raise RelayEnded(f"The relay ended with exit code {code}. See {self.log}.")

    def _close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
