"""NATS and the four services, each in a process of its own, for as long as the block lasts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from examples.orders.place import SERVICES

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Services:
    """The processes, by name. ``nats`` is among them where it is not given by HEADWATER_STORE_BUS_URL."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.nats_port = free_port()
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """Where the service of orders listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, name: str) -> None:
        """Starts one; its words go to a file of its name."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                self._command(name), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _command(self, name: str) -> list[str]:
        if name == "nats":
            server = Path(sys.executable).with_name("nats-server")
            return [str(server), "-a", "127.0.0.1", "-p", str(self.nats_port), "-js", "-sd", str(self.folder / "nats")]  # fmt: skip
        if name == "order":
            return [sys.executable, "-m", "examples.orders.api", str(self.port)]
        app = f"examples.orders.{name}:app"
        return [sys.executable, "-m", "headwater", "--app", app, "up", "--work", "--no-http"]

    def kill(self, name: str) -> None:
        """Ends one by SIGKILL."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def ended(self) -> list[str]:
        """Those that have ended by themselves."""
        return [name for name, one in list(self._running.items()) if one.poll() is not None]

    def pid(self, name: str) -> int:
        """The process of one."""
        return self._running[name].pid

    def stop(self) -> None:
        """Ends all, the services first."""
        for process in self._running.values():
            process.send_signal(signal.SIGINT)
        for process in reversed(self._running.values()):
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()
        self._running.clear()


@contextmanager
def running(folder: Path) -> Iterator[Services]:
    """All of them, until the end of the block."""
    services = Services(folder)
    try:
        if "HEADWATER_STORE_BUS_URL" not in os.environ:
            os.environ["HEADWATER_STORE_BUS_URL"] = f"nats://127.0.0.1:{services.nats_port}"
            services.start("nats")
        for name in SERVICES:
            services.start(name)
        wait_for(services.port)
        yield services
    finally:
        services.stop()


def wait_for(port: int, seconds: float = 60.0) -> None:
    """Until someone listens there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nobody listens on port {port}")
