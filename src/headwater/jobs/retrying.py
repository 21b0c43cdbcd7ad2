"""When a job that failed is tried again. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retry:
    """Exponential backoff with jitter. Times in seconds.

    A job is begun at most ``attempts`` times, and never again after an exception of ``never``. The wait after
    the n-th is ``first_seconds * factor ** (n - 1)``, ``longest_seconds`` at most, and up to ``jitter`` of it less.
    """

    attempts: int = 10
    first_seconds: float = 1.0
    factor: float = 3.0
    longest_seconds: float = 3600.0
    jitter: float = 0.25
    never: tuple[type[BaseException], ...] = ()

    def delay(self, attempt: int, chance: float) -> float:
        """The wait after an attempt, counted from 1; ``chance`` is drawn from 0 to 1."""
        exponent = min(attempt - 1, 1000)
        whole = min(self.first_seconds * self.factor**exponent if exponent < 300 else self.longest_seconds, self.longest_seconds)  # fmt: skip
        return whole * (1 - self.jitter * chance)
