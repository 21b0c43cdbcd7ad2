"""Feeds as an application finds them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar, cast

from headwater.readers.reading import Reader
from headwater.views.batches import OutsideRows, Queryable, StoredFile
from headwater.views.feed import Feed
from headwater.views.storage import Place
from headwater.views.store import Store

T = TypeVar("T")


class Installation(Protocol):
    """What finding a feed's rows needs of an open app."""

    @property
    def reader(self) -> Reader:
        """Reads views at least at a token."""
        ...

    def rows(self, store: Store) -> OutsideRows:
        """Feeds' rows in a store."""
        ...


class FeedView:
    """A feed of an app: its definition, and where its rows are."""

    def __init__(self, app: Installation, feed: Feed, store: Store) -> None:
        self._app = app
        self.feed = feed
        self.store = store

    @property
    def name(self) -> str:
        """The feed's name."""
        return self.feed.name

    @property
    def storage(self) -> OutsideRows:
        """What holds its rows."""
        return self._app.rows(self.store)

    async def files(
        self,
        *,
        type: str | None = None,  # noqa: A002 - the word users write
        at_least: str | None = None,
        timeout_seconds: float | None = None,
    ) -> list[tuple[str, StoredFile]]:
        """The files of the feed, or of one event type, the oldest first: each one's URL and what it holds.

        They hold all tenants' rows. Raises NotCaughtUp, TokenError and StoreUnavailable.
        """
        rows = self._app.rows(self.store)

        async def read(place: Place) -> tuple[int, list[tuple[str, StoredFile]]]:
            position, files = await rows.files(place)
            wanted = (file for file in files if type in {None, file.type})
            return position, [(rows.locate(place, file), file) for file in wanted]

        return await self._read(read, at_least, timeout_seconds)

    async def tables(
        self,
        *,
        tenant: str | None = None,
        at_least: str | None = None,
        timeout_seconds: float | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """The feed's position and a dataset for each event type, all of one manifest.

        For stores that queries run over. Raises as ``files`` does, and QueryRefused.
        """
        rows = cast("Queryable", self._app.rows(self.store))

        async def read(place: Place) -> tuple[int, tuple[int, dict[str, Any]]]:
            position, files = await rows.files(place)
            tables = {
                name: rows.table(place, [f for f in files if f.type == name], columns, tenant)
                for name, columns in self.feed.columns.items()
            }
            return position, (position, tables)

        return await self._read(read, at_least, timeout_seconds)

    async def _read(
        self,
        read: Callable[[Place], Awaitable[tuple[int, T]]],
        at_least: str | None,
        timeout_seconds: float | None,
    ) -> T:
        return await self._app.reader.outside(
            read,
            view=self.name,
            tenant="",
            at_least=at_least,
            timeout_seconds=timeout_seconds,
        )
