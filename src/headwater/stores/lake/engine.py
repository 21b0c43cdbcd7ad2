"""Objects of one lake: put, put if absent, get, delete; and what their errors mean here.

The only module that imports the package ``obstore``, and only when an app that uses the store is
opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from headwater.errors import ExtraMissing, LeaseLost, SettingError, StoreRefused, StoreUnavailable
from headwater.stores.lake.merging import Merging

if TYPE_CHECKING:
    from headwater.stores.lake.rows import LakeRows

_POINTER = {"Cache-Control": "no-cache"}
_RETRIES: Any = {
    # The relay waits for a store and says so; the client's own retries are for a dropped connection.
    "max_retries": 3,
    "backoff": {"init_backoff": timedelta(milliseconds=50), "max_backoff": timedelta(seconds=1)},
    "retry_timeout": timedelta(seconds=15),
}


class LakeEngine:
    """One lake, shared by the feeds in it."""

    def __init__(
        self, name: str, url: str, every_seconds: float, merging: Merging | None = None
    ) -> None:
        try:
            import obstore
            import pyarrow.parquet  # noqa: F401 - what rows need, missed here and not later
            from obstore.exceptions import BaseError
            from obstore.store import LocalStore, from_url
        except ImportError as error:
            raise ExtraMissing(
                f"The store {name!r} needs the packages obstore and pyarrow.",
                hint="pip install 'headwater[lake]'",
            ) from error
        self.name = name
        self.url = url.rstrip("/")
        self.every_seconds = every_seconds
        self.merging = merging or Merging()
        self._client: Any = obstore
        self._error = BaseError
        self._is_local = url.startswith("file://")
        try:
            path = url.removeprefix("file://")
            self._store: Any = (
                LocalStore(path, mkdir=True)
                if self._is_local
                else from_url(self.url, retry_config=_RETRIES)
            )
        except (BaseError, ValueError, OSError) as error:
            raise SettingError(
                f"The store {name!r} has a URL that cannot be used: {error}.",
                hint="Write file:///path or s3://bucket/prefix.",
            ) from error

    @cached_property
    def rows(self) -> LakeRows:
        """Where feeds' rows go."""
        from headwater.stores.lake.rows import LakeRows

        return LakeRows(self)

    async def close(self) -> None:
        """Nothing is held open."""

    async def put(self, path: str, data: bytes) -> None:
        """Writes an object; the same again is harmless."""
        with self._faults():
            await self._client.put_async(self._store, path, data)

    async def put_new(self, path: str, data: bytes) -> None:
        """Writes an object that nobody has written yet. Raises LeaseLost where somebody has."""
        with self._faults():
            await self._client.put_async(self._store, path, data, mode="create")

    async def put_pointer(self, path: str, data: bytes) -> None:
        """Overwrites a small object that caches must ask about."""
        attributes = None if self._is_local else _POINTER  # folders have none
        with self._faults():
            await self._client.put_async(self._store, path, data, attributes=attributes)

    async def get(self, path: str) -> bytes | None:
        """An object, or None."""
        try:
            with self._faults():
                found = await self._client.get_async(self._store, path)
                return bytes(await found.bytes_async())
        except FileNotFoundError:
            return None

    async def listed(self, prefix: str) -> list[tuple[str, datetime]]:
        """The objects below a prefix, and when each was last written."""
        with self._faults():
            return [
                (found["path"], found["last_modified"])
                async for some in self._client.list(self._store, prefix=prefix)
                for found in some
            ]

    async def remove(self, paths: Sequence[str]) -> None:
        """Removes objects; those that are not there are no fault."""
        with self._faults(), suppress(FileNotFoundError):
            await self._client.delete_async(self._store, list(paths))

    async def remove_below(self, prefix: str) -> None:
        """Removes the objects below a prefix."""
        with self._faults():
            async for some in self._client.list(self._store, prefix=prefix):
                await self._client.delete_async(self._store, [found["path"] for found in some])

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Obstore's errors as Headwater's."""
        refused = self._client.exceptions
        try:
            yield
        except (refused.AlreadyExistsError, refused.PreconditionError) as error:
            raise LeaseLost(f"Another relay has written to {self.name!r}.") from error
        except FileNotFoundError:
            raise
        except (
            refused.PermissionDeniedError,
            refused.UnauthenticatedError,
            PermissionError,
        ) as error:
            raise StoreRefused(
                f"The store {self.name!r} refuses: {_first_line(error)}.",
                hint="The relay gets, puts, lists and deletes below the URL; readers get.",
            ) from error
        except (self._error, OSError) as error:
            is_full = "No space left on device" in str(error)
            what = "is full" if is_full else "cannot be used now"
            raise StoreUnavailable(
                f"The store {self.name!r} {what}: {_first_line(error)}.",
                hint="Its views go on by themselves once it can.",
            ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")
