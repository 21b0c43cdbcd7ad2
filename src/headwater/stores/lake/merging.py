"""Which small files become one. Pure.

A file is merged only into one that is at least four times as large, so that each byte is written again
a few times and no more: seven, from 4 KiB to 32 MiB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from headwater.views.batches import StoredFile

_LARGEST_SHARE = 4
MOST_FILES = 256
"""No more files than these are merged at once."""


@dataclass(frozen=True, slots=True)
class Merging:
    """``files`` is the least that is merged at once, ``bytes`` the largest result.

    ``grace_seconds`` is how long readers of an older manifest still find the files that were merged.
    """

    files: int = 16
    bytes: int = 32 << 20
    grace_seconds: float = 3600.0


def next_run(files: Sequence[StoredFile], merging: Merging) -> list[StoredFile]:
    """Files of one type and month, one after the other in the log, that become one; or none."""

    def kind(file: StoredFile) -> tuple[str, str]:
        return file.type, file.month

    for _, some in groupby(sorted(files, key=lambda f: (*kind(f), f.after, f.upto)), kind):
        if run := _run(list(some), merging):
            return run
    return []


def _run(files: list[StoredFile], merging: Merging) -> list[StoredFile]:
    """The first run that is worth it: what is too large for its neighbours parts them."""
    waiting = [files]
    while waiting:
        some = waiting.pop()
        if len(some) < merging.files:
            continue
        largest = max(range(len(some)), key=lambda n: some[n].bytes)
        if some[largest].bytes * _LARGEST_SHARE > min(sum(f.bytes for f in some), merging.bytes):
            waiting += [some[largest + 1 :], some[:largest]]
            continue
        if run := _fitting(some, merging):
            return run
    return []


def _fitting(files: list[StoredFile], merging: Merging) -> list[StoredFile]:
    """As many from the first on as one file may hold."""
    total, run = 0, []
    for file in files[:MOST_FILES]:
        total += file.bytes
        if total > merging.bytes:
            break
        run.append(file)
    return run if len(run) > 1 else []
