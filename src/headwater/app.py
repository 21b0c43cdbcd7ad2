"""The assembly: an app's events and views, and the services that run them.

Nothing here does I/O until the app is opened. Names that belong together are checked when the app is
built.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, cast, overload

import psycopg
from psycopg import sql

from headwater.capture.replication import Replication
from headwater.commands import Accepted, Command, Rejection
from headwater.commands.deciding import Deciding, Request
from headwater.definitions import Definitions
from headwater.errors import (
    DefinitionError,
    HeadwaterError,
    LeaseLost,
    SettingError,
    TenantMissing,
    UnknownView,
)
from headwater.events import Event
from headwater.examined import facts_of
from headwater.jobs import Service, Work
from headwater.jobs.alerts.alerting import Alerting
from headwater.jobs.operating import Jobs, register_queue
from headwater.jobs.outgoing.operating import Outgoing
from headwater.jobs.outgoing.webhooks import Dispatcher
from headwater.jobs.scheduler import Scheduler
from headwater.log import Database, Fact, LogReader, SharedCommits, Token, Writer, Written
from headwater.log.database import Connection
from headwater.log.driver import (
    AsyncSession,
    BlockingSession,
    BlockingWriter,
    ForeignWriter,
    writer_on,
)
from headwater.log.enqueuing import Enqueue, Enqueued, JobOptions, at_once
from headwater.log.registry import register
from headwater.log.tasks import ended
from headwater.log.writing import AppendOptions, Metadata, Seal, enqueue, group_of
from headwater.operations.settings import Settings
from headwater.personal import Forgetting
from headwater.readers.feeds import FeedView
from headwater.readers.handles import FoldView, RowsView
from headwater.readers.reading import DEFAULT_TIMEOUT_SECONDS, Reader
from headwater.relay import Pace, Relay
from headwater.running import Running
from headwater.views import StoredView
from headwater.views.batches import OutsideRows, OutsideTables
from headwater.views.documents import OutsideDocuments
from headwater.views.driving.rebuilding import Rebuild
from headwater.views.driving.view import DrivenView
from headwater.views.port import Status
from headwater.views.store import DocumentsEngine, RowsEngine, Store, TablesEngine

T = TypeVar("T")
_log = logging.getLogger("headwater")


class App(Definitions):
    """One application's events and views over one log.

    ``tenant`` is for applications with a single tenant; others name it at each call. ``settings``
    default to the environment's. With ``rebuild_stale`` a relay that starts rebuilds, beside the live ones, the
    views whose definition has changed.
    """

    def __init__(
        self,
        name: str,
        *,
        events: Iterable[type[Event]] = (),
        tenant: str | None = None,
        settings: Settings | None = None,
        rebuild_stale: bool = False,
    ) -> None:
        super().__init__(name, events)
        self.rebuild_stale = rebuild_stale
        self.tenant = tenant
        self._settings = settings
        self._running: Running | None = None

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
        async with operator.transaction() as connection:
            for queue in self.queues.values():
                await register_queue(connection, queue)
        await self.scheduler.deploy(operator)
        await self.alerting.deploy(operator)
        await running.database("headwater_relay").open()
        await self._hold_to_the_ledger()
        return {name: await view.deploy() for name, view in running.stored.items()}

    @asynccontextmanager
    async def relay(self, *views: str) -> AsyncIterator[Relay]:
        """Drives the views, or those named, until the end of the block."""
        running = self._open
        await running.database("headwater_relay").open()
        await self._hold_to_the_ledger()
        # Of its own: a view that an operator rebuilds meanwhile learns another generation.
        driven = running.views()
        targets = [driven[self.stored(name).name] for name in views or running.stored]
        relay = Relay(running.database("headwater_relay"), targets)
        sampler = running.sampler([target.name for target in targets])
        await relay.start()
        await sampler.start()
        names = [target.name for target in targets] if self.rebuild_stale else []
        rebuilding = asyncio.create_task(self._rebuild_stale(names), name="rebuilding")
        try:
            async with self.replicating():
                yield relay
        finally:
            await ended([rebuilding])
            await sampler.stop()
            await relay.stop()

    async def _rebuild_stale(self, names: Sequence[str]) -> None:
        """Rebuilds the views that are stale now. Only at the start: two versions would undo each other's work."""
        for name in names:
            try:
                if await self.stored(name).status() != "stale":
                    continue
                if (rebuild := self.rebuilding(name, say=_log.info)) is None:
                    _log.warning(
                        "%s is stale, and cannot be rebuilt beside itself: run headwater rebuild",
                        name,
                    )
                    continue
                verified = await rebuild.run()
                _log.warning("%s was stale and is rebuilt: %s", name, verified and verified.summary)
            except LeaseLost:
                _log.info("%s is being rebuilt by another process", name)
            except (HeadwaterError, psycopg.Error) as error:
                _log.warning("%s is stale, and its rebuild failed: %s", name, error)

    @asynccontextmanager
    async def working(self, *queues: str, lease_seconds: float = 15.0) -> AsyncIterator[Work]:
        """Runs the jobs of the queues, or of those named, and schedules, until the end of the block.

        Then it takes no more, waits up to 30 seconds for those under way, and gives back the rest.
        """
        for name in queues:
            self._queue(name)
        running = self._open
        await running.database("headwater_relay").open()
        work = Work(
            running.database("headwater_app"),
            running.database("headwater_relay"),
            [self.queues[name] for name in queues or self.queues],
            self.jobs,
            self._beside_jobs(),
            lease_seconds=lease_seconds,
        )
        await work.start()
        try:
            yield work
        finally:
            await work.stop()

    @property
    def jobs_now(self) -> Jobs:
        """Queues, jobs and dead letters, as an operator sees and changes them."""
        return Jobs(self._open.database("headwater_operator"))

    def _beside_jobs(self) -> list[Service]:
        """What makes jobs, beside the queues."""
        services: list[Service] = [self.scheduler] if self.schedules else []
        if self.alerts:
            services.append(self.alerting)
        if self.outgoing is not None:
            services.append(Dispatcher(self._open.database("headwater_relay"), self.outgoing))
        return services

    @property
    def alerting(self) -> Alerting:
        """What looks at the alerts."""
        relay = self._open.database("headwater_relay")
        return Alerting(relay, self.alerts, lambda: facts_of(self), self.told)

    @property
    def outgoing_now(self) -> Outgoing:
        """Endpoints and alerts, as an operator sees and changes them."""
        return Outgoing(self._open.database("headwater_operator"))

    @property
    def scheduler(self) -> Scheduler:
        """What enqueues the runs of schedules."""
        relay = self._open.database("headwater_relay")
        return Scheduler(relay, list(self.schedules.values()), self.tenant)

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

    def rebuilding(
        self, view: str, *, share: float = 0.5, say: Callable[[str], None] = lambda _: None
    ) -> Rebuild | None:
        """A rebuild of a view beside the one that is read; None where it can only start over in place.

        ``share`` is the part of the time that batches may take; the settings' backfill window, rate and lag hold.
        ``say`` hears when it pauses. Needs the relay's role. Raises UnknownView.
        """
        self.stored(view)
        live, candidate = (self._open.views()[view] for _ in range(2))
        if not isinstance(live, DrivenView) or not isinstance(candidate, DrivenView):
            return None
        if not live.beside:
            return None
        relay = self._open.database("headwater_relay")
        gate = self.settings.allowance(relay, say)
        return Rebuild(relay, live, candidate, Pace(share=share, gate=gate))

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
            yield Transaction(connection, whose, self._open.personal.seal)

    @property
    def deciding(self) -> Deciding:
        """Runs commands."""
        return self._open.deciding

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
        whose = self.tenant_of(tenant)
        sealed = await self._open.personal.seal(whose, events)
        return await self._open.commits.append(group_of(whose, sealed, **options))

    async def seal(
        self, *events: Event | Fact, tenant: str | None = None
    ) -> Sequence[Event | Fact]:
        """The events with their personal fields sealed, for `app.on(...)`; `app.append` does so by itself.

        Raises SubjectForgotten, KeyUnavailable, and SettingError where no master key is set.
        """
        return await self._open.personal.seal(self.tenant_of(tenant), events)

    async def open_sealed(self, value: T, *, tenant: str | None = None) -> T:
        """An event, document, row or list of them with the sealed texts in it opened, for the tenant.

        Texts of a person who was forgotten become FORGOTTEN. Raises KeyUnavailable, SettingError.
        """
        return await self._open.personal.sealing.open(self.tenant_of(tenant), value)

    async def forgetting(self) -> Forgetting:
        """Forgets persons, as an operator. Raises SettingError where a key or the ledger is not set."""
        operator = self.database("headwater_operator")
        await operator.open()
        return self._open.personal.forgetting(operator, self.append, self._told)

    async def _hold_to_the_ledger(self) -> None:
        """A database that was restored forgets again whom it had forgotten."""
        if self.settings.forgotten_ledger:
            operator = self.database("headwater_operator")
            await operator.open()
            await self._open.personal.hold_to_ledger(operator)

    async def _told(self, stream: str, tenant: str) -> list[Event]:
        return [each.event for each in await self.log.stream(stream, tenant=tenant)]

    async def enqueue(
        self, *jobs: Enqueue, tenant: str | None = None, **options: Unpack[JobOptions]
    ) -> Enqueued:
        """Creates jobs in a transaction of their own; see Transaction.enqueue for those that follow from facts.

        Raises UnknownQueue and JobRefused.
        """
        whose, database = self.tenant_of(tenant), self._open.database("headwater_app")
        async with database.connection() as connection:
            if at_once(jobs):  # one statement is a transaction of its own
                return await enqueue(connection, whose, jobs, options)
            async with connection.transaction():
                return await enqueue(connection, whose, jobs, options)

    async def do(
        self,
        command: Command,
        *,
        tenant: str | None = None,
        metadata: Metadata | None = None,
        idempotency_key: str | None = None,
        occurred_at: datetime | None = None,
        beside: Beside | None = None,
    ) -> Accepted | Rejection:
        """Decides on a command and appends what was decided; again where what it looked at has changed.

        ``occurred_at`` is when the facts happened, where that is not when they are recorded.
        ``beside(tx, accepted)`` runs the application's own statements in the transaction of the facts, after
        them: both commit or neither, and what it raises passes. It runs again with each decision, and not at all where there are
        no facts. Under an idempotency key the same command is done once, and answered with where its events are.
        Raises CommandDefinitionError, VersionConflict or DecisionOutdated after 20 conflicts,
        IdempotencyKeyReused, StateUnreadable, and what ``append`` raises.
        """
        decider = self.decider(type(command))
        whose = self.tenant_of(tenant)
        within = None if beside is None else self._within(beside, whose)
        request = Request(command, whose, metadata, idempotency_key, occurred_at, within)
        return await self.deciding.do(decider, request)

    def _within(
        self, beside: Beside, tenant: str
    ) -> Callable[[Connection, Accepted], Awaitable[None]]:
        seal = self._open.personal.seal
        return lambda connection, accepted: beside(Transaction(connection, tenant, seal), accepted)

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

    def __init__(self, connection: Connection, tenant: str, seal: Seal) -> None:
        super().__init__(connection, tenant)
        self.connection = connection
        self._seal = seal

    async def append(self, *events: Event | Fact, **options: Unpack[AppendOptions]) -> Written:
        """Appends events, their personal fields sealed; see Writer."""
        return await super().append(*await self._seal(self._tenant, events), **options)


Beside = Callable[[Transaction, Accepted], Awaitable[None]]
"""The application's own statements in the transaction of a command's facts."""


__all__ = ["App", "FeedView", "FoldView", "RowsView", "Transaction"]
