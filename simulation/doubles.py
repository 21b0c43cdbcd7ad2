"""Broken variants of what keeps the promises, put in by the simulation's own processes.

Production code has no switch for this. Each must be found out, or the simulation proves nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, cast

from headwater.log import SharedCommits
from headwater.log.writing import Group
from headwater.stores.redis.documents import RedisDocuments
from headwater.stores.redis.keys import Keys
from headwater.views.documents import Step
from headwater.views.storage import Hold

SLOW_SECONDS = 0.3
"""How long the store takes between the two parts of what should be one."""
READER = "reader"


def install(names: str) -> None:
    """Breaks this process in the ways of those names, commas between; an empty text leaves it sound."""
    for name in filter(None, names.split(",")):
        BROKEN[name].install()


def _checkpoint_before_data() -> None:
    """A store that moves its checkpoint in one write, and its data in the next."""
    sound = RedisDocuments.apply

    async def apply(self: RedisDocuments, hold: Hold, steps: Sequence[Step]) -> None:
        for step in steps:
            await sound(self, hold, [Step(step.after, step.upto, last=step.last)])
            await asyncio.sleep(SLOW_SECONDS)
            await _write(self, hold, step)

    _put(RedisDocuments, "apply", apply)


def _no_fencing() -> None:
    """A store that takes the writes of whoever comes, each whole."""

    async def apply(self: RedisDocuments, hold: Hold, steps: Sequence[Step]) -> None:
        for step in steps:
            await asyncio.sleep(SLOW_SECONDS)
            await _write(self, hold, step, upto=step.upto)

    _put(RedisDocuments, "apply", apply)


async def _write(
    documents: RedisDocuments, hold: Hold, step: Step, *, upto: int | None = None
) -> None:
    names = Keys(hold.place)
    client: Any = documents._client  # noqa: SLF001 - a double goes in below the checks
    pipeline = client.pipeline(transaction=True)
    for (tenant, key), document in zip(step.kept, step.documents, strict=True):
        pipeline.sadd(names.tenants, tenant)
        pipeline.hset(names.documents(tenant), key, document)
        pipeline.zadd(names.order(tenant), {key: 0})
    if upto is not None:
        pipeline.hset(names.checkpoint, "position", upto)
    if len(pipeline):
        with documents._engine.faults():  # noqa: SLF001
            await pipeline.execute()


def _no_deduplication() -> None:
    """An append that does not look at its key."""
    sound = SharedCommits.append

    async def append(self: SharedCommits, group: Group) -> Any:
        return await sound(self, replace(group, idempotency_key=None))

    _put(SharedCommits, "append", append)


def _put(owner: type, method: str, double: Callable[..., Any]) -> None:
    setattr(cast("Any", owner), method, double)


@dataclass(frozen=True)
class Double:
    """What breaks a part, and the faults under which that shows; none where it needs no fault."""

    install: Callable[[], None]
    faults: tuple[str, ...] = ()


BROKEN: Mapping[str, Double] = MappingProxyType(
    {
        "checkpoint": Double(_checkpoint_before_data, ("kill a lease holder", "kill a process")),
        "fencing": Double(_no_fencing, ("pause the relay of a Redis view",)),
        "deduplication": Double(_no_deduplication),
        READER: Double(lambda: None),  # the simulation's own reader; see Readers
    }
)
"""By name: checkpoint before data, no fencing, no deduplication, a reader that trusts position > last seen."""


def faults_for(names: str) -> tuple[str, ...]:
    """The faults to draw from for doubles of those names; none for all."""
    return tuple(fault for name in filter(None, names.split(",")) for fault in BROKEN[name].faults)
