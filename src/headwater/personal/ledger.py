"""The ledger of who was forgotten: a file outside the database and its backups.

A restored database has the keys again that were destroyed after the backup. The ledger destroys them once more,
before anything is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import msgspec

from headwater.errors import LedgerBroken
from headwater.personal.signing import Signer


class Line(msgspec.Struct, frozen=True):
    """One destroyed key."""

    log: str
    key_id: UUID
    request: UUID
    signature: str


@dataclass(slots=True)
class Gone:
    """The keys in a ledger, for processes that only open: read again when the file has changed, and unsigned."""

    path: Path | None
    _seen: tuple[int, int] = (0, 0)
    _ids: frozenset[UUID] = frozenset()

    def __call__(self) -> frozenset[UUID]:
        """The ids of keys that are not to be used, whatever the database holds."""
        if self.path is None or not self.path.exists():
            return self._ids
        stat = self.path.stat()
        if (seen := (stat.st_mtime_ns, stat.st_size)) != self._seen:
            lines = self.path.read_bytes().split(b"\n")[:-1]
            with suppress(msgspec.MsgspecError):  # who signs it will say what is wrong
                self._ids = frozenset(msgspec.json.decode(text, type=Line).key_id for text in lines)
                self._seen = seen
        return self._ids


@dataclass(frozen=True, slots=True)
class Ledger:
    """A file with a signed line for each destroyed key, written through to the disk."""

    path: Path
    signer: Signer

    def add(self, log: str, key_id: UUID, request: UUID) -> None:
        """Adds a key, unless it is there."""
        self.add_all(log, [key_id], request)

    def add_all(self, log: str, key_ids: Sequence[UUID], request: UUID) -> None:
        """Adds those keys that are not there."""
        known = {line.key_id for line in self if line.log == log}
        lines = [
            Line(log, key_id, request, self.signer.sign("ledger", log, str(key_id), str(request)))
            for key_id in key_ids
            if key_id not in known
        ]
        if not lines:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def __iter__(self) -> Iterator[Line]:
        """The lines. Raises LedgerBroken for one that is not ours. A last line without its end was never written."""
        if not self.path.exists():
            return
        *lines, _ = self.path.read_bytes().split(b"\n")
        for number, text in enumerate(lines, start=1):
            try:
                line = msgspec.json.decode(text, type=Line)
            except msgspec.MsgspecError as error:
                raise self._broken(number) from error
            if not self.signer.holds(
                line.signature, "ledger", line.log, str(line.key_id), str(line.request)
            ):
                raise self._broken(number)
            yield line

    def _broken(self, number: int) -> LedgerBroken:
        return LedgerBroken(
            f"Line {number} of the ledger of forgotten persons is not signed by this installation's key.",
            hint="Restore HEADWATER_FORGOTTEN_LEDGER, or the HEADWATER_SIGNING_KEY that signed it.",
        )
