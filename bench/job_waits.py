"""How long after a time that it carries a job begins, as its process sees it."""

from __future__ import annotations

import time

WAITS: list[float] = []
"""In milliseconds."""


def began(at_ns: int) -> None:
    """Notes when a job begins."""
    if at_ns:
        WAITS.append((time.time_ns() - at_ns) / 1e6)
