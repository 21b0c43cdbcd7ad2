"""Counters of rates in Redis."""

from __future__ import annotations

from collections.abc import Sequence

from headwater.rates.plan import Taken, Want
from headwater.stores.redis.engine import RedisEngine
from headwater.stores.redis.scripts import script

_TAKE = script("take_rates")


class RedisCounters:
    """Counts in one Redis or Valkey, by its clock: ``RedisCounters("redis://localhost/0")``.

    Keys begin with ``headwater:rates:`` and expire when they are due no more. They may be evicted; then a
    caller begins anew.
    """

    def __init__(self, url: str, *, name: str = "rates") -> None:
        self._engine = RedisEngine(name, url)

    async def take(self, wants: Sequence[Want]) -> Sequence[Taken]:
        """Counts requests; see Counters. Raises StoreUnavailable and StoreRefused."""
        keys = [f"headwater:rates:{want.key}" for want in wants]
        arguments: list[object] = []
        for want in wants:
            every = round(want.plan.every_seconds * 1e6, 3)
            arguments += [every, want.plan.at_once, want.count]
        with self._engine.faults():
            answer = await self._engine.client.eval(_TAKE.text, len(keys), *keys, *arguments)
        return [
            Taken(int(granted), int(due) / 1e6)
            for granted, due in zip(answer[0::2], answer[1::2], strict=True)
        ]

    async def close(self) -> None:
        """Closes the connections. Idempotent."""
        await self._engine.close()
