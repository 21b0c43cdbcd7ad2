"""The embedded engine as its clients see it: an owner is started where none answers."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from headwater.errors import ExtraMissing, StoreUnavailable
from headwater.stores.clickhouse.placement import Placement

_START_SECONDS = 60.0


class Embedded:
    """One folder's engine. The owner outlives whoever started it, and ends when nobody asks."""

    def __init__(self, name: str, folder: str, idle_seconds: float) -> None:
        if importlib.util.find_spec("chdb") is None:
            raise ExtraMissing(
                f"The store {name!r} needs the package chdb.", hint="pip install 'headwater[chdb]'"
            )
        self.placement = Placement.of(folder)
        self._name = name
        self._idle_seconds = idle_seconds
        self._starting = threading.Lock()

    def connect(self, timeout_seconds: float) -> socket.socket:
        """A connection to the owner; to the next one where it has just ended."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout_seconds)
        try:
            connection.connect(str(self.placement.socket))
        except OSError:
            self.ensure()
            connection.connect(str(self.placement.socket))
        return connection

    def ensure(self) -> None:
        """Returns once an owner answers. Raises StoreUnavailable and StoreRefused."""
        with self._starting:
            self.placement.make()
            if self.placement.answers():
                return
            self._start()

    def _start(self) -> None:
        with self.placement.log.open("wb") as log:
            process = subprocess.Popen(
                [
                    sys.executable, "-m", "headwater.stores.clickhouse.owner",
                    str(self.placement.home), str(self._idle_seconds),
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
            )  # fmt: skip
        threading.Thread(target=process.wait, daemon=True).start()  # leaves no zombie
        began_seconds = time.monotonic()
        while not self.placement.answers():
            if process.poll() not in {None, 0}:
                raise StoreUnavailable(
                    f"The engine of the store {self._name!r} did not start: "
                    f"{_last_line(self.placement.log)}.",
                    hint=f"See {self.placement.log}.",
                )
            if time.monotonic() - began_seconds > _START_SECONDS:
                raise StoreUnavailable(
                    f"The engine of the store {self._name!r} did not answer within "
                    f"{_START_SECONDS:.0f} s.",
                    hint=f"See {self.placement.log}.",
                )
            time.sleep(0.01)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].rstrip(".") if lines else "it said nothing"
