"""The operating system account that the server runs as.

An ordinary user runs the server as itself. Postgres refuses to run as root, so root runs it as
the account ``headwater``, which is created when missing and can do nothing else.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.errors import EmbeddedPostgresError

if TYPE_CHECKING:
    from pathlib import Path

SYSTEM_ACCOUNT = "headwater"
_ADMIN_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


@dataclass(frozen=True)
class Account:
    name: str
    uid: int
    gid: int

    @classmethod
    def of_uid(cls, uid: int) -> Account:
        """Raises EmbeddedPostgresError when the uid has no name: Postgres needs one."""
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:
            raise EmbeddedPostgresError(
                f"The user id {uid} has no entry in the password database, which Postgres needs "
                "to know who connects.",
                hint="Add one (useradd, or a line in /etc/passwd of the container image).",
            ) from None
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    @classmethod
    def for_root(cls) -> Account:
        """The system account, created when missing. Raises EmbeddedPostgresError."""
        try:
            entry = pwd.getpwnam(SYSTEM_ACCOUNT)
        except KeyError:
            _create_system_account()
            entry = pwd.getpwnam(SYSTEM_ACCOUNT)
        if entry.pw_uid == 0:
            raise EmbeddedPostgresError(
                f"The account {SYSTEM_ACCOUNT!r} has the user id 0, and Postgres refuses to run "
                "as root.",
                hint="Give the account a user id of its own.",
            )
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    @property
    def differs(self) -> bool:
        """Whether the server's account is another than this process's."""
        return self.uid != os.geteuid()

    def own(self, path: Path) -> None:
        """Hand over what this process has just made."""
        if self.differs:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def make_folder(self, folder: Path) -> None:
        """Make a folder of the account's alone (0700), if there is none."""
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            self.own(folder)

    def make_file(self, file: Path) -> None:
        """Make an empty file of the account's alone (0600), if there is none."""
        with suppress(FileExistsError):
            flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_WRONLY
            descriptor = os.open(file, flags, 0o600)
            try:
                if self.differs:
                    os.fchown(descriptor, self.uid, self.gid)
            finally:
                os.close(descriptor)

    def write_file(self, file: Path, text: str) -> None:
        """Write a file of the account's alone, whole or not at all."""
        fresh = file.with_name(f".{file.name}.new")
        fresh.unlink(missing_ok=True)
        self.make_file(fresh)
        with fresh.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(file)

    def reaches(self, folder: Path) -> bool:
        """Whether the account may pass through the folder and all that it lies in."""
        return all(self._may_enter(step) for step in (folder, *folder.parents))

    def _may_enter(self, folder: Path) -> bool:
        status = folder.stat()
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)

    def run(
        self, command: list[str], *, pass_fds: tuple[int, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as the account, to its end, with nothing of our environment."""
        other = self.differs
        return subprocess.run(
            command,
            user=self.uid if other else None,
            group=self.gid if other else None,
            extra_groups=[] if other else None,
            env=server_environment(),
            cwd="/",
            umask=0o077,
            pass_fds=pass_fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            errors="replace",
            check=False,
        )


def server_environment() -> dict[str, str]:
    """What a child process may know: nothing of the application's, nothing of libpq's."""
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", "HOME": "/"}
    if library_path := os.environ.get("LD_LIBRARY_PATH"):
        environment["LD_LIBRARY_PATH"] = library_path
    return environment


def _create_system_account() -> None:
    useradd = shutil.which("useradd", path=_ADMIN_PATH)
    said = "there is no useradd program"
    if useradd is not None:
        shell = ["--shell", "/usr/sbin/nologin"]
        made = subprocess.run(
            [useradd, "--system", "--no-create-home", *shell, SYSTEM_ACCOUNT],
            capture_output=True,
            text=True,
            check=False,
        )
        said = made.stderr.strip()
    try:
        pwd.getpwnam(SYSTEM_ACCOUNT)
    except KeyError:
        raise EmbeddedPostgresError(
            f"Postgres refuses to run as root, and the system account {SYSTEM_ACCOUNT!r} that "
            f"it would run as could not be created: {said}.",
            hint=f"Create the account {SYSTEM_ACCOUNT!r}, or run as an ordinary user.",
        ) from None
