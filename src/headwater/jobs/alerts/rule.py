"""What an alert watches, and whom it tells. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from headwater.errors import JobDefinitionError
from headwater.events import Event

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_LEVELS = ("ok", "warn", "fail")


class AlertRaised(Event, type="alert.raised", stream="alert/{alert}"):
    """An alert's condition has held for its time."""

    alert: str
    detail: str


class AlertResolved(Event, type="alert.resolved", stream="alert/{alert}"):
    """An alert's condition holds no more; ``seconds`` after it was raised."""

    alert: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known at one moment: metrics as text, the doctor's findings, how schedules' last runs ended."""

    metrics: str
    findings: Sequence[tuple[str, str, str]] = ()
    outcomes: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's sample is above or below a value: ``Metric("headwater_dead_jobs", above=0, queue="mail")``.

    ``labels`` are those that a sample must have; any sample that has them counts.
    """

    name: str
    above: float | None = None
    below: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def __init__(
        self, name: str, *, above: float | None = None, below: float | None = None, **labels: str
    ) -> None:
        if (above is None) == (below is None):
            raise JobDefinitionError(
                f"The condition on {name!r} does not say when it holds.",
                hint="Give it above or below, and not both.",
            )
        for called, value in (("name", name), ("above", above), ("below", below), ("labels", labels)):  # fmt: skip
            object.__setattr__(self, called, value)

    def holds(self, facts: Facts) -> str | None:
        """The samples for which it holds, or None."""
        found = []
        for line in facts.metrics.splitlines():
            if line.startswith("#") or not (sample := _SAMPLE.fullmatch(line)):
                continue
            name, inside, value = sample[1], sample[2] or "", float(sample[3])
            has = dict(_LABEL.findall(inside))
            if name != self.name or any(has.get(k) != v for k, v in self.labels.items()):
                continue
            if (self.above is not None and value > self.above) or (
                self.below is not None and value < self.below
            ):
                found.append(line)
        return "; ".join(found[:5]) or None


@dataclass(frozen=True, slots=True)
class Doctor:
    """The doctor finds something: ``Doctor("jobs")``, ``Doctor("view orders", level="fail")``, ``Doctor()`` for anything."""

    check: str | None = None
    level: Literal["warn", "fail"] = "warn"

    def holds(self, facts: Facts) -> str | None:
        """What was found, or None."""
        least = _LEVELS.index(self.level)
        found = [
            f"{check}: {finding}"
            for level, check, finding in facts.findings
            if _LEVELS.index(level) >= least and self.check in {None, check}
        ]
        return "; ".join(found[:5]) or None


@dataclass(frozen=True, slots=True)
class ScheduleFailed:
    """The last run of a schedule, or of any, did not end as done."""

    schedule: str | None = None

    def holds(self, facts: Facts) -> str | None:
        """Which, or None."""
        found = [
            f"the last run of {name} ended {outcome}"
            for name, outcome in facts.outcomes.items()
            if outcome not in {None, "done"} and self.schedule in {None, name}
        ]
        return "; ".join(found[:5]) or None


Condition = Metric | Doctor | ScheduleFailed


@dataclass(frozen=True, slots=True)
class Alert:
    """A rule: raised when ``when`` has held for ``for_seconds``, told to channels, resolved when it holds no more."""

    name: str
    when: Condition
    for_seconds: float
    to: tuple[str, ...]
    tenant: str
