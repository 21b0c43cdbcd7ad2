"""Which lanes the next jobs come from: stride scheduling (Waldspurger and Weihl, 1995). Pure.

Each lane has a pass, which a job taken from it moves on by one over the lane's weight; the lane that is
furthest back comes next. A lane that was empty comes back at the pass of the others: it is served soon, and
has saved nothing up.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping


class Lanes:
    """The lanes of a queue, as one process shares itself between them."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = dict(weights)
        self._passes = dict.fromkeys(weights, 0.0)

    def wanted(self, most: int) -> dict[str, int]:
        """How many of the next jobs each lane should give if all have enough, the next lane first."""
        first = [lane for lane, weight in self._weights.items() if math.isinf(weight)]
        others = [lane for lane in self._weights if lane not in first]
        shares = dict.fromkeys(first, most)
        order = [
            (self._passes[lane], -self._weights[lane], n, lane) for n, lane in enumerate(others)
        ]
        shares |= {lane: 0 for _, _, _, lane in sorted(order)}
        if len(order) == 1:
            shares[order[0][3]] = most
            return shares
        heapq.heapify(order)
        for _ in range(most if order else 0):
            at, weight, n, lane = order[0]
            shares[lane] += 1
            heapq.heapreplace(order, (at - 1 / weight, weight, n, lane))
        return shares

    def taken(self, counts: Mapping[str, int], wanted: Mapping[str, int]) -> None:
        """Counts what was taken. A lane that gave less than it was asked for is empty."""
        for lane, count in counts.items():
            self._passes[lane] += count / self._weights[lane]
        # A lane that never runs against the others has no place among them.
        running = [lane for lane in self._weights if not math.isinf(self._weights[lane])]
        empty = {lane for lane in running if counts.get(lane, 0) < wanted.get(lane, 0)}
        busy = [self._passes[lane] for lane in running if lane not in empty]
        now = min(busy, default=max((self._passes[lane] for lane in running), default=0.0))
        for lane in empty:
            self._passes[lane] = max(self._passes[lane], now)
        for lane in running:
            self._passes[lane] -= now
