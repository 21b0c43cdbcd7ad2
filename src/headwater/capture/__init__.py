"""Changes of ordinary tables become events: capture, backfill, release, and what to watch."""

from headwater.capture.backfill import Progress, backfill
from headwater.capture.tables import (
    Capture,
    Captured,
    CaptureOptions,
    Problem,
    capture,
    captures,
    problems,
    release,
)

__all__ = [
    "Capture",
    "CaptureOptions",
    "Captured",
    "Problem",
    "Progress",
    "backfill",
    "capture",
    "captures",
    "problems",
    "release",
]
