"""What befalls engines: a disk without room, and a server of another version."""

from __future__ import annotations

import asyncio
import resource
import subprocess
from contextlib import asynccontextmanager

import pytest

MEGABYTE = 1 << 20


class Disk:
    """A small disk that can be full: a file system of its own.

    Where mounting is not allowed, a limit to the files that this process writes.
    """

    def __init__(self, folder, megabytes):
        self.folder = folder
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder]
        self.is_mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0

    @property
    def said(self):
        """What a view that finds it full tells an operator."""
        return "is full" if self.is_mounted else "cannot be used now"

    def fill(self):
        """Nothing more is written; without a file system of its own, by this process."""
        if self.is_mounted:
            filler = self.folder / "filler"
            with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
                while True:
                    file.write(bytes(MEGABYTE // 16))
            return
        self._limit(0)

    def free(self):
        """There is room again."""
        (self.folder / "filler").unlink(missing_ok=True)
        if not self.is_mounted:
            self._limit(None)

    def _limit(self, size):
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most if size is None else size, most))

    def close(self):
        if self.is_mounted:
            subprocess.run(["umount", "--lazy", self.folder], check=False)


class Disguise:
    """A way to a real server that calls itself another version; of the same length, so nothing else changes."""

    def __init__(self, socket, version, other):
        assert len(version) == len(other)
        self._socket = socket
        self._words = version, other
        self.is_on = True
        self._writers = set()

    @asynccontextmanager
    async def listening(self):
        """The port, until the end of the block."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            self.drop()

    def drop(self):
        """Ends the connections that are open."""
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader, writer):
        upstream = await asyncio.open_unix_connection(self._socket)
        self._writers |= {writer, upstream[1]}
        try:
            await asyncio.gather(
                self._pass(reader, upstream[1], disguised=False),
                self._pass(upstream[0], writer, disguised=True),
                return_exceptions=True,
            )
        finally:
            writer.close()
            upstream[1].close()
            self._writers -= {writer, upstream[1]}

    async def _pass(self, reader, writer, *, disguised):
        while data := await reader.read(1 << 16):
            writer.write(data.replace(*self._words) if disguised and self.is_on else data)
            await writer.drain()
        writer.close()
