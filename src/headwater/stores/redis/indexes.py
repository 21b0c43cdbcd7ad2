"""Indexes of folds' documents in Redis: sorted sets, hashes, geo sets and HyperLogLogs.

A step's script writes them with the documents. Reads take the checkpoint in the same atomic step.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any
from uuid import uuid4

from headwater.stores.redis.engine import RedisEngine
from headwater.stores.redis.keys import Keys
from headwater.views.fold import Key
from headwater.views.indexes import (
    Counter,
    Distinct,
    Entry,
    Index,
    Places,
    Ranking,
    name_of_index,
)
from headwater.views.storage import Place

_AT_ONCE = 1_000
_SCRATCH_SECONDS = 60
_NEAR_DEGREES = 1e-5  # Redis keeps a place in 52 bits: it is less than a metre off


class RedisIndexes:
    """See IndexedDocuments."""

    def __init__(self, engine: RedisEngine) -> None:
        self._engine = engine
        self._client = engine.client

    async def leaders(
        self, place: Place, index: Ranking, tenant: str, limit: int
    ) -> tuple[int, list[tuple[str, float]]]:
        """The checkpoint, and the keys of the highest scores."""
        name = Keys(place).index(index, tenant)
        position, found = await self._together(
            place, lambda p: p.zrevrange(name, 0, max(limit, 1) - 1, withscores=True)
        )
        return position, [(key.decode(), float(score)) for key, score in found]

    async def rank(self, place: Place, index: Ranking, key: Key) -> tuple[int, int | None]:
        """The checkpoint, and how many keys are before this one, plus 1."""
        name = Keys(place).index(index, key[0])
        position, before = await self._together(place, lambda p: p.zrevrank(name, key[1]))
        return position, None if before is None else before + 1

    async def counts(
        self, place: Place, index: Counter, tenant: str, keys: Sequence[str]
    ) -> tuple[int, list[str | None]]:
        """The checkpoint, and the number of each key."""
        name = Keys(place).index(index, tenant)
        position, found = await self._together(place, lambda p: p.hmget(name, list(keys)))
        return position, [None if value is None else value.decode() for value in found]

    async def distinct(
        self, place: Place, index: Distinct, tenant: str, keys: Sequence[str]
    ) -> tuple[int, int]:
        """The checkpoint, and about how many different values the keys have had together."""
        names = [Keys(place).distinct(index, (tenant, key)) for key in keys]
        position, count = await self._together(place, lambda p: p.pfcount(*names))
        return position, int(count)

    async def near(
        self,
        place: Place,
        index: Places,
        tenant: str,
        at: tuple[float, float],
        metres: float,
        limit: int,
    ) -> tuple[int, list[tuple[str, float]]]:
        """The checkpoint, and the nearest keys within a distance, with their distances in metres."""
        name = Keys(place).index(index, tenant)
        position, found = await self._together(
            place,
            lambda p: p.geosearch(
                name, longitude=at[0], latitude=at[1], radius=metres, unit="m", sort="ASC",
                count=max(limit, 1), withdist=True,
            ),
        )  # fmt: skip
        return position, [(key.decode(), float(distance)) for key, distance in found]

    def indexed(self, place: Place) -> RedisIndexReading:
        """Reads for a check."""
        return RedisIndexReading(self._engine, place)

    async def _together(self, place: Place, command: Callable[[Any], Any]) -> tuple[int, Any]:
        """The checkpoint and the answer to a command, as of one moment."""
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hget(Keys(place).checkpoint, "position")
        command(pipeline)
        with self._engine.faults():
            position, answer = await pipeline.execute()
        return -1 if position is None else int(position), answer


class RedisIndexReading:
    """See IndexReading."""

    def __init__(self, engine: RedisEngine, place: Place) -> None:
        self._engine = engine
        self._client = engine.client
        self._names = Keys(place)

    async def strays(
        self, indexes: Sequence[Index], decode: Callable[[bytes], object]
    ) -> list[tuple[Key, str, Entry, Entry]]:
        """Where an index and the document stored beside it disagree; see IndexReading."""
        found: list[tuple[Key, str, Entry, Entry]] = []
        with self._engine.faults():
            tenants = sorted(t.decode() for t in await self._client.smembers(self._names.tenants))
            for index in indexes:
                if isinstance(index, Distinct):
                    continue
                for tenant in tenants:
                    names = self._names.documents(tenant), self._names.index(index, tenant)
                    async for keys in self._keys(index, *names):
                        for key, expected, stored in await self._compared(
                            index, tenant, keys, decode
                        ):
                            found.append(((tenant, key), name_of_index(index), expected, stored))
        return list(dict.fromkeys(found))

    async def _keys(self, index: Index, documents: str, name: str) -> AsyncIterator[list[str]]:
        """The keys that have a document, then those that the index has."""
        scans = [(self._client.hscan, documents)]
        scans.append(
            (self._client.hscan if isinstance(index, Counter) else self._client.zscan, name)
        )
        for scan, of in scans:
            cursor = 0
            while True:
                cursor, some = await scan(of, cursor, count=_AT_ONCE)
                keys = list(some) if isinstance(some, dict) else [member for member, _ in some]
                if keys:
                    yield [key.decode() for key in keys]
                if cursor == 0:
                    break

    async def _compared(
        self, index: Index, tenant: str, keys: list[str], decode: Callable[[bytes], object]
    ) -> list[tuple[str, Entry, Entry]]:
        """What differs among some keys, read in one atomic step with their documents."""
        name = self._names.index(index, tenant)
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hmget(self._names.documents(tenant), keys)
        if isinstance(index, Ranking):
            pipeline.zmscore(name, keys)
        elif isinstance(index, Places):
            pipeline.geopos(name, *keys)
        else:
            pipeline.hmget(name, keys)
        documents, entries = await pipeline.execute()
        differing = []
        for key, document, entry in zip(keys, documents, entries, strict=True):
            expected = None if document is None else index.entry(decode(document))
            stored = entry.decode() if isinstance(entry, bytes) else entry
            if not _same(expected, stored):
                differing.append((key, expected, stored))
        return differing

    async def counted(
        self, index: Distinct, values: Mapping[Key, Collection[str]]
    ) -> tuple[int, dict[Key, tuple[int, int, int]]]:
        """Counts the values beside what is stored, in scratch keys; see IndexReading."""
        scratch = f"{self._names.prefix}:scratch:{uuid4()}"
        keys = list(values)
        with self._engine.faults():
            pipeline = self._client.pipeline(transaction=False)
            for number, key in enumerate(keys):
                given = sorted(values[key])
                for start in range(0, max(len(given), 1), _AT_ONCE):
                    pipeline.pfadd(f"{scratch}:{number}", *given[start : start + _AT_ONCE])
                pipeline.expire(f"{scratch}:{number}", _SCRATCH_SECONDS)
            await pipeline.execute()
            pipeline = self._client.pipeline(transaction=True)
            pipeline.hget(self._names.checkpoint, "position")
            for number, key in enumerate(keys):
                stored = self._names.distinct(index, key)
                pipeline.pfcount(stored)
                pipeline.pfcount(f"{scratch}:{number}")
                pipeline.pfcount(stored, f"{scratch}:{number}")
            position, *counts = await pipeline.execute()
            await self._client.unlink(*(f"{scratch}:{number}" for number, _ in enumerate(keys)))
        threes = zip(counts[::3], counts[1::3], counts[2::3], strict=True)
        return int(position or 0), dict(zip(keys, threes, strict=True))


def _same(expected: Entry, stored: Entry) -> bool:
    if isinstance(expected, tuple) and isinstance(stored, tuple):
        return all(abs(a - b) < _NEAR_DEGREES for a, b in zip(expected, stored, strict=True))
    return expected == stored
