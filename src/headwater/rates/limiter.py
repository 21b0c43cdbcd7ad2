"""Deciding on requests: those that come at the same time share a round trip."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from headwater.log.sharing import Shared
from headwater.rates.plan import Counters, Decision, Plan, Want

_AT_ONCE = 500
_LONGEST_KEY = 200
Request = tuple[str, Plan]
"""The key that is counted, and what it may do."""


class Limiter:
    """Decides on requests by counters that processes share."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._shared = Shared(self._answer, at_once=_AT_ONCE, name="rates")

    async def take(self, key: str, plan: Plan) -> Decision:
        """Counts a request of a key. Raises what the counters' engine does."""
        return await self._shared.ask((_name(plan, key), plan))

    async def close(self) -> None:
        """Ends what asks. Idempotent."""
        await self._shared.close()

    async def _answer(self, requests: Sequence[Request]) -> list[Decision]:
        """Of requests with one key the first may go on, as many as were granted."""
        plans = dict(requests)
        counted = Counter(key for key, _ in requests)
        wants = [Want(key, plans[key], count) for key, count in counted.items()]
        taken = dict(zip(counted, await self._counters.take(wants), strict=True))
        before: Counter[str] = Counter()
        decisions = []
        for key, plan in requests:
            allowed = before[key] < taken[key].granted
            decisions.append(Decision.of(plan, taken[key], allowed=allowed))
            before[key] += 1
        return decisions


def _name(plan: Plan, key: str) -> str:
    """What a key is counted under: whatever callers send, it fits every engine and is nobody else's."""
    if len(key) > _LONGEST_KEY or not key.isprintable():
        told = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{plan.name} sha256 {told}"
    return f"{plan.name} {key}"
