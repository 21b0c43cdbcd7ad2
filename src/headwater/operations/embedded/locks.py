"""The lock files of one folder, and being a member. ``guardian`` says what each file is for."""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from headwater.operations.embedded.guardian import lock_now

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headwater.operations.embedded.account import Account
    from headwater.operations.embedded.waiting import Waiting

NAMES = ("control.lock", "members.lock", "watch.lock", "guardian.lock", "server.lock")

_open_descriptors: set[int] = set()


def _forget_in_child() -> None:
    """A forked child is no member: close its copies. Unlocking would unlock the parent's too."""
    for descriptor in list(_open_descriptors):
        with suppress(OSError):
            os.close(descriptor)
    _open_descriptors.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def close(descriptor: int) -> None:
    """Close a lock's descriptor: its lock stays with the program that was started with it."""
    if descriptor in _open_descriptors:
        _open_descriptors.discard(descriptor)
        os.close(descriptor)


def release(descriptor: int) -> None:
    """Unlock for good: also for a child that was forked a moment ago and has not yet closed it."""
    if descriptor in _open_descriptors:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        close(descriptor)


class Locks:
    """The lock files below one folder, created on first use for the server's account."""

    def __init__(self, home: Path, account: Account) -> None:
        self.folder = home / "locks"
        account.make_folder(self.folder)
        for name in NAMES:
            account.make_file(self.folder / name)

    def open(self, name: str) -> int:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.folder / name, flags)
        _open_descriptors.add(descriptor)
        return descriptor

    def taken(self, name: str) -> int | None:
        """The descriptor of a lock taken exclusively, or None if somebody else holds it."""
        descriptor = self.open(name)
        if lock_now(descriptor):
            return descriptor
        close(descriptor)
        return None

    @contextmanager
    def control(self, waiting: Waiting) -> Iterator[None]:
        """Be the only process that starts or stops the server."""
        descriptor = self.open("control.lock")
        try:
            while not lock_now(descriptor):
                waiting.pause()
            yield
        finally:
            release(descriptor)


class Membership:
    """The locks by which one object of one process is a member. Join and leave under control."""

    def __init__(self) -> None:
        self.mutex = threading.RLock()
        self._pid = os.getpid()
        self._descriptors: list[int] = []

    def forget_if_forked(self) -> None:
        """In a forked child nothing of the parent's membership holds, nor does its mutex."""
        if self._pid != os.getpid():
            self.mutex = threading.RLock()
            self._pid = os.getpid()
            self._descriptors = []

    @property
    def held(self) -> bool:
        return bool(self._descriptors)

    def join(self, locks: Locks) -> None:
        for name in ("members.lock", "watch.lock"):
            descriptor = locks.open(name)
            # Never waits for long: only the guardian holds watch.lock exclusively, for an
            # instant, and members.lock is taken exclusively only under control.lock, ours now.
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            self._descriptors.append(descriptor)

    def leave(self) -> None:
        while self._descriptors:
            release(self._descriptors.pop())
