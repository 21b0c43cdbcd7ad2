"""The supervisor: one server for one folder, shared by every process that started it."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import quote

import psycopg

from headwater.errors import EmbeddedPostgresError
from headwater.operations.embedded import guardian, locks, serverlog
from headwater.operations.embedded.account import server_environment
from headwater.operations.embedded.binaries import Binaries
from headwater.operations.embedded.cluster import Cluster
from headwater.operations.embedded.placement import STATE_FOLDER, Placement, place
from headwater.operations.embedded.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

ROLES = (
    "postgres",
    "headwater",
    "headwater_app",
    "headwater_relay",
    "headwater_operator",
    "headwater_login",
)
STATUS_LINE = 7  # of postmaster.pid
LEFT_OVER_SECONDS = 60.0  # how long processes of a killed server may take to notice
CONNECT_SECONDS = 30.0  # how long a server that says it is ready may refuse us
GUARDIAN_LEAVES_SECONDS = 5.0


class EmbeddedPostgres:
    """A Postgres server on one folder, for every process that names the folder.

    Each process that called ``start`` is a member, until it calls ``stop`` or ends in any way,
    ``kill -9`` included. The first member starts the server; when the last is gone it is shut
    down. A server that is already running is joined as it is: ``settings`` and ``binaries``
    count for the process that starts it.

    ``roles`` are the database roles that the folder's owner may log in as on Postgres 15; from
    16 on it is any role. ``on_progress`` hears, about once a second, what is waited for.

    A process forked from a member is not a member; it may call ``start`` for itself. Threads may
    share an object. Every method raises EmbeddedPostgresError when it cannot do its work.
    """

    def __init__(
        self,
        folder: Path,
        *,
        binaries: Binaries | None = None,
        settings: Mapping[str, str] | None = None,
        on_progress: Callable[[str], None] | None = None,
        roles: tuple[str, ...] = ROLES,
    ) -> None:
        self.folder = folder
        self._given_binaries = binaries
        self._settings = dict(settings or {})
        self._on_progress = on_progress
        self._roles = roles
        self._membership = locks.Membership()

    def start(self) -> None:
        """Join the running server, or start it, creating its data the first time.

        Returns when the server answers. Recovery after a crash may take as long as it needs.
        """
        self._membership.forget_if_forked()
        if not self._membership.held:
            self._look_again()
        with self._in_control():
            joined_before = self._membership.held
            if not joined_before:
                self._membership.join(self._locks)
            try:
                self._ensure_server()
            except BaseException:
                if not joined_before:
                    self._membership.leave()  # the guardian, if any, stops what was begun
                raise

    def stop(self) -> None:
        """Leave. The last to leave shuts the server down, and returns when it is down."""
        self._membership.forget_if_forked()
        if not self._membership.held:
            return
        with self._in_control():
            self._membership.leave()
            no_member = self._locks.taken("members.lock")
            if no_member is None:
                return
            try:
                guardian.stop_server(self._locks.folder, self._placement.data)
                guardian.remove_sockets(self.socket_folder)
            finally:
                locks.release(no_member)
        self._see_guardian_leave()

    def restart(self, mode: Literal["immediate", "fast"] = "fast") -> None:
        """Stop the server for all members, at once without a checkpoint or fast, and start it."""
        number = signal.SIGQUIT if mode == "immediate" else signal.SIGINT
        with self._in_control():
            self._require_membership()
            guardian.stop_server(self._locks.folder, self._placement.data, number)
            self._ensure_server()

    def kill(self) -> None:
        """Kill the postmaster with SIGKILL, for tests of faults. ``start`` recovers."""
        with self._in_control():
            self._require_membership()
            data = self._placement.data
            pid = guardian.signal_postmaster(data, signal.SIGKILL)
            waiting = self._waiting("waiting for the killed server to end")
            while pid is not None and guardian.is_our_postmaster(pid, data):
                waiting.pause()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def url(self, database: str = "postgres", *, user: str = "postgres") -> str:
        """A URL for psycopg and every libpq program; valid for the owner and root only."""
        sockets = quote(str(self.socket_folder), safe="")
        name, role = quote(database, safe=""), quote(user, safe="")
        return f"postgresql://{role}@/{name}?host={sockets}&port={guardian.PORT}"

    @property
    def socket_folder(self) -> Path:
        return self._placement.socket_folder

    @property
    def data_folder(self) -> Path:
        """Where the data is: below the requested folder, or, for root, where it could be."""
        return self._placement.data

    @property
    def postmaster_pid(self) -> int:
        pid = guardian.find_postmaster(self._placement.data)
        if pid is None:
            raise EmbeddedPostgresError(
                f"No server is running on {self.folder}.", hint="Call start() first."
            )
        return pid

    @cached_property
    def _placement(self) -> Placement:
        return place(self.folder)

    @cached_property
    def _locks(self) -> locks.Locks:
        return locks.Locks(self._placement.home, self._placement.account)

    @cached_property
    def _cluster(self) -> Cluster:
        given = self._given_binaries or Binaries.from_wheel()
        usable = given.for_account(self._placement.account, STATE_FOLDER / "binaries")
        return Cluster(self._placement, usable, self._settings, self._roles)

    def _look_again(self) -> None:
        """Forget where the folder was found: it may have been removed since the last stop."""
        for name in ("_placement", "_locks", "_cluster"):
            self.__dict__.pop(name, None)

    def _waiting(self, what: str) -> Waiting:
        return Waiting(what, self._on_progress)

    @contextmanager
    def _in_control(self) -> Iterator[None]:
        self._membership.forget_if_forked()
        waiting = self._waiting("waiting for another process that starts or stops the server")
        try:
            with self._membership.mutex, self._locks.control(waiting):
                yield
        except OSError as error:
            raise EmbeddedPostgresError(
                f"The server on {self.folder} cannot be supervised: {error}.",
                hint="Is the disk full, or a folder removed or not this user's?",
            ) from error

    def _require_membership(self) -> None:
        if not self._membership.held:
            raise EmbeddedPostgresError(
                f"This process is not a member of the server on {self.folder}.",
                hint="Call start() first.",
            )

    def _ensure_server(self) -> None:
        while True:
            server_lock = self._server_lock()
            if server_lock is None:
                self._ensure_guardian()
                if self._answers(self._waiting("waiting for the server to be ready")):
                    return
                continue  # it ended while we joined it
            began_seconds = time.time()
            try:
                recovering = self._launch(server_lock)
            finally:
                locks.close(server_lock)  # the server's own copy keeps it locked
            waiting = self._waiting("recovering" if recovering else "starting")
            if recovering:
                waiting.say()
            if not self._answers(waiting):
                raise self._startup_failure(began_seconds)
            return

    def _server_lock(self) -> int | None:
        """``server.lock``, taken: no process of a server lives. None: a postmaster runs."""
        waiting = self._waiting("waiting for processes of the previous server to end")
        while (descriptor := self._locks.taken("server.lock")) is None:
            if guardian.find_postmaster(self._placement.data) is not None:
                return None
            if waiting.elapsed_seconds > guardian.ORPHAN_SECONDS:
                guardian.end_orphans(self._placement.data)
            if waiting.elapsed_seconds > LEFT_OVER_SECONDS:
                raise EmbeddedPostgresError(
                    f"Processes of a previous server still use {self._placement.data}, but "
                    "its postmaster is gone, or runs in another container.",
                    hint="End them (they hold the file server.lock open), then start again. "
                    "Processes that share a folder have to see each other's processes.",
                )
            waiting.pause()
        return descriptor

    def _launch(self, server_lock: int) -> bool:
        """Start a server; returns whether it has to recover from a crash."""
        if not self._cluster.exists:
            self._waiting("creating the data directory").say()
            self._cluster.create(server_lock)
        self._cluster.check_version()
        self._cluster.configure()
        recovering = (self._placement.data / "postmaster.pid").exists()
        self._cluster.disown_stale_pid()
        self._placement.make_socket_folder()
        guardian.remove_socket_files(self.socket_folder)
        # The guardian first: killed between these two lines, we leave no server unguarded.
        self._ensure_guardian()
        self._detach(["run", *self._cluster.server_command()], server_lock)
        return recovering

    def _ensure_guardian(self) -> None:
        guardian_lock = self._locks.taken("guardian.lock")
        if guardian_lock is None:
            return
        try:
            task = ["guard", self._locks.folder, self._placement.data, self.socket_folder]
            self._detach([*map(str, task), str(guardian_lock)], guardian_lock)
        finally:
            locks.close(guardian_lock)

    def _detach(self, task: list[str], lock: int) -> None:
        """Run ``guardian`` as a program: it drops root, leaves us and does the task."""
        account = self._placement.account
        account.make_folder(self._placement.log)
        log = self._placement.log / serverlog.START_LOG
        account.make_file(log)
        # -I and -S: nothing of the user's environment or site-packages runs in it. It starts as
        # ourselves and changes accounts by itself, as our interpreter may be hidden from the
        # server's account.
        interpreter = [sys.executable, "-I", "-S", guardian.__file__]
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        if task[0] == "run":
            flags |= os.O_TRUNC
        output = os.open(log, flags)
        try:
            ran = subprocess.run(
                [*interpreter, str(account.uid), str(account.gid), *task],
                env=server_environment(),
                umask=0o077,
                pass_fds=(lock,),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                check=False,
            )
        finally:
            os.close(output)
        if ran.returncode != 0:
            raise EmbeddedPostgresError(
                f"The server's guardian did not start (exit code {ran.returncode}): "
                f"{serverlog.last_lines(self._placement.log, time.time() - 1)}",
                hint=f"See {log}.",
            )

    def _answers(self, waiting: Waiting) -> bool:
        """Wait until the verified postmaster accepts us. False: the server's processes ended."""
        ready_seconds: float | None = None
        while not guardian.server_is_gone(self._locks.folder):
            lines = guardian.pid_file_lines(self._placement.data)
            pid = guardian.find_postmaster(self._placement.data)
            if (
                pid is not None
                and lines[STATUS_LINE:]
                and lines[STATUS_LINE].strip() in {"ready", "standby"}
            ):
                ready_seconds = ready_seconds or time.monotonic()
                try:
                    self._connect(pid)
                except (psycopg.OperationalError, OSError) as error:
                    if time.monotonic() - ready_seconds > CONNECT_SECONDS:
                        raise EmbeddedPostgresError(
                            f"The server on {self.folder} runs, but refuses this process: {error}",
                            hint=f"See the log in {self._placement.log}.",
                        ) from error
                else:
                    return True
            waiting.pause()
        return False

    def _connect(self, pid: int) -> None:
        """Log in, and see that the other end of the socket is the verified postmaster."""
        with psycopg.connect(self.url(), connect_timeout=10) as connection:
            if sys.platform != "linux":
                return
            with socket.socket(fileno=os.dup(connection.fileno())) as end:
                size = struct.calcsize("3i")
                credentials = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
            listener = struct.unpack("3i", credentials)[0]
        if listener != pid:
            raise ConnectionRefusedError(
                f"process {listener} listens on the socket of postmaster {pid}"
            )

    def _startup_failure(self, began_seconds: float) -> EmbeddedPostgresError:
        log = self._placement.log
        return EmbeddedPostgresError(
            f"The server on {self.folder} ended while it started. Its log ends with: "
            f"{serverlog.last_lines(log, began_seconds - 1)}",
            hint=f"The whole log is in {log}.",
        )

    def _see_guardian_leave(self) -> None:
        """Nothing is left for it to do; only wait so that no process of ours outlives stop()."""
        deadline = time.monotonic() + GUARDIAN_LEAVES_SECONDS
        waiting = self._waiting("waiting for the server's guardian to end")
        while time.monotonic() < deadline:
            with self._in_control():
                free = self._locks.taken("guardian.lock")
                if free is not None:
                    locks.release(free)
                    return
            waiting.pause()
