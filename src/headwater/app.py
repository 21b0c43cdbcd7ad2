"""The assembly: an app's events and views, and the services that run them.

Nothing here does I/O until the app is opened. Names that belong together are checked when the app is
built.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, TypeVar, Unpack, cast, overload

from msgspec import Struct
from psycopg import sql

from headwater.commands import Accepted, Command, Rejection
from headwater.commands.deciding import Deciding, Request
from headwater.errors import (
    CommandDefinitionError,
    TenantMissing,
)
from headwater.events import Event, Recorded
from headwater.log import Fact, LogReader, SharedCommits, Token, Writer, Written
from headwater.log.database import Connection
from headwater.log.driver import (
    AsyncSession,
    BlockingSession,
    BlockingWriter,
    ForeignWriter,
    writer_on,
)
from headwater.log.enqueuing import Enqueue, Enqueued, JobOptions, at_once
from headwater.log.writing import AppendOptions, Group, Metadata, enqueue, group_of
from headwater.personal import Forgetting, PersonalData
from headwater.readers.asking import ask
from headwater.readers.feeds import FeedView
from headwater.readers.handles import FoldView, RowsView
from headwater.readers.reading import Reader
from headwater.runnable import Runnable
from headwater.sagas.starting import start_saga

T = TypeVar("T")


class App(Runnable):
    """One application's events and views over one log.

    ``tenant`` is for applications with a single tenant; others name it at each call. ``settings``
    default to the environment's. With ``rebuild_stale`` a relay that starts rebuilds, beside the live ones, the
    views whose definition has changed.
    """

    @property
    def reader(self) -> Reader:
        """Reads views at least at a token."""
        return self._open.reader

    @property
    def log(self) -> LogReader:
        """Reads the log in order, as the application: one tenant at a time, by default the app's only one."""
        return LogReader(self._open.database("headwater_app"), self.events, self.tenant)

    @property
    def commits(self) -> SharedCommits:
        """Appends groups that are made already, in commits that callers share."""
        return self._open.commits

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
            yield Transaction(connection, whose, self._open.personal)

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

    async def seal_group(self, group: Group) -> None:
        """Seals the personal fields of events that came as JSON, of the app's types, in place. Raises as `seal`.

        Without a master key they stay as they are, and the log refuses them.
        """
        await self._open.personal.seal_group(group, self.events)

    async def seal_jobs(self, *jobs: Enqueue, tenant: str | None = None) -> Sequence[Enqueue]:
        """Jobs with their personal arguments sealed, for `app.on(...)`; `app.enqueue` does so by itself.

        Raises SubjectForgotten, KeyUnavailable, and SettingError where no master key is set.
        """
        return await self._open.personal.seal_jobs(self.tenant_of(tenant), jobs)

    async def seal_fields(self, value: T, *, tenant: str | None = None) -> T:
        """A struct with the fields sealed that its class marks as personal; anything else as it is. Raises as `seal`."""
        if not isinstance(value, Struct):
            return value
        return await self._open.personal.seal_fields(self.tenant_of(tenant), value)

    async def open_sealed(self, value: T, *, tenant: str | None = None) -> T:
        """An event, document, row or list of them with the sealed texts in it opened, for the tenant.

        Texts of a person who was forgotten become FORGOTTEN. Raises KeyUnavailable, SettingError.
        """
        return await self._open.personal.sealing.open(self.tenant_of(tenant), value)

    async def blind(self, index: str, text: str, *, tenant: str | None = None) -> str:
        """The key that events carry whose field says this text, for `over(..., key=...)` and `find`.

        Fields are in an index by `Personal("customer", blind="mail")`. Raises KeyUnavailable, SettingError.
        """
        return await self._open.personal.sealing.blind(self.tenant_of(tenant), index, text)

    async def find(
        self, index: str, text: str, *, tenant: str | None = None
    ) -> list[Recorded[Event]]:
        """The events of which a field in the blind index says this text, in order, sealed as they are.

        Those of persons who were forgotten are not found. Raises as `blind`.
        """
        whose = self.tenant_of(tenant)
        return await self.log.with_key(await self.blind(index, text, tenant=whose), tenant=whose)

    async def forgetting(self) -> Forgetting:
        """Forgets persons, as an operator. Raises SettingError where a key or the ledger is not set."""
        operator, relay = self.database("headwater_operator"), self.database("headwater_relay")
        await operator.open()
        await relay.open()
        places = self._places(operator, relay)
        return self._open.personal.forgetting(operator, self.append, self._told, places)

    async def _told(self, stream: str, tenant: str) -> list[Event]:
        return [each.event for each in await self.log.stream(stream, tenant=tenant)]

    async def enqueue(
        self, *jobs: Enqueue, tenant: str | None = None, **options: Unpack[JobOptions]
    ) -> Enqueued:
        """Creates jobs in a transaction of their own; see Transaction.enqueue for those that follow from facts.

        Raises UnknownQueue and JobRefused.
        """
        whose, database = self.tenant_of(tenant), self._open.database("headwater_app")
        jobs = tuple(await self._open.personal.seal_jobs(whose, jobs))
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

        A command that a saga starts with starts it; where the instance is there, it is answered as a duplicate.
        ``occurred_at`` is when the facts happened, where that is not when they are recorded.
        ``beside(tx, accepted)`` runs the application's own statements in the transaction of the facts, after
        them: both commit or neither, and what it raises passes. It runs again with each decision, and not at all where there are
        no facts. Under an idempotency key the same command is done once, and answered with where its events are.
        Raises CommandDefinitionError, VersionConflict or DecisionOutdated after 20 conflicts,
        IdempotencyKeyReused, StateUnreadable, and what ``append`` raises.
        """
        whose = self.tenant_of(tenant)
        within = None if beside is None else self._within(beside, whose)
        if (saga := self.saga_of.get(type(command))) is not None:
            if occurred_at is not None:
                raise CommandDefinitionError(
                    f"{type(command).__name__} starts a saga, which starts when it is recorded.",
                    hint="Make the time a field of the command.",
                )
            database = self._open.database("headwater_app")
            command = await self._open.personal.seal_fields(whose, command)
            return await start_saga(
                database, saga, command, whose, metadata, idempotency_key, within
            )
        decider = self.decider(type(command))
        request = Request(command, whose, metadata, idempotency_key, occurred_at, within)
        return await self.deciding.do(decider, request)

    def _within(
        self, beside: Beside, tenant: str
    ) -> Callable[[Connection, Accepted], Awaitable[None]]:
        personal = self._open.personal
        return lambda connection, accepted: beside(
            Transaction(connection, tenant, personal), accepted
        )

    async def query(
        self,
        statement: str,
        parameters: dict[str, Any] | None = None,
        *,
        views: Sequence[FoldView[Any] | RowsView[Any] | FeedView],
        tenant: str | None = None,
        at_least: Token | str | None = None,
        timeout_seconds: float | None = None,
    ) -> list[dict[str, Any]]:
        """The rows of a SELECT over the views that it reads, for one tenant, each at least at the token.

        All in Postgres (``headwater_views.NAME``, read-only), or all in one ClickHouse: there the names are those of its
        tables, and parameters are written ``{name:Type}``. Raises DefinitionError, QueryRefused, and as reads do.
        """
        whose = self.tenant_of(tenant)
        if any(view.store is not None for view in views):
            return await ask(
                self.reader, statement, parameters or {}, views=views, tenant=whose,
                at_least=at_least, timeout_seconds=timeout_seconds,
            )  # fmt: skip
        columns, rows = await self.reader.rows(
            sql.SQL(cast("Any", statement)),
            parameters or {},
            views=[view.name for view in views],
            tenant=whose,
            at_least=at_least,
            timeout_seconds=timeout_seconds,
        )
        return [dict(zip(columns, row, strict=True)) for row in rows]


class Transaction(Writer):
    """A writer that also runs the application's own statements."""

    def __init__(self, connection: Connection, tenant: str, personal: PersonalData) -> None:
        super().__init__(connection, tenant)
        self.connection = connection
        self._personal = personal

    async def append(self, *events: Event | Fact, **options: Unpack[AppendOptions]) -> Written:
        """Appends events, their personal fields sealed; see Writer."""
        sealed = await self._personal.seal(self._tenant, events)
        return await super().append(*sealed, **options)

    async def enqueue(self, *jobs: Enqueue, **options: Unpack[JobOptions]) -> Enqueued:
        """Creates jobs, their personal arguments sealed; see Writer."""
        sealed = await self._personal.seal_jobs(self._tenant, jobs)
        return await super().enqueue(*sealed, **options)


Beside = Callable[[Transaction, Accepted], Awaitable[None]]
"""The application's own statements in the transaction of a command's facts."""


__all__ = ["App", "FeedView", "FoldView", "RowsView", "Transaction"]
