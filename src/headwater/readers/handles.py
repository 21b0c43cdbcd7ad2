"""Views as an application reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, cast

import msgspec
from psycopg import sql

from headwater.errors import DefinitionError
from headwater.log import Database
from headwater.readers.history import History
from headwater.readers.indexes import IndexReads
from headwater.readers.reading import Reader
from headwater.readers.series import SeriesReads
from headwater.views import Document, Fold, SqlView, StoredView
from headwater.views.batches import OutsideTables
from headwater.views.documents import OutsideDocuments
from headwater.views.storage import Place
from headwater.views.store import Store

D = TypeVar("D", bound=Document)
R = TypeVar("R", bound=msgspec.Struct)


class Installation(Protocol):
    """What reading needs of an open app."""

    @property
    def reader(self) -> Reader:
        """Reads views at least at a token."""
        ...

    def database(self) -> Database:
        """The pool of connections in the application's role."""
        ...

    def tenant_of(self, tenant: str | None) -> str:
        """The tenant named, or the app's only one."""
        ...

    def stored(self, view: str) -> StoredView:
        """A view in its store."""
        ...

    def documents(self, store: Store) -> OutsideDocuments:
        """Folds' documents in another store."""
        ...

    def tables(self, store: Store) -> OutsideTables:
        """SQL views in another store."""
        ...


class FoldView(IndexReads[D]):
    """A fold of an app: its definition, and how its documents are read."""

    def __init__(self, app: Installation, fold: Fold[D], store: Store | None = None) -> None:
        self._app = app
        self.fold = fold
        self.store = store

    @property
    def name(self) -> str:
        """The view's name."""
        return self.fold.name

    @property
    def history(self) -> History[D]:
        """Its documents as they were, and what would have been."""
        return History(self._app, self.fold)

    async def get(
        self,
        key: object,
        *,
        tenant: str | None = None,
        at_least: str | None = None,
        timeout_seconds: float | None = None,
    ) -> D | None:
        """The document of a key, or None where there is none.

        With a token it is at least as new as the write that returned it. Raises NotCaughtUp,
        KeyParked, TokenError, and StoreUnavailable where the view is in another store.
        """
        if self.store is not None:
            place = (self._app.tenant_of(tenant), str(key))
            documents = self._app.documents(self.store)
            stored = await self._app.reader.outside(
                lambda where: documents.get(where, place),
                view=self.name,
                tenant=place[0],
                at_least=at_least,
                timeout_seconds=timeout_seconds,
                key=place[1],
            )
            return None if stored is None else self._row([stored])
        _, rows = await self._app.reader.rows(
            sql.SQL(
                "SELECT document::text FROM {} WHERE tenant = %(tenant)s AND key = %(key)s"
            ).format(sql.Identifier("headwater_views", self.name)),
            {"tenant": self._app.tenant_of(tenant), "key": str(key)},
            views=[self.name],
            tenant=self._app.tenant_of(tenant),
            at_least=at_least,
            timeout_seconds=timeout_seconds,
            key=str(key),
        )
        return self._row(rows[0]) if rows else None

    async def list(
        self,
        *,
        tenant: str | None = None,
        at_least: str | None = None,
        timeout_seconds: float | None = None,
        after: str = "",
        limit: int = 100,
    ) -> list[tuple[str, D]]:
        """A page of keys and documents in the order of keys, after a key."""
        whose = self._app.tenant_of(tenant)
        if self.store is not None:
            documents = self._app.documents(self.store)
            page = await self._app.reader.outside(
                lambda where: documents.page(where, whose, after, limit),
                view=self.name,
                tenant=whose,
                at_least=at_least,
                timeout_seconds=timeout_seconds,
            )
            return [(key, self._row([stored])) for key, stored in page]
        _, rows = await self._app.reader.rows(
            sql.SQL(
                "SELECT key, document::text FROM {} WHERE tenant = %(tenant)s AND key > %(after)s "
                "ORDER BY key LIMIT %(limit)s"
            ).format(sql.Identifier("headwater_views", self.name)),
            {"tenant": whose, "after": after, "limit": limit},
            views=[self.name],
            tenant=whose,
            at_least=at_least,
            timeout_seconds=timeout_seconds,
        )
        return [(row[0], self._row(row[1:])) for row in rows]

    def _row(self, row: Sequence[Any]) -> D:
        return cast("D", self._app.stored(self.name).row_of(row))


class RowsView(SeriesReads[R]):
    """A SQL view of an app: its definition, and how its rows are read."""

    def __init__(
        self,
        app: Installation,
        view: SqlView,
        store: Store | None = None,
        bucket: str | None = None,
    ) -> None:
        self._app: Installation = app
        self.view = view
        self.store = store
        self.bucket = bucket

    @property
    def name(self) -> str:
        """The view's name."""
        return self.view.name

    @property
    def storage(self) -> OutsideTables | None:
        """What holds its rows outside Postgres."""
        return None if self.store is None else self._app.tables(self.store)

    async def get(
        self,
        *key: object,
        tenant: str | None = None,
        at_least: str | None = None,
        timeout_seconds: float | None = None,
    ) -> R | None:
        """The row of a key, its parts in the order of the view's key, or None where there is none."""
        names = self.view.query.key
        if len(key) != len(names):
            raise DefinitionError(
                f"The view {self.name!r} has the key ({', '.join(names)}), not {len(key)} values.",
                hint="Pass one value for each part.",
            )
        whose = self._app.tenant_of(tenant)
        if self.store is not None:
            wanted = dict(zip(names, key, strict=True))
            found = await self._elsewhere(whose, wanted, 1, at_least, timeout_seconds)
            return self._row(found[0]) if found else None
        parameters = {f"key_{n}": value for n, value in enumerate(key, start=1)} | {"tenant": whose}
        conditions = [
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(f"key_{n}"))
            if parameters[f"key_{n}"] is not None
            else sql.SQL("{} IS NULL").format(sql.Identifier(name))
            for n, name in enumerate(names, start=1)
        ]
        _, rows = await self._app.reader.rows(
            sql.SQL("SELECT {} FROM {} WHERE {}").format(
                self._columns,
                self._identifier,
                sql.SQL(" AND ").join([sql.SQL("tenant = %(tenant)s"), *conditions]),
            ),
            parameters,
            views=[self.name],
            tenant=whose,
            at_least=at_least,
            timeout_seconds=timeout_seconds,
            key=None if at_least is None else await self._group(parameters),
        )
        return self._row(rows[0]) if rows else None

    async def _elsewhere(
        self,
        tenant: str,
        key: dict[str, object],
        limit: int,
        at_least: str | None,
        timeout_seconds: float | None,
    ) -> Sequence[Sequence[Any]]:
        """Rows in another store. With a token an event that is parked for the tenant refuses them all."""
        assert self.store is not None
        tables = self._app.tables(self.store)
        outputs = [output.name for output in self.view.query.outputs]

        async def read(place: Place) -> tuple[int, Sequence[Sequence[Any]]]:
            return await tables.read(place, tenant, outputs, key, limit)

        return await self._app.reader.outside(
            read,
            view=self.name,
            tenant=tenant,
            at_least=at_least,
            timeout_seconds=timeout_seconds,
        )

    async def _group(self, parameters: dict[str, Any]) -> str:
        """A key as parked events name it; the view's own columns say of what type its parts are."""
        names = [sql.Identifier("tenant"), *map(sql.Identifier, self.view.query.key)]
        places = [
            sql.Placeholder("tenant"),
            *(sql.Placeholder(f"key_{n}") for n in range(1, len(names))),
        ]
        statement = sql.SQL(
            "SELECT jsonb_build_array({names})::text FROM (SELECT {names} FROM {view} WHERE false "
            "UNION ALL SELECT {places}) AS one"
        ).format(
            names=sql.SQL(", ").join(names),
            view=self._identifier,
            places=sql.SQL(", ").join(places),
        )
        async with self._app.database().connection() as connection:
            row = await (await connection.execute(statement, parameters)).fetchone()
        assert row is not None
        text: str = row[0]
        return text

    @property
    def _identifier(self) -> sql.Identifier:
        return sql.Identifier("headwater_views", self.name)

    @property
    def _columns(self) -> sql.Composed:
        return sql.SQL(", ").join(sql.Identifier(output.name) for output in self.view.query.outputs)

    def _row(self, values: Sequence[Any]) -> R:
        return cast("R", self._app.stored(self.name).row_of(values))

    async def list(
        self,
        *,
        tenant: str | None = None,
        at_least: str | None = None,
        timeout_seconds: float | None = None,
        limit: int = 1000,
    ) -> list[R]:
        """The rows in the order of the view's key."""
        whose = self._app.tenant_of(tenant)
        if self.store is not None:
            every: dict[str, object] = dict.fromkeys(self.view.query.key, ...)
            found = await self._elsewhere(whose, every, limit, at_least, timeout_seconds)
            return [self._row(row) for row in found]
        order = self.view.query.key or ("tenant",)
        _, rows = await self._app.reader.rows(
            sql.SQL(
                "SELECT {} FROM {} WHERE tenant = %(tenant)s ORDER BY {} LIMIT %(limit)s"
            ).format(
                self._columns, self._identifier, sql.SQL(", ").join(map(sql.Identifier, order))
            ),
            {"tenant": whose, "limit": limit},
            views=[self.name],
            tenant=whose,
            at_least=at_least,
            timeout_seconds=timeout_seconds,
        )
        return [self._row(row) for row in rows]
