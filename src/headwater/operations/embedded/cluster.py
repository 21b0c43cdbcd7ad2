"""One data directory: created whole or not at all, checked, and configured before each start."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from typing import TYPE_CHECKING

from headwater.errors import EmbeddedPostgresError
from headwater.operations.embedded import guardian

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from pathlib import Path

    from headwater.operations.embedded.binaries import Binaries
    from headwater.operations.embedded.placement import Placement

IMPOSSIBLE_PID = str(2**31 - 1)
SETTINGS_FILE = "headwater.conf"
BUILTIN_LOCALE_VERSION = 17
ANY_ROLE_VERSION = 16

# Durable, and sized for a small machine. Any of them can be overridden by `settings`.
DEFAULT_SETTINGS: Mapping[str, str] = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "huge_pages": "off",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "max_prepared_transactions": "20",
    "autovacuum": "on",
    "autovacuum_naptime": "10s",
    "jit": "off",
    "random_page_cost": "1.1",
    "timezone": "UTC",
    # A week of logs, one file a weekday, each emptied when its day comes round.
    "logging_collector": "on",
    "log_filename": "server-%a.log",
    "log_file_mode": "0600",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
}


class Cluster:
    def __init__(
        self,
        placement: Placement,
        binaries: Binaries,
        settings: Mapping[str, str],
        roles: tuple[str, ...],
    ) -> None:
        self._placement = placement
        self._binaries = binaries
        self._settings = settings
        self._roles = roles

    @property
    def exists(self) -> bool:
        return (self._placement.data / "PG_VERSION").exists()

    def check_version(self) -> None:
        """Raises EmbeddedPostgresError when another major version wrote the data."""
        data = self._placement.data
        found = (data / "PG_VERSION").read_text(encoding="ascii", errors="replace").strip()
        if found != str(self._binaries.version):
            raise EmbeddedPostgresError(
                f"The data in {data} was written by Postgres {found}, and the programs in "
                f"{self._binaries.folder} are Postgres {self._binaries.version}. A major "
                "version cannot open the data of another.",
                hint=f"Use programs of Postgres {found}, or dump with them (pg_dumpall) and "
                "load into a new folder, or run pg_upgrade.",
            )

    def create(self, server_lock: int) -> None:
        """Run initdb beside the data directory and move the result into place."""
        home, account, data = self._placement.home, self._placement.account, self._placement.data
        if data.exists() and any(data.iterdir()):
            raise EmbeddedPostgresError(
                f"{data} is not empty, but has no Postgres data (no file PG_VERSION).",
                hint="Name another folder, or move away what is in it.",
            )
        for left_over in home.glob("initdb-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        fresh = home / f"initdb-{secrets.token_hex(4)}"
        account.make_folder(fresh)
        try:
            # With the server's lock: if we are killed, the next start waits for this initdb.
            ran = account.run([*self._initdb_command(), str(fresh)], pass_fds=(server_lock,))
            _check_initdb(ran, home)
            with (fresh / "postgresql.conf").open("a", encoding="utf-8") as stream:
                stream.write(f"\ninclude '{SETTINGS_FILE}'  # rewritten at each start\n")
                os.fsync(stream.fileno())
            fresh.rename(data)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        _sync_folder(home)

    def _initdb_command(self) -> list[str]:
        # The same order of text on every machine: by code point, never by an installed locale.
        locale = ["--locale=C"]
        if self._binaries.version >= BUILTIN_LOCALE_VERSION:
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        return [
            str(self._binaries.initdb),
            "--username=postgres",
            "--encoding=UTF8",
            *locale,
            "--data-checksums",
            "--auth-local=peer",
            "--auth-host=reject",
            "--no-instructions",
            "-D",
        ]

    def configure(self) -> None:
        """Write the settings and who may log in; what ALTER SYSTEM wrote stays as it is."""
        account, data = self._placement.account, self._placement.data
        account.make_folder(self._placement.log)
        merged = {
            **DEFAULT_SETTINGS,
            "wal_compression": self._binaries.wal_compression,
            "log_directory": str(self._placement.log),
            **self._settings,
        }
        lines = [_setting_line(name, value) for name, value in merged.items()]
        account.write_file(data / SETTINGS_FILE, "".join(lines))
        account.write_file(
            data / "pg_hba.conf",
            "local all all peer map=headwater\nlocal replication all peer map=headwater\n",
        )
        account.write_file(data / "pg_ident.conf", self._ident_lines())

    def _ident_lines(self) -> str:
        """The owner, root and the server's account may be any role; others none at all."""
        roles = self._roles
        if self._binaries.version >= ANY_ROLE_VERSION:
            roles = ("all",)
        users = sorted({self._placement.account.name, "root"})
        pairs = ((user, role) for user in users for role in roles)
        return "".join(f'headwater "{user}" {_ident_role(role)}\n' for user, role in pairs)

    def disown_stale_pid(self) -> None:
        """Make Postgres start although a stranger, or a zombie, has the number in its pid file.

        Only for a holder of ``server.lock``, whose having it proves that no process of a
        server that we started is alive. A server that somebody else started on this data has
        no such lock; it is recognised by what it runs, and refused.
        """
        data = self._placement.data
        pid = guardian.recorded_pid(data)
        arguments = [] if pid is None else guardian.command_line(pid)
        if pid is None or not _exists(pid):
            return  # Postgres itself replaces the file
        if guardian.is_postgres(arguments) and guardian.working_folder(pid) in {None, data}:
            raise EmbeddedPostgresError(
                f"A Postgres server that Headwater did not start (process {pid}) may be running "
                f"on {data}.",
                hint=f"Stop it, then start again: kill -INT {pid}",
            )
        # Only the number changes, to one that no process can have. Postgres still finds the key
        # of the old server's shared memory in the file, and refuses if anybody is attached to it.
        rest = guardian.pid_file_lines(data)[1:]
        text = "\n".join([IMPOSSIBLE_PID, *rest]) + "\n"
        self._placement.account.write_file(data / "postmaster.pid", text)

    def server_command(self) -> list[str]:
        """What must not be changed by ALTER SYSTEM is on the command line."""
        data = self._placement.data
        fixed = {
            "listen_addresses": "",
            "port": str(guardian.PORT),
            "unix_socket_directories": str(self._placement.socket_folder),
            "unix_socket_permissions": "0700",
            "hba_file": str(data / "pg_hba.conf"),
            "ident_file": str(data / "pg_ident.conf"),
            "log_timezone": "UTC",
            "log_line_prefix": "%m [%p] ",  # read by serverlog
        }
        options = [part for name, value in fixed.items() for part in ("-c", f"{name}={value}")]
        return [str(self._binaries.postgres), "-D", str(data), *options]


def _setting_line(name: str, value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name) or "\n" in value:
        raise EmbeddedPostgresError(
            f"{name!r} = {value!r} is not a setting of Postgres.",
            hint="A name and a value of one line, please.",
        )
    quoted = value.replace("\\", "\\\\").replace("'", "''")
    return f"{name} = '{quoted}'\n"


def _check_initdb(ran: subprocess.CompletedProcess[str], home: Path) -> None:
    if ran.returncode != 0:
        said = " | ".join(ran.stdout.strip().splitlines()[-6:])
        raise EmbeddedPostgresError(
            f"Postgres could not create its data in {home}: {said}",
            hint="Is the disk full, or the folder not writable?",
        )


def _exists(pid: int) -> bool:
    """Whether there is such a process; a zombie is one, to Postgres too."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _ident_role(role: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_]*", role):
        raise EmbeddedPostgresError(
            f"{role!r} cannot be one of the roles.",
            hint="A role's name has small letters, digits and underscores.",
        )
    return role


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
