"""The assembly: an app's events and views, and the services that run them.

Nothing here does I/O until the app is opened. Names that belong together are checked when the app is
built.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack, cast, overload

from psycopg import sql

from headwater.capture.replication import Replication
from headwater.commands import Accepted, Command, Decider, Over, Rejection
from headwater.commands.deciding import Request
from headwater.errors import (
    CommandDefinitionError,
    DefinitionError,
    SettingError,
    TenantMissing,
    UnknownView,
    ViewDefinitionError,
)
from headwater.events import Event, EventType, EventTypes
from headwater.log import Database, Fact, LogReader, SharedCommits, Token, Writer, Written
from headwater.log.database import Connection
from headwater.log.driver import (
    AsyncSession,
    BlockingSession,
    BlockingWriter,
    ForeignWriter,
    writer_on,
)
from headwater.log.registry import register
from headwater.log.writing import AppendOptions, Metadata, group_of
from headwater.operations.settings import Settings
from headwater.readers.feeds import FeedView
from headwater.readers.handles import D, FoldView, R, RowsView
from headwater.readers.reading import DEFAULT_TIMEOUT_SECONDS, Reader
from headwater.relay import OnFailure, Relay
from headwater.running import Running
from headwater.views import Fold, SqlView, StoredView
from headwater.views.derivation import Derivation, check_loops
from headwater.views.feed import Feed
from headwater.views.port import Status
from headwater.views.store import (
    DocumentsEngine,
    OutsideDocuments,
    OutsideRows,
    OutsideTables,
    RowsEngine,
    Store,
    TablesEngine,
    Transform,
    name_of,
)


class App:
    """One application's events and views over one log.

    ``tenant`` is for applications with a single tenant; others name it at each call. ``settings``
    default to the environment's.
    """

    def __init__(
        self,
        name: str,
        *,
        events: Iterable[type[Event]] = (),
        tenant: str | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.name = name
        self.events = EventTypes(events)
        self.tenant = tenant
        self._settings = settings
        self._folds: dict[str, FoldView[Any]] = {}
        self._rows: dict[str, RowsView[Any]] = {}
        self._feeds: dict[str, FeedView] = {}
        self._stores: dict[str, Store] = {}
        self._derivations: list[Derivation] = []
        self._deciders: dict[type[Command], Decider[Any]] = {}
        self._running: Running | None = None

    # Definitions ---------------------------------------------------------------------------------

    def fold(
        self,
        *,
        key: str,
        name: str | None = None,
        on_failure: OnFailure = "park",
        version: int = 1,
        store: Store | None = None,
    ) -> Callable[[Callable[..., D | None]], FoldView[D]]:
        """Declares a fold: ``def orders(state: Order, event: Placed | Voided) -> Order | None``.

        ``key`` names a field of every event that it reads; an event whose key is None concerns no
        document. A state of None removes the document. The function must depend on its arguments
        alone; raise ``version`` when code that it calls has changed. ``store`` is where the documents
        are; without one, in the log's database.
        """
        where = None if store is None else self._offered(store, "fold")

        def declare(evolve: Callable[..., D | None]) -> FoldView[D]:
            fold = Fold.of(
                evolve, name=name, key=key, on_failure=on_failure, version=version, store=where
            )
            return self.declare(fold, store)

        return declare

    def derive(
        self, view: FoldView[D], *, name: str | None = None, on_failure: OnFailure = "park"
    ) -> Callable[[Callable[..., Any]], FoldView[D]]:
        """Declares events that follow from a fold's changes: ``def large(before: Order, after: Order, event: Placed)``.

        The function returns events or commands, one or several, or None. It makes a view of its own, which
        folds as ``view`` does and appends what it derives, in one commit; a rebuild derives nothing again.
        Raises DefinitionError where a type of event would follow from itself.
        """
        if view.store is not None:
            raise ViewDefinitionError(
                f"The documents of {view.name!r} are in another store, and derived events are not.",
                hint="Derive from a fold in the log's database.",
            )

        def declare(derive: Callable[..., Any]) -> FoldView[D]:
            derivation = Derivation.of(derive, view.fold, name, self.decider)
            for event in derivation.derived:
                self.events.named(EventType.of(event).name)
            self._derivations.append(derivation)
            check_loops(self._derivations)
            fold = replace(view.fold, name=derivation.name, derive=derive, on_failure=on_failure)
            return self.declare(fold)

        return declare

    def declare(self, fold: Fold[D], store: Store | None = None) -> FoldView[D]:
        """Declares a fold that is made already."""
        for declared in fold.types:
            self.events.named(declared.name)
        self._unused(fold.name)
        view = FoldView(self, fold, store)
        self._folds[fold.name] = view
        return view

    def sql(
        self,
        name: str,
        *,
        sql: str | Path,
        row: type[R] | None = None,
        key: Sequence[str] | None = None,
        on_failure: OnFailure = "park",
        float_tolerance: float | None = None,
        store: Store | None = None,
    ) -> RowsView[R]:
        """Declares an incremental SQL view: a SELECT over event types as relations, or the path of one.

        ``key`` names the outputs that it groups by, ``row`` is a struct of all outputs; left out, both
        follow from the query, and rows have no types that a checker knows. Sums of floats
        depend on the batches' boundaries: cast to numeric, or declare a ``float_tolerance``.
        """
        self._unused(name)
        where = None if store is None else self._offered(store, "sql")
        text = sql.read_text() if isinstance(sql, Path) else sql
        view = SqlView.of(
            name=name,
            row=row,
            key=None if key is None else tuple(key),
            text=text,
            events=self.events,
            folds={view.name: view.fold for view in self._folds.values()},
            on_failure=on_failure,
            float_tolerance=float_tolerance,
            store=where,
        )
        for read in view.query.reads if view.query.over_documents else ():
            if self._folds[read].store is not None:
                raise ViewDefinitionError(
                    f"The view {name!r} reads the documents of {read!r}, which are in another store.",
                    hint="Read a fold in Postgres, or the events.",
                )
        handle: RowsView[R] = RowsView(self, view, store)
        self._rows[name] = handle
        return handle

    def feed(
        self,
        name: str,
        *,
        types: Sequence[type[Event]],
        store: Store,
        on_failure: OnFailure = "park",
    ) -> FeedView:
        """Declares a feed: events of these types, as they are, as typed rows in a store."""
        feed = Feed(name, tuple(types), self._offered(store, "feed"), on_failure)
        for declared in feed.types:
            self.events.named(declared.name)
        self._unused(name)
        view = FeedView(self, feed, store)
        self._feeds[name] = view
        return view

    def command(
        self, *over: FoldView[Any] | Over, name: str | None = None
    ) -> Callable[[Callable[..., Any]], Decider[Any]]:
        """Declares who decides on a command: ``def void(state: Order, command: Void) -> list[Voided]``.

        The function takes the state of each fold, over the command's stream or as ``over(...)`` says, then
        the command. It returns events, or a Rejection; it does no I/O, and runs again on a conflict.
        """
        sources = [one if isinstance(one, Over) else Over(one.fold) for one in over]

        def declare(decide: Callable[..., Any]) -> Decider[Any]:
            decider = Decider.of(decide, sources, name=name)
            for event in decider.events:
                self.events.named(EventType.of(event).name)
            if (other := self._deciders.get(decider.command)) is not None:
                raise CommandDefinitionError(
                    f"{other.name!r} and {decider.name!r} decide on {decider.command.__name__}.",
                    hint="One function decides on a command; make it two commands.",
                )
            self._deciders[decider.command] = decider
            return decider

        return declare

    def decider(self, command: type[Command]) -> Decider[Any]:
        """Who decides on a command. Raises CommandDefinitionError."""
        if (found := self._deciders.get(command)) is None:
            raise CommandDefinitionError(
                f"Nothing in the app {self.name!r} decides on {command.__name__}.",
                hint="Write a function under @app.command(...).",
            )
        return found

    def _offered(self, store: Store, transform: Transform) -> str:
        """The store's name in definitions. Raises ViewDefinitionError for what it does not offer."""
        if transform not in store.transforms:
            raise ViewDefinitionError(
                f"The store {store.name!r} ({store.kind}) does not run a {transform}.",
                hint=f"It runs {', '.join(sorted(store.transforms))}.",
            )
        if self._stores.setdefault(store.name, store) != store:
            raise DefinitionError(f"There are two stores {store.name!r}.", hint="Rename one.")
        return name_of(store)

    def _unused(self, name: str) -> None:
        if name in self.views:
            raise DefinitionError(f"There are two views {name!r}.", hint="Rename one.")

    @property
    def views(self) -> list[str]:
        """The names of the views, folds first."""
        return [*self._folds, *self._rows, *self._feeds]

    @property
    def readable(self) -> list[str]:
        """The names of the views that are read by key: all but feeds."""
        return [*self._folds, *self._rows]

    @property
    def feeds(self) -> list[FeedView]:
        """The feeds."""
        return list(self._feeds.values())

    # Running -------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        if self._settings is None:
            self._settings = Settings.from_environment()
        return self._settings

    async def __aenter__(self) -> Self:
        """Connects. Starts the embedded Postgres where no database is named."""
        running = Running(
            self.name,
            self.settings,
            self._stores,
            self._folds.values(),
            self._rows.values(),
            self._feeds.values(),
            self.decider,
        )
        try:
            await running.open()
        except BaseException:
            await running.close()
            raise
        self._running = running
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        running, self._running = self._running, None
        if running is not None:
            await running.close()

    @property
    def _open(self) -> Running:
        if self._running is None:
            raise SettingError(
                "The app is not open.", hint="Use `async with app:` around what needs it."
            )
        return self._running

    @asynccontextmanager
    async def lifespan(self, _service: object = None) -> AsyncIterator[None]:
        """The app open for as long as a web service lives: ``FastAPI(lifespan=app.lifespan)``."""
        async with self:
            yield

    async def deploy(self) -> dict[str, Status]:
        """Registers the event types and creates missing views; returns what each view was before.

        Needs the operator's and the relay's role. Stale views are left as they are.
        """
        running = self._open
        operator = running.database("headwater_operator")
        await operator.open()
        await register(operator, self.events)
        await running.database("headwater_relay").open()
        return {name: await view.deploy() for name, view in running.stored.items()}

    @asynccontextmanager
    async def relay(self, *views: str) -> AsyncIterator[Relay]:
        """Drives the views, or those named, until the end of the block."""
        running = self._open
        await running.database("headwater_relay").open()
        # Of its own: a view that an operator rebuilds meanwhile learns another generation.
        driven = running.views()
        targets = [driven[self.stored(name).name] for name in views or running.stored]
        relay = Relay(running.database("headwater_relay"), targets)
        await relay.start()
        try:
            async with self.replicating():
                yield relay
        finally:
            await relay.stop()

    @asynccontextmanager
    async def replicating(self) -> AsyncIterator[Replication]:
        """Reads the slot of tables captured by replication, where there are any, until the end of the block."""
        replication = self._open.replication()
        await replication.start()
        try:
            yield replication
        finally:
            await replication.stop()

    @property
    def replication_url(self) -> str:
        """The URL for the login that reads the slot of tables captured by replication."""
        return self._open.replication_url

    def stored(self, view: str) -> StoredView:
        """A view in its store, for operations. Raises UnknownView."""
        if (found := self._open.stored.get(view)) is None:
            raise UnknownView(
                f"The app {self.name!r} has no view {view!r}.",
                hint=f"It has {', '.join(self.views) or 'none'}.",
            )
        return found

    def documents(self, store: Store) -> OutsideDocuments:
        """Folds' documents in a store other than Postgres."""
        engine = cast("DocumentsEngine", self._open.engines[store.name])
        return engine.documents

    def rows(self, store: Store) -> OutsideRows:
        """Feeds' rows in a store."""
        return cast("RowsEngine", self._open.engines[store.name]).rows

    def tables(self, store: Store) -> OutsideTables:
        """SQL views in a store other than Postgres."""
        return cast("TablesEngine", self._open.engines[store.name]).tables

    @property
    def reader(self) -> Reader:
        """Reads views at least at a token."""
        return self._open.reader

    @property
    def log(self) -> LogReader:
        """Reads the log in order, as the application: one tenant at a time."""
        return LogReader(self._open.database("headwater_app"), self.events)

    @property
    def commits(self) -> SharedCommits:
        """Appends groups that are made already, in commits that callers share."""
        return self._open.commits

    def view(self, name: str) -> FoldView[Any] | RowsView[Any]:
        """A view as readers use it. Raises UnknownView."""
        if (found := self._folds.get(name) or self._rows.get(name)) is None:
            raise UnknownView(
                f"The app {self.name!r} has no view {name!r}.",
                hint=f"It has {', '.join(self.views) or 'none'}.",
            )
        return found

    def database(self, role: str = "headwater_app") -> Database:
        """A pool of connections in one role."""
        return self._open.database(role)

    # Writing -------------------------------------------------------------------------------------

    def tenant_of(self, tenant: str | None) -> str:
        """The tenant named, or the app's only one. Raises TenantMissing."""
        if (whose := tenant if tenant is not None else self.tenant) is None:
            raise TenantMissing(hint="Pass tenant=..., or give App(...) its only tenant.")
        return whose

    @overload
    def on(self, connection: AsyncSession, tenant: str | None = None) -> Writer | ForeignWriter: ...
    @overload
    def on(self, connection: BlockingSession, tenant: str | None = None) -> BlockingWriter: ...
    def on(self, connection: object, tenant: str | None = None) -> object:
        """Appends inside the transaction of the application's own connection or session.

        Takes those of psycopg, asyncpg, SQLAlchemy (``append`` is awaited where they are asynchronous)
        and Django. Raises TransactionMissing where none is open.
        """
        return writer_on(connection, self.tenant_of(tenant))

    @asynccontextmanager
    async def transaction(self, tenant: str | None = None) -> AsyncIterator[Transaction]:
        """A transaction on one of the app's own connections, for its tables and its facts."""
        whose = self.tenant_of(tenant)
        async with self._open.database("headwater_app").transaction(whose) as connection:
            yield Transaction(connection, whose)

    async def append(
        self,
        *events: Event | Fact,
        tenant: str | None = None,
        **options: Unpack[AppendOptions],
    ) -> Written:
        """Appends events that stand or fall together, in a commit that callers share.

        ``expect`` is the version of the first event's stream before the append; 0 means a new stream.
        Raises AppendRefused: VersionConflict, InvalidEvent, IdempotencyKeyReused and others.
        """
        return await self._open.commits.append(group_of(self.tenant_of(tenant), events, **options))

    async def do(
        self,
        command: Command,
        *,
        tenant: str | None = None,
        metadata: Metadata | None = None,
        idempotency_key: str | None = None,
    ) -> Accepted | Rejection:
        """Decides on a command and appends what was decided; again where what it looked at has changed.

        Under an idempotency key the same command is done once, and answered with where its events are.
        Raises CommandDefinitionError, VersionConflict or DecisionOutdated after 20 conflicts,
        IdempotencyKeyReused, StateUnreadable, and what ``append`` raises.
        """
        decider = self.decider(type(command))
        request = Request(command, self.tenant_of(tenant), metadata, idempotency_key)
        return await self._open.deciding.do(decider, request)

    async def query(
        self,
        statement: str,
        parameters: dict[str, Any] | None = None,
        *,
        views: Sequence[FoldView[Any] | RowsView[Any]],
        tenant: str | None = None,
        at_least: Token | str | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    ) -> list[dict[str, Any]]:
        """The rows of a SELECT over views (``headwater_views.NAME``), each at least at the token.

        Read-only, for one tenant. ``views`` are those it reads, in Postgres.
        """
        for view in views:
            if view.store is not None:
                raise DefinitionError(
                    f"The view {view.name!r} is in another store.", hint="Use its get and list."
                )
        columns, rows = await self.reader.rows(
            sql.SQL(cast("Any", statement)),
            parameters or {},
            views=[view.name for view in views],
            tenant=self.tenant_of(tenant),
            at_least=at_least,
            timeout_seconds=timeout_seconds,
        )
        return [dict(zip(columns, row, strict=True)) for row in rows]


class Transaction(Writer):
    """A writer that also runs the application's own statements."""

    def __init__(self, connection: Connection, tenant: str) -> None:
        super().__init__(connection, tenant)
        self.connection = connection


__all__ = ["App", "FeedView", "FoldView", "RowsView", "Transaction"]
