"""The guardian: the process that stops the server when no member is left, however they ended.

This file is also run by itself (``python -I -S guardian.py ...``) so that the guardian stays
small and starts in milliseconds: it imports the standard library and nothing of Headwater.
What finds and signals a postmaster lives here too, because members need the same.

The locks, all ``flock`` and so released by the kernel even after ``kill -9``:

``control.lock``   exclusive, around every start and stop; the others are judged only under it
``members.lock``   shared by each member; exclusive means that no member is left
``watch.lock``     shared by each member; the guardian sleeps on it. It is a file of its own so
                   that the guardian's waking never looks like a member to a process that leaves
``guardian.lock``  held by the guardian for its whole life
``server.lock``    inherited by the postmaster and so by every process of the server
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

TYPE_CHECKING = False  # typing itself would be the slowest import of this program
if TYPE_CHECKING:
    from collections.abc import Callable

POLL_SECONDS = 0.02
ORPHAN_SECONDS = 3.0  # how long backends may take to notice that the postmaster died
PORT = 5432  # names the socket file; nothing listens on TCP


def lock_now(descriptor: int) -> bool:
    """Take the lock exclusively if nobody else holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def server_is_gone(locks: Path) -> bool:
    """Whether no process of the server lives. Call it only under ``control.lock``."""
    descriptor = os.open(locks / "server.lock", os.O_RDONLY | os.O_CLOEXEC)
    try:
        gone = lock_now(descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # also for a child forked by another thread now
    finally:
        os.close(descriptor)
    return gone


def pid_file_lines(data: Path) -> list[str]:
    """The lines of ``postmaster.pid``: pid, data, start, port, sockets, address, key, status."""
    try:
        return (data / "postmaster.pid").read_text(errors="replace").splitlines()
    except (FileNotFoundError, PermissionError):
        return []


def recorded_pid(data: Path) -> int | None:
    """The pid that ``postmaster.pid`` names, which may by now be anybody's."""
    lines = pid_file_lines(data)
    number = lines[0].strip() if lines else ""
    return int(number) if number.isdigit() and int(number) > 1 else None


def command_line(pid: int) -> list[str]:
    """The arguments of a process; empty when it is gone or a zombie."""
    if Path("/proc/self/cmdline").exists():
        try:
            text = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return []
        return [os.fsdecode(part) for part in text.split(b"\0")] if text else []
    listed = subprocess.run(
        ["/bin/ps", "-ww", "-o", "args=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    return listed.stdout.split()


def working_folder(pid: int) -> Path | None:
    """Where a process stands; a postmaster stands in its data directory. None: not known."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None


def is_postgres(arguments: list[str]) -> bool:
    """Whether these are the arguments of a postmaster or of one of its children."""
    program = Path(arguments[0].split(":")[0]).name if arguments else ""
    return program in {"postgres", "postmaster"}


def is_our_postmaster(pid: int, data: Path) -> bool:
    """Whether the process runs the Postgres binary on exactly this data directory.

    Both its arguments and, where the system tells, its working folder have to say so.
    """
    arguments = command_line(pid)
    if not is_postgres(arguments) or arguments[1:3] != ["-D", str(data)]:
        return False
    return working_folder(pid) in {None, data}


def find_postmaster(data: Path) -> int | None:
    """The pid of the running, verified postmaster of this data directory."""
    pid = recorded_pid(data)
    return pid if pid is not None and is_our_postmaster(pid, data) else None


def signal_postmaster(data: Path, number: int) -> int | None:
    """Send a signal to the verified postmaster; returns its pid, or None when there is none."""
    pid = find_postmaster(data)
    if pid is None or not signal_verified(pid, number, lambda: is_our_postmaster(pid, data)):
        return None
    return pid


def signal_verified(pid: int, number: int, is_ours: Callable[[], bool]) -> bool:
    """Signal a process if it is ours; whether it was, and was there."""
    try:
        if sys.platform != "linux":
            if is_ours():
                os.kill(pid, number)
            return is_ours()
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # The handle names one process for ever. Verified after the handle was made, the signal
        # cannot reach a process that has taken over the number in the meantime.
        if not is_ours():
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def end_orphans(data: Path) -> None:
    """End what a killed postmaster left: a busy backend notices its death only when it waits.

    SIGQUIT is Postgres's own signal for it. Ours are the ones that stand in the data directory.
    """
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)

        def is_ours(pid: int = pid) -> bool:
            return (
                is_postgres(command_line(pid))
                and working_folder(pid) == data
                and not is_our_postmaster(pid, data)
            )

        if is_ours():
            signal_verified(pid, signal.SIGQUIT, is_ours)


def stop_server(locks: Path, data: Path, number: int = signal.SIGINT) -> None:
    """Shut the server down (SIGINT is Postgres's fast shutdown) and see its last process end.

    Call it only under ``control.lock``. A server that has not yet written its pid file is
    waited for and then stopped. Without a time limit: the last checkpoint takes what it takes.
    """
    signalled = None
    seen_seconds = time.monotonic()
    while not server_is_gone(locks):
        pid = find_postmaster(data)
        if pid is not None:
            seen_seconds = time.monotonic()
            if pid != signalled:
                signalled = signal_postmaster(data, number)
        elif time.monotonic() - seen_seconds > ORPHAN_SECONDS:
            end_orphans(data)
            seen_seconds = time.monotonic()
        time.sleep(POLL_SECONDS)


def guard(locks: Path, data: Path, sockets: Path, guardian_lock: int) -> None:
    """Sleep until no member is left, stop the server, end."""
    control, members, watch = (
        os.open(locks / name, os.O_RDONLY | os.O_CLOEXEC)
        for name in ("control.lock", "members.lock", "watch.lock")
    )
    while True:
        fcntl.flock(watch, fcntl.LOCK_EX)
        fcntl.flock(watch, fcntl.LOCK_UN)
        fcntl.flock(control, fcntl.LOCK_EX)
        if lock_now(members):
            break
        fcntl.flock(control, fcntl.LOCK_UN)
    stop_server(locks, data)
    remove_sockets(sockets)
    # In this order: whoever gets control.lock next has to find guardian.lock free, or it would
    # count on a guardian that is about to end.
    os.close(guardian_lock)
    os.close(control)


def remove_sockets(sockets: Path) -> None:
    """Remove the socket folder of a server that is gone, if nothing else is in it."""
    try:
        remove_socket_files(sockets)
        sockets.rmdir()
    except OSError:
        return


def remove_socket_files(sockets: Path) -> None:
    """Remove what a killed server left. Its lock file would stop the next by a recycled pid.

    Only under ``control.lock`` and with the server gone.
    """
    if not sockets.is_symlink():
        for name in (f".s.PGSQL.{PORT}", f".s.PGSQL.{PORT}.lock"):
            (sockets / name).unlink(missing_ok=True)


def become(uid: int, gid: int) -> None:
    """Give up root for the server's account, for good. No effect for an ordinary user."""
    if os.geteuid() == 0 and uid != 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)


def main(arguments: list[str]) -> None:
    """``UID GID run PROGRAM...`` or ``UID GID guard LOCKS DATA SOCKETS DESCRIPTOR``, detached."""
    uid, gid, task, *rest = arguments
    become(int(uid), int(gid))
    os.chdir("/")
    # The starter waits for this process only. Its child belongs to init, which reaps it: no
    # member keeps a zombie or has to outlive what it started.
    if os.fork() != 0:
        os._exit(0)
    if task == "run":
        os.execv(rest[0], rest)  # noqa: S606 - no shell is the point
    locks, data, sockets, descriptor = rest
    guard(Path(locks), Path(data), Path(sockets), int(descriptor))
    os._exit(0)  # at once: its locks are released, so it should not be seen any more


if __name__ == "__main__":
    main(sys.argv[1:])
