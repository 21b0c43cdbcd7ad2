"""Where the data of a requested folder lives, where its socket is, and whose they are."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.errors import EmbeddedPostgresError
from headwater.operations.embedded.account import Account

if TYPE_CHECKING:
    from collections.abc import Iterator

STATE_FOLDER = Path("/var/lib/headwater")
# Fixed, whatever TMPDIR or XDG_RUNTIME_DIR say: processes that share a folder have to agree.
SOCKET_PARENT = Path("/tmp")  # noqa: S108 - sticky, and the folder made in it is verified


@dataclass(frozen=True)
class Placement:
    """``home`` holds ``data``, ``log`` and ``locks``; it is the requested folder, mostly."""

    home: Path
    account: Account

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def log(self) -> Path:
        return self.home / "log"

    @property
    def socket_folder(self) -> Path:
        """Short, because the path of a socket may have 107 bytes at most."""
        return SOCKET_PARENT / f"hw-{self.account.uid}-{_digest(self.home)}"

    def make_socket_folder(self) -> None:
        """Make the socket folder and prove that nobody else can be behind it."""
        folder = self.socket_folder
        self.account.make_folder(folder)
        found = folder.lstat()
        if os.geteuid() == 0 and found.st_uid == 0 and stat.S_ISDIR(found.st_mode):
            self.account.own(folder)  # a start was killed between making and handing over
            found = folder.lstat()
        wrong = None
        if not stat.S_ISDIR(found.st_mode):
            wrong = "is not a directory (a symbolic link does not count)"
        elif found.st_uid != self.account.uid:
            wrong = f"belongs to the user id {found.st_uid}, not to {self.account.name}"
        elif stat.S_IMODE(found.st_mode) != 0o700:
            wrong = f"has the mode {stat.S_IMODE(found.st_mode):04o}, not 0700"
        if wrong is not None:
            raise EmbeddedPostgresError(
                f"The folder for the server's socket, {folder}, {wrong}. Somebody else could "
                "listen there in the server's place.",
                hint="Find out who made it, remove it and start again.",
            )


def place(folder: Path) -> Placement:
    """The placement of a folder, the same at each call. Creates the folder.

    Raises EmbeddedPostgresError when the folder is another user's or cannot be created.
    """
    folder = folder.expanduser().resolve()
    try:
        if (folder / "PG_VERSION").exists():
            raise EmbeddedPostgresError(
                f"{folder} is itself a data directory of Postgres, and not one that Headwater "
                "made.",
                hint="Name another folder, or start that server and give Headwater its URL.",
            )
        return _place_for_root(folder) if os.geteuid() == 0 else _place_for_user(folder)
    except OSError as error:
        raise EmbeddedPostgresError(
            f"The folder {folder} cannot be used: {error}.",
            hint="Name a folder that this user may create and write.",
        ) from error


def _place_for_user(folder: Path) -> Placement:
    account = Account.of_uid(os.geteuid())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (folder / "location").exists() and not (folder / "data").exists():
        raise EmbeddedPostgresError(
            f"The data of {folder} was created by root; the file 'location' in it says where.",
            hint="Run as root, or name another folder.",
        )
    _check_owner(folder, account)
    return Placement(folder, account)


def _check_owner(folder: Path, account: Account) -> None:
    data = folder / "data"
    if data.exists() and data.stat().st_uid != account.uid:
        raise EmbeddedPostgresError(
            f"{data} belongs to the user id {data.stat().st_uid}, and this is {account.name}. "
            "Postgres serves only data of its own account.",
            hint="Run as the owner, or name another folder.",
        )


def _place_for_root(folder: Path) -> Placement:
    STATE_FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
    with _deciding():
        if (folder / "data" / "PG_VERSION").exists():
            return _place_existing(folder, (folder / "data").stat().st_uid)
        account = Account.for_root()
        relocated = STATE_FOLDER / _digest(folder)
        if relocated.exists() or not _reachable(folder, account):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            account.make_folder(relocated)
            (folder / "location").write_text(f"{relocated}\n", encoding="utf-8")
            return Placement(relocated, account)
        account.make_folder(folder)
        return Placement(folder, account)


def _place_existing(folder: Path, owner: int) -> Placement:
    if owner == 0:
        raise EmbeddedPostgresError(
            f"{folder / 'data'} belongs to root, and Postgres refuses to run as root.",
            hint=f"Hand it over: chown -R headwater {folder / 'data'}",
        )
    account = Account.of_uid(owner)
    if not account.reaches(folder):
        raise EmbeddedPostgresError(
            f"The account {account.name}, which owns the data in {folder}, can no longer reach "
            "that folder.",
            hint="Let it pass (chmod o+x) through the folders that it lies in.",
        )
    return Placement(folder, account)


def _reachable(folder: Path, account: Account) -> bool:
    """Whether the account could get at data in the folder, which may not exist yet."""
    if folder.exists():
        return account.reaches(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return account.reaches(folder.parent)


@contextmanager
def _deciding() -> Iterator[None]:
    """One process at a time, so that none sees a folder that another has half made."""
    lock = STATE_FOLDER / "placement.lock"
    descriptor = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _digest(folder: Path) -> str:
    return hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
