"""Feeds' rows in a lake: immutable objects, a chain of manifests, and a pointer to the newest.

A step writes its objects, then manifest n + 1, and that only if nobody has: whoever creates it has
written the step, and whoever comes too late learns it there. Objects that no manifest names are not
there for readers. The pointer comes last and is a hint: who reads an old one finds the newer manifests
by their numbers, so nothing rests on reading right after overwriting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from headwater.errors import LeaseLost, StoreUnavailable
from headwater.events import Column
from headwater.stores.lake import manifest as manifests
from headwater.stores.lake import parquet
from headwater.stores.lake.engine import LakeEngine
from headwater.stores.lake.manifest import WHOLE_EVERY, Latest, Manifest, Published, Retired
from headwater.stores.lake.merging import next_run
from headwater.views.batches import Part, ReadPart, RowsStep, StoredFile
from headwater.views.recomputation import Recomputation, Recomputed
from headwater.views.storage import Checkpoint, Hold, Place

_REMOVED_AT_ONCE = 1_000


class LakeRows:
    """See OutsideRows."""

    def __init__(self, engine: LakeEngine) -> None:
        self._engine = engine

    limits = None

    async def prepare(self, place: Place, columns: Mapping[str, Sequence[Column]]) -> None:
        """Nothing: a folder begins with its first object."""

    def first(self) -> int:
        """0: objects are kept."""
        return 0

    # Driving -------------------------------------------------------------------------------------

    async def open(self, place: Place, fence: int) -> Checkpoint:
        """Takes the data over: a manifest with this fence is one that older holders did not expect."""
        newest = await self._newest(place)
        if newest is not None and newest.fence > fence:
            raise LeaseLost(f"Another relay holds fence {newest.fence}.")
        if newest is None:
            newest = Manifest(0, 0, 0, fence)
        taken = Manifest(
            newest.number + 1, newest.position, newest.epoch, fence,
            newest.last_position, newest.last_id,
        )  # fmt: skip
        await self._commit(place, taken)
        return taken.checkpoint

    async def adopt(self, hold: Hold, checkpoint: Checkpoint) -> None:
        """Sets position and epoch; see Storage."""
        held = await self._held(hold)
        await self._commit(
            hold.place,
            Manifest(
                held.number + 1, checkpoint.position, checkpoint.epoch, hold.fence,
                held.last_position, held.last_id,
            ),
        )  # fmt: skip

    async def sweep(self, place: Place, keep: Collection[int]) -> None:
        """Removes earlier generations."""
        for generation in set(range(1, place.generation)) - set(keep):
            old = Place(place.log, place.view, generation)
            await self._engine.remove_below(f"{manifests.root(old)}/")

    async def publish(self, place: Place) -> None:
        """Writes which generation is read, for programs that do not ask Postgres."""
        said = manifests.encode(Published(place.generation))
        await self._engine.put_pointer(manifests.published_path(place), said)

    async def trim(self, hold: Hold, upto: int) -> None:
        """Nothing: an object that no manifest names is not there."""

    async def append(self, hold: Hold, step: RowsStep) -> None:
        """Adds rows and moves the checkpoint; see OutsideRows."""
        held = await self._held(hold)
        if held.position != step.after:
            raise LeaseLost(f"The data is at {held.position}, not at {step.after}.")
        files = await asyncio.gather(*(self._write(hold.place, part) for part in step.parts))
        last = held.last_position, held.last_id
        if step.last is not None:
            last = step.last.position, step.last.id.hex()
        await self._commit(
            hold.place,
            Manifest(held.number + 1, step.upto, hold.epoch, hold.fence, *last, files=tuple(files)),
        )

    async def _held(self, hold: Hold) -> Manifest:
        """The newest manifest, which must still be under the hold's fence."""
        newest = await self._newest(hold.place)
        if newest is None or newest.fence != hold.fence:
            raise LeaseLost("Another relay has taken over.")
        return newest

    async def purge(
        self, hold: Hold, rows: Sequence[tuple[StoredFile, Sequence[int]]], read: ReadPart
    ) -> str:
        """Writes the files anew, and removes the objects that they were; see PurgedRows.

        A reader that has begun with the list of before finds an object gone, and begins again.
        """
        for file, _ in rows:
            held = await self._held(hold)
            anew = await self._write(hold.place, await read(file, None), f"-{held.number + 1}")
            await self._commit(
                hold.place,
                Manifest(
                    held.number + 1, held.position, held.epoch, held.fence, held.last_position,
                    held.last_id, (anew,), retired=(Retired(file.path, 0),),
                ),
            )  # fmt: skip
            await self._remove_others(hold, file)
        return ""

    async def _remove_others(self, hold: Hold, file: StoredFile) -> None:
        """Removes the objects of a file's range that are named no more, or never were."""
        root, folder = manifests.root(hold.place), file.path.rpartition("/")[0]
        there = await self._engine.listed(f"{root}/{folder}/")
        newest = await self._held(hold)
        said = manifests.listing(await self._chain(hold.place, newest.number))
        named = {each.path for each in said.files}
        found = (path.removeprefix(f"{root}/") for path, _ in there)
        gone = [path for path in found if path not in named and _overlaps(path, file)]
        await self.remove_unnamed(hold.place, gone)

    async def _write(self, place: Place, part: Part, anew: str = "") -> StoredFile:
        def rendered() -> tuple[int, bytes]:
            table = parquet.table_of(part)
            return table.num_rows, parquet.parquet_of(table)

        rows, data = await asyncio.to_thread(rendered)
        path = _path(part.type, part.month, part.after, part.upto, anew)
        await self._engine.put(f"{manifests.root(place)}/{path}", data)
        return StoredFile(path, part.type, part.month, part.after, part.upto, rows, len(data))

    async def _commit(self, place: Place, manifest: Manifest) -> None:
        if manifest.number % WHOLE_EVERY == 0:
            manifest = await self._whole(place, manifest)
        path = manifests.manifest_path(place, manifest.number)
        await self._engine.put_new(path, manifests.encode(manifest))
        latest = Latest(manifest.number, manifest.position)
        await self._engine.put_pointer(manifests.latest_path(place), manifests.encode(latest))

    async def _whole(self, place: Place, manifest: Manifest) -> Manifest:
        """A manifest that names all files."""
        said = manifests.listing([*await self._chain(place, manifest.number - 1), manifest])
        readable = time.time() - self._engine.merging.grace_seconds
        retired = tuple(Retired(path, at) for path, at in said.retired.items() if at > readable)
        return Manifest(
            manifest.number, manifest.position, manifest.epoch, manifest.fence,
            manifest.last_position, manifest.last_id, tuple(said.files), True, retired,
        )  # fmt: skip

    # Tending -------------------------------------------------------------------------------------

    async def tend(self, hold: Hold, alone: asyncio.Lock) -> bool:
        """Merges one run of small files, or sweeps; whether there may be more. See Tended.

        The merged object is written while batches go on. Alone are the manifest that names it, and
        the removal of what no manifest names: no batch that has written objects and not yet its
        manifest is under way then.
        """
        newest = await self._held(hold)
        chain = await self._chain(hold.place, newest.number)
        run = next_run(manifests.listing(chain).files, self._engine.merging)
        if run:
            merged = await self.write_merged(hold.place, run)
            async with alone:
                await self.commit_merged(hold, run, merged, chain)
            return True
        return await self._sweep_unnamed(hold, alone)

    async def write_merged(self, place: Place, run: Sequence[StoredFile]) -> StoredFile:
        """Writes the object that takes the place of files that follow one another."""
        data = [await self._engine.get(f"{manifests.root(place)}/{file.path}") for file in run]
        missing = [file.path for file, some in zip(run, data, strict=True) if some is None]
        if missing:
            raise StoreUnavailable(
                f"{missing[0]} is not there.", hint="Run headwater verify, and headwater rebuild."
            )
        rows, merged = await asyncio.to_thread(parquet.merged, [some for some in data if some])
        first, last = run[0], run[-1]
        path = _path(first.type, first.month, first.after, last.upto)
        await self._engine.put(f"{manifests.root(place)}/{path}", merged)
        return StoredFile(
            path, first.type, first.month, first.after, last.upto, rows, len(merged)
        )  # fmt: skip

    async def commit_merged(
        self,
        hold: Hold,
        run: Sequence[StoredFile],
        merged: StoredFile,
        chain: Sequence[Manifest],
    ) -> None:
        """Puts a merged file in the place of those that it was made of, by the next manifest.

        Unless some of them were merged otherwise since ``chain`` was read: then nothing names it, and it
        is swept.
        """
        held = await self._held(hold)
        since = await self._between(hold.place, chain[-1].number + 1, held.number)
        named = manifests.listing([*chain, *since]).files
        if not {file.path for file in run} <= {file.path for file in named}:
            return
        now = int(time.time())
        retired = tuple(Retired(file.path, now) for file in run)
        await self._commit(
            hold.place,
            Manifest(
                held.number + 1, held.position, held.epoch, held.fence, held.last_position,
                held.last_id, (merged,), retired=retired,
            ),
        )  # fmt: skip

    async def _sweep_unnamed(self, hold: Hold, alone: asyncio.Lock) -> bool:
        """Removes objects that no manifest names, once no reader of an older one can need them."""
        root = manifests.root(hold.place)
        before = time.time() - self._engine.merging.grace_seconds
        old = {
            path.removeprefix(f"{root}/")
            for path, written in await self._engine.listed(f"{root}/")
            if path.endswith(".parquet") and written.timestamp() <= before
        }
        async with alone:
            newest = await self._held(hold)
            said = manifests.listing(await self._chain(hold.place, newest.number))
            unnamed = old - {file.path for file in said.files}
            gone = sorted(path for path in unnamed if said.retired.get(path, 0) <= before)
            if gone:
                await self.remove_unnamed(hold.place, gone[:_REMOVED_AT_ONCE])
        return len(gone) > _REMOVED_AT_ONCE

    async def remove_unnamed(self, place: Place, paths: Sequence[str]) -> None:
        """Removes objects."""
        await self._engine.remove([f"{manifests.root(place)}/{path}" for path in paths])

    # Reading -------------------------------------------------------------------------------------

    async def files(self, place: Place) -> tuple[int, list[StoredFile]]:
        """The checkpoint and the files up to it; see OutsideRows."""
        newest = await self._newest(place)
        if newest is None:
            return -1, []
        return newest.position, manifests.listing(await self._chain(place, newest.number)).files

    def table(
        self,
        place: Place,
        files: Sequence[StoredFile],
        columns: Sequence[Column],
        tenant: str | None,
    ) -> Any:
        """Files as a dataset; see Queryable."""
        from headwater.stores.lake.dataset import dataset

        return dataset(f"{self._engine.url}/{manifests.root(place)}", files, columns, tenant)

    def recomputed(
        self, place: Place, columns: Mapping[str, Sequence[Column]], wanted: Recomputation
    ) -> Recomputed:
        """What recomputes a SQL view by DuckDB; see Recomputes."""
        from headwater.stores.lake.recomputing import recomputed

        return recomputed(self, place, columns, wanted)

    async def differing(self, place: Place, file: StoredFile, part: Part, limit: int) -> list[str]:
        """Where a file does not hold exactly these rows; see OutsideRows."""
        data = await self._engine.get(f"{manifests.root(place)}/{file.path}")
        if data is None:
            return [file.path]
        found = await asyncio.to_thread(parquet.differing, data, part)
        return [file.path] if found is None else [str(position) for position in found[:limit]]

    def locate(self, place: Place, file: StoredFile) -> str:
        """A file's URL."""
        return f"{self._engine.url}/{manifests.root(place)}/{file.path}"

    async def _newest(self, place: Place) -> Manifest | None:
        """The newest manifest: from the pointer on, as far as there are any."""
        pointer = await self._engine.get(manifests.latest_path(place))
        number = 1 if pointer is None else manifests.decode_latest(pointer).number
        newest = None
        while (data := await self._engine.get(manifests.manifest_path(place, number))) is not None:
            newest = manifests.decode(data)
            number += 1
        return newest

    async def _chain(self, place: Place, number: int) -> list[Manifest]:
        """The manifests that say what is stored at one: from the last whole one or the first on."""
        return await self._between(place, max(number - number % WHOLE_EVERY, 1), number)

    async def _between(self, place: Place, first: int, number: int) -> list[Manifest]:
        paths = [manifests.manifest_path(place, n) for n in range(first, number + 1)]
        found = await asyncio.gather(*map(self._engine.get, paths))
        assert None not in found, paths  # the chain has no gaps
        return [manifests.decode(data) for data in found if data is not None]


def _path(kind: str, month: str, after: int, upto: int, anew: str = "") -> str:
    return f"type={kind}/month={month}/{after:016}-{upto:016}{anew}.parquet"


def _overlaps(path: str, file: StoredFile) -> bool:
    """Whether an object holds positions that a file does, by its name."""
    after, upto = path.rpartition("/")[2].removesuffix(".parquet").split("-")[:2]
    return int(after) < file.upto and int(upto) > file.after
