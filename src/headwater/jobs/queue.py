"""What a queue is: its lanes, and how many of its jobs may run. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from headwater.errors import JobDefinitionError

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
NORMAL = "normal"


@dataclass(frozen=True, slots=True)
class JobRate:
    """So many jobs may start in so many seconds; ``burst`` at once, by default one."""

    jobs: int
    per_seconds: float = 1.0
    burst: int = 1

    def __post_init__(self) -> None:
        if self.jobs < 1 or self.per_seconds <= 0 or self.burst < 1:
            raise JobDefinitionError(
                "The rate allows nothing.",
                hint="Give it at least one job, some seconds, and a burst of at least one.",
            )

    @property
    def every_seconds(self) -> float:
        """How long one job takes to be made up for."""
        return self.per_seconds / self.jobs


@dataclass(frozen=True, slots=True)
class Queue:
    """A named queue.

    ``workers`` of its jobs run at once in each process, ``cap`` in all processes together. ``weights`` names
    its lanes: each gets its part of what is started, and one of infinite weight always goes first. Of the jobs
    with one key, ``key_limit`` run at once, in order where it is one.
    """

    name: str
    workers: int = 10
    cap: int | None = None
    rate: JobRate | None = None
    weights: Mapping[str, float] = field(default_factory=lambda: {NORMAL: 1.0})
    key_limit: int = 1
    key_rate: JobRate | None = None

    def __post_init__(self) -> None:
        for name in (self.name, *self.weights):
            if not _NAME.fullmatch(name):
                raise JobDefinitionError(
                    f"The name {name!r} of a queue or lane is malformed.",
                    hint="Use up to 63 lower-case letters, digits, _ and -, a letter first.",
                )
        if not self.weights or any(not weight > 0 for weight in self.weights.values()):
            raise JobDefinitionError(
                f"The queue {self.name!r} has a lane without weight.",
                hint="Give each lane a weight above 0; math.inf for one that always goes first.",
            )
        if self.workers < 1 or self.key_limit < 1 or (self.cap is not None and self.cap < 1):
            raise JobDefinitionError(
                f"The queue {self.name!r} runs nothing.", hint="Its limits are at least one."
            )

    @property
    def lane(self) -> str:
        """Where jobs go that name no lane: ``normal``, else the lane of the lowest weight."""
        if NORMAL in self.weights:
            return NORMAL
        return min(self.weights, key=lambda lane: self.weights[lane])

    @property
    def exact(self) -> bool:
        """Whether no job may be taken before it can start: others would be kept from their part."""
        return (
            self.cap is not None
            or self.rate is not None
            or self.key_rate is not None
            or any(map(math.isinf, self.weights.values()))
        )
