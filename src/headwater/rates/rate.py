"""How often a caller may come: the generic cell rate algorithm (ATM Forum, TM 4.0, 1996). Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

_REMEMBERED = 100_000


@dataclass(slots=True)
class Rate:
    """So many calls a second in the long run, and so many at once. One number per caller."""

    per_second: float
    burst: int
    _due: dict[str, float] = field(default_factory=dict)

    def take(self, caller: str, now: float) -> float:
        """Counts a call at a time in seconds; 0 if it may go on, else how long to wait."""
        interval = 1 / self.per_second
        due = max(self._due.get(caller, now), now)
        wait = due - now - interval * (self.burst - 1)
        if wait > 1e-9:
            return wait
        if len(self._due) >= _REMEMBERED:
            self._due = {known: at for known, at in self._due.items() if at > now}
        self._due[caller] = due + interval
        return 0.0

    def left(self, caller: str, now: float) -> int:
        """How many calls the caller may make at once now."""
        ahead = max(self._due.get(caller, now) - now, 0.0)
        return max(int(self.burst - ahead * self.per_second + 1e-9), 0)
