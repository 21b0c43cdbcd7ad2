"""Reads of what a fold keeps beside its documents, each with 'at least this token'."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, Generic, Protocol, TypeVar, cast

from headwater.errors import DefinitionError
from headwater.readers.reading import Reader
from headwater.views import Document, Fold
from headwater.views.documents import IndexedDocuments, OutsideDocuments
from headwater.views.indexes import Counter, Distinct, Places, Ranking, chosen
from headwater.views.storage import Place
from headwater.views.store import Store

D = TypeVar("D", bound=Document)
T = TypeVar("T")

MOST_KEYS = 1_000
MOST_COUNTED = 100


class Installation(Protocol):
    """What reading indexes needs of an open app."""

    @property
    def reader(self) -> Reader:
        """Reads views at least at a token."""
        ...

    def tenant_of(self, tenant: str | None) -> str:
        """The tenant named, or the app's only one."""
        ...

    def documents(self, store: Store) -> OutsideDocuments:
        """Folds' documents in another store."""
        ...


class IndexReads(Generic[D]):
    """The reads of a fold's indexes. All raise as ``get`` does, and DefinitionError for an index not declared.

    A field's name says which index is meant where the fold has several of a kind.
    """

    _app: Any
    fold: Fold[D]
    store: Store | None

    async def leaders(
        self,
        limit: int = 10,
        *,
        by: str | None = None,
        tenant: str | None = None,
        at_least: str | None = None,
        timeout_seconds: float | None = None,
    ) -> list[tuple[str, float]]:
        """The keys of a Ranking with the highest scores, and these; equal ones in descending order of keys."""
        index: Ranking = chosen(self.fold.name, self.fold.indexes, Ranking, by)
        whose = self._app.tenant_of(tenant)
        stored, limit = self._indexed(), _bounded("limit", limit, MOST_KEYS)
        return await self._read(
            lambda place: stored.leaders(place, index, whose, limit),
            whose, None, at_least, timeout_seconds,
        )  # fmt: skip

    async def rank(
        self,
        key: object,
        *,
        by: str | None = None,
        tenant: str | None = None,
        at_least: str | None = None,
        timeout_seconds: float | None = None,
    ) -> int | None:
        """A key's place in a Ranking, 1 for the first, or None where it is not in it."""
        index: Ranking = chosen(self.fold.name, self.fold.indexes, Ranking, by)
        whose, stored = self._app.tenant_of(tenant), self._indexed()
        return await self._read(
            lambda place: stored.rank(place, index, (whose, str(key))),
            whose, str(key), at_least, timeout_seconds,
        )  # fmt: skip

    async def count(
        self,
        *keys: object,
        of: str | None = None,
        tenant: str | None = None,
        at_least: str | None = None,
        timeout_seconds: float | None = None,
    ) -> dict[str, Decimal]:
        """A Counter's numbers of at most 1,000 keys, without those that have none."""
        index: Counter = chosen(self.fold.name, self.fold.indexes, Counter, of)
        whose, stored = self._app.tenant_of(tenant), self._indexed()
        named = _keys(keys, MOST_KEYS)
        found = await self._read(
            lambda place: stored.counts(place, index, whose, named),
            whose, _only(named), at_least, timeout_seconds,
        )  # fmt: skip
        pairs = zip(named, found, strict=True)
        return {key: Decimal(number) for key, number in pairs if number is not None}

    async def distinct(
        self,
        *keys: object,
        of: str | None = None,
        tenant: str | None = None,
        at_least: str | None = None,
        timeout_seconds: float | None = None,
    ) -> int:
        """About how many different values at most 100 keys have had together, by a Distinct."""
        index: Distinct = chosen(self.fold.name, self.fold.indexes, Distinct, of)
        whose, stored = self._app.tenant_of(tenant), self._indexed()
        named = _keys(keys, MOST_COUNTED)
        return await self._read(
            lambda place: stored.distinct(place, index, whose, named),
            whose, _only(named), at_least, timeout_seconds,
        )  # fmt: skip

    async def near(
        self,
        longitude: float,
        latitude: float,
        metres: float,
        *,
        limit: int = 100,
        by: str | None = None,
        tenant: str | None = None,
        at_least: str | None = None,
        timeout_seconds: float | None = None,
    ) -> list[tuple[str, float]]:
        """The nearest keys of Places within a distance of a point in degrees, and theirs in metres."""
        index: Places = chosen(self.fold.name, self.fold.indexes, Places, by)
        if not (-180 <= longitude <= 180 and abs(latitude) <= 85.05112878 and metres >= 0):
            raise DefinitionError(
                f"{longitude}, {latitude} within {metres} metres is no place on the map.",
                hint="Longitude is within 180 degrees, latitude within 85.05112878.",
            )
        whose, stored = self._app.tenant_of(tenant), self._indexed()
        limit = _bounded("limit", limit, MOST_KEYS)
        return await self._read(
            lambda place: stored.near(place, index, whose, (longitude, latitude), metres, limit),
            whose, None, at_least, timeout_seconds,
        )  # fmt: skip

    def _indexed(self) -> IndexedDocuments:
        assert self.store is not None  # folds in the log's database are declared without indexes
        return cast("IndexedDocuments", self._app.documents(self.store))

    async def _read(
        self,
        read: Callable[[Place], Awaitable[tuple[int, T]]],
        tenant: str,
        key: str | None,
        at_least: str | None,
        timeout_seconds: float | None,
    ) -> T:
        app = cast("Installation", self._app)
        return await app.reader.outside(
            read,
            view=self.fold.name,
            tenant=tenant,
            at_least=at_least,
            timeout_seconds=timeout_seconds,
            key=key,
        )


def _keys(keys: tuple[object, ...], most: int) -> list[str]:
    _bounded("number of keys", len(keys), most)
    return [str(key) for key in keys]


def _only(keys: list[str]) -> str | None:
    """The key whose parked events matter; for several, all of the tenant's do."""
    return keys[0] if len(keys) == 1 else None


def _bounded(what: str, number: int, most: int) -> int:
    if not 1 <= number <= most:
        raise DefinitionError(f"The {what} is {number}.", hint=f"Ask for 1 to {most} at once.")
    return number
