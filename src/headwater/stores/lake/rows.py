"""Feeds' rows in a lake: immutable objects, a chain of manifests, and a pointer to the newest.

A step writes its objects, then manifest n + 1, and that only if nobody has: whoever creates it has
written the step, and whoever comes too late learns it there. Objects that no manifest names are not
there for readers. The pointer comes last and is a hint: who reads an old one finds the newer manifests
by their numbers, so nothing rests on reading right after overwriting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from headwater.errors import LeaseLost
from headwater.events import Column
from headwater.stores.lake import manifest as manifests
from headwater.stores.lake import parquet
from headwater.stores.lake.engine import LakeEngine
from headwater.stores.lake.manifest import WHOLE_EVERY, Latest, Manifest
from headwater.views.store import Checkpoint, Hold, Part, Place, RowsStep, StoredFile


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

    async def _write(self, place: Place, part: Part) -> StoredFile:
        def rendered() -> tuple[int, bytes]:
            table = parquet.table_of(part)
            return table.num_rows, parquet.parquet_of(table)

        rows, data = await asyncio.to_thread(rendered)
        path = f"type={part.type}/month={part.month}/{part.after:016}-{part.upto:016}.parquet"
        await self._engine.put(f"{manifests.root(place)}/{path}", data)
        return StoredFile(path, part.type, part.month, part.after, part.upto, rows, len(data))

    async def _commit(self, place: Place, manifest: Manifest) -> None:
        if manifest.number % WHOLE_EVERY == 0:
            before = await self._files(place, manifest.number - 1)
            manifest = Manifest(
                manifest.number, manifest.position, manifest.epoch, manifest.fence,
                manifest.last_position, manifest.last_id, (*before, *manifest.files), whole=True,
            )  # fmt: skip
        path = manifests.manifest_path(place, manifest.number)
        await self._engine.put_new(path, manifests.encode(manifest))
        latest = Latest(manifest.number, manifest.position)
        await self._engine.put_pointer(manifests.latest_path(place), manifests.encode(latest))

    # Reading -------------------------------------------------------------------------------------

    async def files(self, place: Place) -> tuple[int, list[StoredFile]]:
        """The checkpoint and the files up to it; see OutsideRows."""
        newest = await self._newest(place)
        if newest is None:
            return -1, []
        return newest.position, await self._files(place, newest.number)

    async def same(self, place: Place, file: StoredFile, part: Part) -> bool:
        """Whether a file holds exactly these rows."""
        data = await self._engine.get(f"{manifests.root(place)}/{file.path}")
        if data is None:
            return False
        return bool(
            await asyncio.to_thread(lambda: parquet.read(data).equals(parquet.table_of(part)))
        )

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

    async def _files(self, place: Place, number: int) -> list[StoredFile]:
        """The files that manifests up to one name, the oldest first."""
        found: list[tuple[StoredFile, ...]] = []
        while number > 0:
            data = await self._engine.get(manifests.manifest_path(place, number))
            assert data is not None, number  # the chain has no gaps
            manifest = manifests.decode(data)
            found.append(manifest.files)
            if manifest.whole:
                break
            number -= 1
        return [file for files in reversed(found) for file in files]
