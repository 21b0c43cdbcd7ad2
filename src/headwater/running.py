"""What an open app holds: the server of its log, pools, engines, and its views in their stores."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, cast

from headwater.capture.replication import Replication
from headwater.commands import Deciding
from headwater.log import Database, SharedCommits
from headwater.operations.sampling import LONGEST_SECONDS, Sampler
from headwater.operations.settings import Settings
from headwater.personal import PersonalData
from headwater.readers.feeds import FeedView
from headwater.readers.handles import FoldView, RowsView
from headwater.readers.reading import Reader
from headwater.receiving import Inbox
from headwater.receiving.driven import DrivenInbox
from headwater.receiving.port import IncomingMessages
from headwater.sagas.view import NAME as SAGAS
from headwater.sagas.view import SagasView
from headwater.stores.postgres.derived import DeciderOf
from headwater.stores.views import stored_views
from headwater.views import StoredView
from headwater.views.publication import Publication
from headwater.views.store import Embeddable, Engine, Store


class Running:
    """An app from when it is opened until it is closed."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        stores: Mapping[str, Store],
        folds: Collection[FoldView[Any]],
        rows: Collection[RowsView[Any]],
        feeds: Collection[FeedView],
        publications: Collection[tuple[Publication, Store]],
        decider_of: DeciderOf,
        inboxes: Collection[tuple[Inbox, Store]] = (),
        *,
        has_sagas: bool = False,
    ) -> None:
        self._name = name
        self._settings = settings
        self._stores = stores
        self._defined = folds, rows, feeds, publications
        self._decider_of = decider_of
        self._inboxes = inboxes
        self._has_sagas = has_sagas
        self._server = settings.server()
        self._databases: dict[str, Database] = {}
        self.stored: dict[str, StoredView] = {}
        self.engines: dict[str, Engine] = {}

    async def open(self) -> None:
        """Connects; makes the engines of the app's stores, which connect when first used."""
        urls = self._settings.stores
        for name, store in self._stores.items():
            url = urls.get(name.lower(), "")
            if not url and isinstance(store, Embeddable):
                url = store.embedded_url(self._settings.home)
            self.engines[name] = store.engine(url)
        await self._server.open()
        app_database = self.database("headwater_app")
        await app_database.open()
        self.reader = Reader(app_database, [inbox.name for inbox, _ in self._inboxes])
        self.commits = SharedCommits(app_database)
        await self.commits.start()
        self.personal = PersonalData(self._settings, self._pool("headwater_app", "keys", 2))
        self.deciding = Deciding(app_database, self.commits, self.personal.seal)
        self.stored = self.views()

    def views(self, relay: Database | None = None) -> dict[str, StoredView]:
        """The views in their stores, as objects that share no state with others."""
        database = relay or self.database("headwater_relay")
        views = stored_views(
            database, self.engines, *self._defined, self._decider_of, self.personal
        )
        if self._has_sagas:
            views[SAGAS] = SagasView(database)
        return views

    def inboxes(self) -> dict[str, DrivenInbox]:
        """What the relay drives to receive, as objects that share no state with others."""
        relay = self.database("headwater_relay")
        driven = (
            DrivenInbox(
                relay, inbox, cast("IncomingMessages", cast("Any", self.engines[bus.name]).messages)
            )
            for inbox, bus in self._inboxes
        )
        return {one.name: one for one in driven}

    def sampler(self, names: Collection[str]) -> Sampler:
        """What compares samples of these views with the log.

        Not SQL views in another store, whose groups are copied whole to be compared, nor what wakes sagas.
        """
        database = Database(
            self._server.url, "headwater_relay", name=f"headwater {self._name} sampler",
            max_size=3, statement_seconds=LONGEST_SECONDS,
        )  # fmt: skip
        self._databases["sampler"] = database
        views = {
            name: view
            for name, view in self.views(database).items()
            if name in names
            and name != SAGAS
            and not (view.definition.kind == "sql" and "store" in view.definition.content)
        }
        return Sampler(database, views, self._settings.verify_every_seconds)

    async def close(self) -> None:
        """Lets go of everything. Idempotent."""
        if hasattr(self, "deciding"):
            await self.deciding.close()
        if hasattr(self, "commits"):
            await self.commits.stop()
            await self.reader.close()
        for database in self._databases.values():
            await database.close()
        for engine in self.engines.values():
            await engine.close()
        await self._server.close()

    def replication(self) -> Replication:
        """The reader of captures by replication."""
        return Replication(
            self.database("headwater_relay"),
            self._server.replication_url,
            self._settings.replication_max_wal_bytes,
        )

    @property
    def replication_url(self) -> str:
        """The URL for the login that reads the slot."""
        return self._server.replication_url

    def database(self, role: str) -> Database:
        """A pool of connections in one role."""
        return self._pool(role, "", self._settings.pool_size)

    def _pool(self, role: str, purpose: str, size: int) -> Database:
        if (known := self._databases.get(role + purpose)) is None:
            name = f"headwater {self._name} {purpose}".strip()
            known = Database(self._server.url, cast("Any", role), name=name, max_size=size)
            self._databases[role + purpose] = known
        return known
