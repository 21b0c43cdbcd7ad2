"""Waiting without a time limit, but never in silence."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from headwater.operations.embedded.guardian import POLL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable


class Waiting:
    """Says each second what is waited for: ``recovering, 12 s``."""

    def __init__(self, what: str, on_progress: Callable[[str], None] | None) -> None:
        self.what = what
        self._on_progress = on_progress
        self._began_seconds = time.monotonic()
        self._said_seconds = 0

    @property
    def elapsed_seconds(self) -> float:
        return time.monotonic() - self._began_seconds

    def say(self) -> None:
        if self._on_progress is not None:
            self._on_progress(f"{self.what}, {int(self.elapsed_seconds)} s")

    def pause(self) -> None:
        """Sleep for a moment; report once each second."""
        time.sleep(POLL_SECONDS)
        if int(self.elapsed_seconds) > self._said_seconds:
            self._said_seconds = int(self.elapsed_seconds)
            self.say()
