"""Deciding on requests: those that come at the same time share a round trip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from headwater.log.sharing import Shared
from headwater.rates.plan import Counters, Decision, Plan, Want

_AT_ONCE = 500
Request = tuple[str, Plan]
"""The key that is counted, and what it may do."""


class Limiter:
    """Decides on requests by counters that processes share."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._shared = Shared(self._answer, at_once=_AT_ONCE, name="rates")

    async def take(self, key: str, plan: Plan) -> Decision:
        """Counts a request of a key. Raises what the counters' engine does."""
        return await self._shared.ask((f"{plan.name} {key}", plan))

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
