"""Results as objects: each under a key that is written once, and a pointer to a strategy's latest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any

import msgspec
import obstore
import pyarrow as pa
import pyarrow.parquet
from msgspec import Struct
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import LocalStore, from_url

from examples.strategy.backtest import Result

FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}
ASK_AGAIN = {"Cache-Control": "no-cache"}


class Pointer(Struct, frozen=True):
    """What ``latest/{sid}.json`` says."""

    number: int
    run_id: str
    object: str


@dataclass(frozen=True)
class Results:
    """A folder or a bucket: ``file:///path``, ``s3://bucket/prefix``, and what else obstore knows."""

    url: str

    @cached_property
    def _store(self) -> Any:
        if self.url.startswith("file://"):
            return LocalStore(self.url.removeprefix("file://"), mkdir=True)
        return from_url(self.url)

    async def keep(self, sid: str, run_id: str, result: Result) -> tuple[str, str]:
        """Writes a result; its key, and the sha256 of its bytes.

        A key is never overwritten: a run that is begun again finds what it wrote, which is the same.
        """
        key, data = f"results/{sid}/{run_id}.parquet", encoded(result)
        try:
            await obstore.put_async(
                self._store, key, data, mode="create", attributes=self._attributes(FOREVER)
            )
        except AlreadyExistsError:
            data = await self.read(key)
        return key, hashlib.sha256(data).hexdigest()

    async def read(self, key: str) -> bytes:
        """An object's bytes. Raises FileNotFoundError."""
        return bytes(await (await obstore.get_async(self._store, key)).bytes_async())

    async def latest(self, sid: str) -> Pointer | None:
        """Where a strategy's latest result is. Old for a moment, where a cache is: an object that it names is there."""
        return (await self._pointer(sid))[0]

    async def point(self, sid: str, pointer: Pointer) -> bool:
        """Moves a strategy's pointer forward; False where it is as far already.

        A bucket overwrites only what was read, so of two that come at once one reads again. A folder cannot: there
        the queue, which runs one job of a strategy at a time, keeps them apart.
        """
        key, data = f"latest/{sid}.json", msgspec.json.encode(pointer)
        attributes = self._attributes(ASK_AGAIN)
        while True:
            held, tag = await self._pointer(sid)
            if held is not None and held.number >= pointer.number:
                return False
            mode: Any = "create" if tag is None else {"e_tag": tag}
            if tag is not None and isinstance(self._store, LocalStore):
                mode = "overwrite"
            try:
                await obstore.put_async(self._store, key, data, mode=mode, attributes=attributes)
            except (AlreadyExistsError, PreconditionError):
                continue
            return True

    async def listed(self, prefix: str) -> list[str]:
        """The keys below a prefix, in order."""
        return sorted([one["path"] async for some in obstore.list(self._store, prefix) for one in some])  # fmt: skip

    async def _pointer(self, sid: str) -> tuple[Pointer | None, str | None]:
        try:
            found = await obstore.get_async(self._store, f"latest/{sid}.json")
        except FileNotFoundError:
            return None, None
        data = bytes(await found.bytes_async())
        return msgspec.json.decode(data, type=Pointer), found.meta["e_tag"]

    def _attributes(self, wanted: dict[str, str]) -> Any:
        return None if isinstance(self._store, LocalStore) else wanted  # folders have none


def encoded(result: Result) -> bytes:
    """A result as Parquet, a row a day; always the same bytes for the same result."""
    days = pa.table({"day": range(len(result.money)), "money_cents": list(result.money)})
    file = BytesIO()
    pyarrow.parquet.write_table(days, file)
    return file.getvalue()
