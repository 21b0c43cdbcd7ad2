"""Where an embedded engine's data, lock, log and socket are."""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from headwater.errors import StoreRefused, StoreUnavailable

# Fixed, whatever TMPDIR says: processes that share a folder have to agree. The path of a socket has
# 107 bytes at most, so the socket is not in the folder itself.
_SOCKET_PARENT = Path("/tmp")  # noqa: S108 - sticky, and the folder made in it is verified


@dataclass(frozen=True, slots=True)
class Placement:
    """One folder with the data of one embedded engine."""

    home: Path

    @staticmethod
    def of(folder: str) -> Placement:
        """The placement of a folder, the same for all who name it."""
        return Placement(Path(folder).expanduser().resolve())

    @property
    def data(self) -> Path:
        """What the engine writes."""
        return self.home / "data"

    @property
    def lock(self) -> Path:
        """Held by the owner while it lives."""
        return self.home / "owner.lock"

    @property
    def log(self) -> Path:
        """What the owner says."""
        return self.home / "owner.log"

    @property
    def socket(self) -> Path:
        """Where the owner listens."""
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        return _SOCKET_PARENT / f"hw-ch-{os.geteuid()}-{digest}" / "socket"

    def make(self) -> None:
        """Creates what is missing. Raises StoreRefused where somebody else could listen or read."""
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.socket.parent.mkdir(mode=0o700, exist_ok=True)
            found = self.socket.parent.lstat()
        except PermissionError as error:
            raise StoreRefused(
                f"The folder {self.home} cannot be used: {error}.",
                hint="Name a folder that this user may create and write.",
            ) from error
        except OSError as error:
            raise StoreUnavailable(
                f"The folder {self.home} cannot be used now: {error}.",
                hint="Its views go on by themselves once it can.",
            ) from error
        is_private = stat.S_IMODE(found.st_mode) == 0o700 and found.st_uid == os.geteuid()
        if not stat.S_ISDIR(found.st_mode) or not is_private:
            raise StoreRefused(
                f"{self.socket.parent} is not a folder of this user alone, so somebody else could "
                "listen there in the engine's place.",
                hint="Find out who made it, remove it and start again.",
            )

    def answers(self) -> bool:
        """Whether somebody listens on the socket."""
        with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self.socket))
            return True
        return False

    def take(self) -> int | None:
        """The lock's descriptor, or None while another process holds it."""
        descriptor = os.open(
            self.lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor
