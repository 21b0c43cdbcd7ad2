"""The last lines of the server's log, fit for an error message."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

START_LOG = "start.log"
LINES = 12
_TAIL_BYTES = 16_384
# Startup and shutdown speak in these. The rest (STATEMENT, DETAIL, CONTEXT, QUERY and the lines
# that continue them) can quote data and passwords, and stays in the file.
_TELLING = re.compile(r"\b(LOG|WARNING|FATAL|PANIC|HINT):|^(postgres|initdb|Traceback|\w*Error):")


def last_lines(folder: Path, since_seconds: float) -> str:
    """The last telling lines of the log files since then (seconds since the epoch)."""
    since = datetime.fromtimestamp(since_seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    files = (file for file in folder.glob("*.log") if file.stat().st_mtime >= since_seconds)
    lines = (line.strip() for file in files for line in _tail(file) if _TELLING.search(line))
    # A line starts with its time in UTC. One without was written before there was a log: it is
    # the reason why there is none, and sorts last.
    recent = sorted((line for line in lines if line[:19] >= since), key=lambda line: line[:23])
    return " | ".join(recent[-LINES:]) or "(the log has nothing)"


def _tail(file: Path) -> list[str]:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - _TAIL_BYTES))
        return stream.read().decode(errors="replace").splitlines()
