"""Rules over what monitors see, and who is told."""

from headwater.jobs.alerts.rule import (
    Alert,
    AlertRaised,
    AlertResolved,
    Doctor,
    Facts,
    Metric,
    ScheduleFailed,
)

__all__ = [
    "Alert",
    "AlertRaised",
    "AlertResolved",
    "Doctor",
    "Facts",
    "Metric",
    "ScheduleFailed",
]
