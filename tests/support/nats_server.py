"""NATS servers of a test's own, from the wheel's binary, on private folders."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SERVER = Path(sys.executable).with_name("nats-server")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class NatsServer:
    """One server; with ``routes`` a member of a cluster."""

    def __init__(self, name: str = "one", cluster: int | None = None, routes: str = "") -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hw-nats-")
        self.name = name
        self.port = free_port()
        self._options = (
            []
            if cluster is None
            else [
                "--cluster_name", "c", "--cluster", f"nats://127.0.0.1:{cluster}",
                "--routes", routes,
            ]
        )  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [
            str(SERVER), "--name", self.name, "-a", "127.0.0.1", "-p", str(self.port),
            "-js", "-sd", self._folder.name, *self._options,
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < deadline
            os.sched_yield()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as client:
                return client.recv(5) == b"INFO "
        except OSError:
            return False

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(10)

    def close(self) -> None:
        self.kill()
        self._folder.cleanup()


class NatsCluster:
    """Three servers of one cluster."""

    def __init__(self) -> None:
        ports = [free_port() for _ in range(3)]
        routes = ",".join(f"nats://127.0.0.1:{port}" for port in ports)
        self.servers = [NatsServer(f"n{number}", port, routes) for number, port in enumerate(ports)]

    @property
    def url(self) -> str:
        return ",".join(server.url for server in self.servers)

    def named(self, name: str) -> NatsServer:
        return next(server for server in self.servers if server.name == name)

    def close(self) -> None:
        for server in self.servers:
            server.close()
