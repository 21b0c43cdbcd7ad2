"""Folds' documents in Redis.

One hash of documents per tenant, and a sorted set of its keys so that pages come in order. A step is
one script: it compares fence, revision and position, looks at the types of all keys, and then writes
documents and checkpoint. Steps of a batch go out together; one that does not begin at the checkpoint
writes nothing, so neither do those after it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from headwater.stores.redis.indexes import RedisIndexes
from headwater.stores.redis.keys import Keys
from headwater.stores.redis.scripts import Script, script
from headwater.stores.redis.written import by_tenant, written
from headwater.views.documents import Step
from headwater.views.fold import Key
from headwater.views.indexes import Distinct
from headwater.views.storage import Checkpoint, Hold, LastEvent, Place

_AT_ONCE = 1_000
_OPEN, _WRITE, _DISTURB = script("open"), script("write"), script("disturb")
_ADOPT, _PAGE = script("adopt"), script("page")
_WRITE_SHA = _WRITE.sha


class RedisDocuments(RedisIndexes):
    """See OutsideDocuments."""

    max_writes = 1_000
    max_slices = 64

    # Driving -------------------------------------------------------------------------------------

    async def open(self, place: Place, fence: int) -> Checkpoint:
        """Takes the data over; see Storage."""
        await self._engine.check()
        with self._engine.faults():
            await self._client.script_load(_WRITE.text)
        return _checkpoint(await self._run(_OPEN, [Keys(place).checkpoint], [fence]))

    async def adopt(self, hold: Hold, checkpoint: Checkpoint) -> None:
        """Sets position, epoch and last event; see Storage."""
        last = checkpoint.last
        newest = ("", "") if last is None else (last.position, last.id)
        arguments = [hold.fence, hold.revision, checkpoint.position, checkpoint.epoch, *newest]
        await self._run(_ADOPT, [Keys(hold.place).checkpoint], arguments)

    async def load(self, place: Place, keys: Sequence[Key]) -> Iterable[tuple[Key, bytes]]:
        """The documents of those keys that have one."""
        names = Keys(place)
        asked = [
            (tenant, some[start : start + _AT_ONCE])
            for tenant, some in by_tenant(keys).items()
            for start in range(0, len(some), _AT_ONCE)
        ]
        pipeline = self._client.pipeline(transaction=False)
        for tenant, some in asked:
            pipeline.hmget(names.documents(tenant), some)
        with self._engine.faults():
            answers = await pipeline.execute()
        return [
            ((tenant, key), document)
            for (tenant, some), documents in zip(asked, answers, strict=True)
            for key, document in zip(some, documents, strict=True)
            if document is not None
        ]

    async def apply(self, hold: Hold, steps: Sequence[Step]) -> None:
        """Writes steps in order; see OutsideDocuments."""
        names = Keys(hold.place)
        pipeline = self._client.pipeline(transaction=False)
        for step in steps:
            last: tuple[object, object] = ("", "")
            if step.last is not None:
                last = (step.last.position, step.last.id)
            head = [hold.fence, hold.revision, step.after, step.upto, hold.epoch, *last, ""]
            keys, arguments = written(names, step, head)
            pipeline.execute_command("EVALSHA", _WRITE_SHA, len(keys), *keys, *arguments)
        with self._engine.faults():
            await pipeline.execute()

    async def sweep(self, place: Place, keep: Collection[int]) -> None:
        """Removes earlier generations. Their memory is freed in the background."""
        for generation in set(range(1, place.generation)) - set(keep):
            names = Keys(replace(place, generation=generation))
            with self._engine.faults():
                tenants = [t.decode() for t in await self._client.smembers(names.tenants)]
                indexes = [i.decode() for i in await self._client.smembers(names.indexes)]
                held = [names.named(i, t) for i in indexes for t in tenants]
                for index in indexes:
                    if index.startswith(f"{Distinct.kind}:"):
                        await self._forget_values(names, index, tenants)
                held += [names.checkpoint, names.tenants, names.indexes]
                held += [
                    Keys(replace(names.place, slice=n)).checkpoint for n in range(self.max_slices)
                ]
                held += [names.documents(t) for t in tenants] + [names.order(t) for t in tenants]
                await self._client.unlink(*held)

    async def _forget_values(self, names: Keys, index: str, tenants: Sequence[str]) -> None:
        """Removes the distinct counts of each document: those of a generation before go with it."""
        for tenant in tenants:
            cursor = 0
            while True:
                cursor, some = await self._client.zscan(names.order(tenant), cursor, count=_AT_ONCE)
                keys = [names.named_distinct(index, (tenant, key.decode())) for key, _ in some]
                if keys:
                    await self._client.unlink(*keys)
                if cursor == 0:
                    break

    # Replaying -----------------------------------------------------------------------------------

    async def disturb(self, place: Place) -> Checkpoint:
        """Raises the revision; see OutsideDocuments."""
        return _checkpoint(await self._run(_DISTURB, [Keys(place).checkpoint], []))

    async def redo(self, place: Place, checkpoint: Checkpoint, step: Step) -> Checkpoint:
        """Writes what a replay changed; see OutsideDocuments."""
        replayed = " ".join(map(str, checkpoint.replayed))
        position = checkpoint.position
        head = ["", checkpoint.revision, position, position, checkpoint.epoch, "", "", replayed]
        await self._run(_WRITE, *written(Keys(place), step, head))
        return replace(checkpoint, revision=checkpoint.revision + 1)

    async def rewrite(self) -> str:
        """Has the append-only file, and the snapshot, written anew: until then they hold what was overwritten."""
        return await self._engine.rewrite()

    # Reading -------------------------------------------------------------------------------------

    async def get(self, place: Place, key: Key) -> tuple[int, bytes | None]:
        """The checkpoint and a document; see OutsideDocuments."""
        names = Keys(place)
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hget(names.checkpoint, "position")
        pipeline.hget(names.documents(key[0]), key[1])
        with self._engine.faults():
            position, document = await pipeline.execute()
        return _position(position), document

    async def page(
        self, place: Place, tenant: str, after: str, limit: int
    ) -> tuple[int, list[tuple[str, bytes]]]:
        """The checkpoint and a page of documents; see OutsideDocuments."""
        names = Keys(place)
        keys = [names.checkpoint, names.documents(tenant), names.order(tenant)]
        found: list[tuple[str, bytes]] = []
        position: int | None = None
        while len(found) < limit:
            lower = f"({after}" if after else "-"
            at, page, documents = await self._run(
                _PAGE, keys, [lower, min(limit - len(found), _AT_ONCE)]
            )
            position = _position(at) if position is None else min(position, _position(at))
            found += [(k.decode(), d) for k, d in zip(page, documents, strict=True)]
            if len(page) < _AT_ONCE:
                break
            after = found[-1][0]
        return -1 if position is None else position, found

    @asynccontextmanager
    async def reading(self, place: Place) -> AsyncIterator[_Reading]:
        """Reads for a check."""
        with self._engine.faults():
            position = await self._client.hget(Keys(place).checkpoint, "position")
        yield _Reading(self, place, max(_position(position), 0))

    async def tenants(self, place: Place) -> list[str]:
        """The tenants that ever had a document."""
        with self._engine.faults():
            return sorted(t.decode() for t in await self._client.smembers(Keys(place).tenants))

    async def count(self, place: Place) -> int:
        """How many documents there are."""
        names = Keys(place)
        with self._engine.faults():
            return sum(
                [await self._client.hlen(names.documents(t)) for t in await self.tenants(place)]
            )

    async def scan(self, place: Place) -> AsyncIterator[tuple[Key, bytes]]:
        """Every document that is there from beginning to end, some twice."""
        for tenant in await self.tenants(place):
            cursor = 0
            while True:
                with self._engine.faults():
                    cursor, some = await self._client.hscan(
                        Keys(place).documents(tenant), cursor, count=_AT_ONCE
                    )
                for key, document in some.items():
                    yield (tenant, key.decode()), document
                if cursor == 0:
                    break

    async def at_once(self, place: Place, keys: Sequence[Key]) -> tuple[int, dict[Key, bytes]]:
        """The checkpoint and some documents, read in one atomic step."""
        names = Keys(place)
        grouped = by_tenant(keys)
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hget(names.checkpoint, "position")
        for tenant, some in grouped.items():
            pipeline.hmget(names.documents(tenant), some)
        with self._engine.faults():
            position, *answers = await pipeline.execute()
        found = {
            (tenant, key): document
            for (tenant, some), documents in zip(grouped.items(), answers, strict=True)
            for key, document in zip(some, documents, strict=True)
            if document is not None
        }
        return max(_position(position), 0), found

    async def _run(self, lua: Script, keys: Sequence[str], arguments: Sequence[object]) -> Any:
        with self._engine.faults():
            return await self._client.eval(lua.text, len(keys), *keys, *arguments)


class _Reading:
    """Documents of a view that may go on while they are read."""

    def __init__(self, stored: RedisDocuments, place: Place, position: int) -> None:
        self._stored = stored
        self._place = place
        self.position = position

    async def count(self) -> int:
        return await self._stored.count(self._place)

    def documents(self) -> AsyncIterator[tuple[Key, bytes]]:
        return self._stored.scan(self._place)

    async def at_once(self, keys: Sequence[Key]) -> tuple[int, dict[Key, bytes]]:
        return await self._stored.at_once(self._place, keys)


def _checkpoint(fields: Sequence[bytes | None]) -> Checkpoint:
    position, epoch, revision, last_position, last_id, replayed = fields
    assert position is not None
    assert epoch is not None
    assert revision is not None
    last = None
    if last_position is not None and last_id is not None:
        last = LastEvent(int(last_position), last_id)
    positions = tuple(int(p) for p in (replayed or b"").split())
    return Checkpoint(int(position), int(epoch), int(revision), last, positions)


def _position(stored: bytes | None) -> int:
    return -1 if stored is None else int(stored)
