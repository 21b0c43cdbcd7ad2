"""Changes of ordinary tables become events: capture, backfill, release, and what to watch."""

from headwater.capture.backfill import Progress, backfill
from headwater.capture.comparing import begin_resync, compare
from headwater.capture.replication import Replication
from headwater.capture.slots import (
    Monitor,
    check_requirements,
    close_slot,
    make_told,
    monitor,
    open_slot,
    readiness,
)
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
    "Monitor",
    "Problem",
    "Progress",
    "Replication",
    "backfill",
    "begin_resync",
    "capture",
    "captures",
    "check_requirements",
    "close_slot",
    "compare",
    "make_told",
    "monitor",
    "open_slot",
    "problems",
    "readiness",
    "release",
]
