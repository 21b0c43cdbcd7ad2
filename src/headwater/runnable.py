"""What processes do with an app: open it, deploy it, drive its views, work its jobs, rebuild and examine it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self, cast

import psycopg

from headwater.capture.replication import Replication
from headwater.definitions import Definitions
from headwater.errors import (
    DefinitionError,
    HeadwaterError,
    LeaseLost,
    SettingError,
    StoreUnavailable,
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
from headwater.log import Database
from headwater.log.registry import register
from headwater.log.tasks import ended
from headwater.operations.settings import Settings
from headwater.personal.answers import KeptAnswers
from headwater.personal.blind import BlindIndexes
from headwater.personal.places import Place
from headwater.receiving.operating import Inboxes
from headwater.relay import Pace, Relay
from headwater.running import Running
from headwater.sagas.operating import Sagas, register_saga
from headwater.slices import Elsewhere, Here
from headwater.stores.postgres.sql_view_driven import DrivenSql
from headwater.views import StoredView, Verification
from headwater.views.batches import OutsideRows, OutsideTables
from headwater.views.documents import OutsideDocuments
from headwater.views.driving.baselines import Baselines, no_baseline
from headwater.views.driving.feed import DrivenFeed
from headwater.views.driving.fold import DrivenFold
from headwater.views.driving.purging import PurgedViews
from headwater.views.driving.rebuilding import Rebuild
from headwater.views.driving.recomputing import recompute
from headwater.views.driving.slicing import BuildsSlices, Slices
from headwater.views.driving.view import DrivenView
from headwater.views.port import Status
from headwater.views.store import DocumentsEngine, RowsEngine, Store, TablesEngine

_log = logging.getLogger("headwater")


class Runnable(Definitions):
    """The declarations of one app, and what a process that opens them runs."""

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
            self._publications.values(),
            self.decider,
            self._inboxes.values(),
            has_sagas=bool(self.sagas),
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
            for saga in self.sagas.values():
                await register_saga(connection, saga)
        await self.scheduler.deploy(operator)
        await self.alerting.deploy(operator)
        await running.database("headwater_relay").open()
        await self._hold_to_the_ledger()
        for inbox in running.inboxes().values():
            await inbox.deploy()
        return {name: await view.deploy() for name, view in running.stored.items()}

    @asynccontextmanager
    async def relay(self, *views: str) -> AsyncIterator[Relay]:
        """Drives the views and inboxes, or those named, until the end of the block."""
        running = self._open
        await running.database("headwater_relay").open()
        await self._hold_to_the_ledger()
        # Of its own: a view that an operator rebuilds meanwhile learns another generation.
        driven, inboxes = running.views(), running.inboxes()
        wanted = views or (*running.stored, *inboxes)
        viewed = [driven[self.stored(name).name] for name in wanted if name not in inboxes]
        received = [inboxes[name] for name in wanted if name in inboxes]
        relay = Relay(running.database("headwater_relay"), [*viewed, *received])
        sampler = running.sampler([view.name for view in viewed])
        await relay.start()
        await sampler.start()
        names = [view.name for view in viewed] if self.rebuild_stale else []
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
            opener=running.personal,
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

    @property
    def sagas_now(self) -> Sagas:
        """Instances of sagas, as an operator sees and steers them."""
        return Sagas(self._open.database("headwater_operator"))

    @property
    def inboxes_now(self) -> Inboxes:
        """Inboxes, and the messages parked in them, as an operator sees and changes them."""
        open_ = self._open
        return Inboxes(
            open_.database("headwater_relay"), open_.database("headwater_operator"), self.inboxes
        )

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
        self,
        view: str,
        *,
        share: float = 0.5,
        processes: int = 1,
        from_baseline: bool = True,
        say: Callable[[str], None] = lambda _: None,
    ) -> Rebuild | None:
        """A rebuild of a view beside the one that is read; None where it can only start over in place.

        ``share`` is the part of the time that batches may take; the settings' backfill window, rate and lag hold.
        It begins from the view's baseline, where there is one of the same definition, unless ``from_baseline`` is false.
        A fold is built by so many ``processes``, each its slice of the keys; its module must be importable.
        ``say`` hears when it pauses. Needs the relay's role. Raises UnknownView and DefinitionError.
        """
        self.stored(view)
        live, candidate = (self._open.views()[view] for _ in range(2))
        if not isinstance(live, DrivenView) or not isinstance(candidate, DrivenView):
            return None
        if not live.beside:
            return None
        relay = self._open.database("headwater_relay")
        pace = Pace(share=share, gate=self.settings.allowance(relay, say))
        slices, driven = None, cast("DrivenView", candidate)
        if rate := self.settings.backfill_rate:  # what a second may do is not done at a stroke
            driven.max_built = min(driven.max_built, rate)
        if isinstance(driven, DrivenFold):
            at_once = min(processes, driven.max_slices)
            builder: BuildsSlices = Here(self._open, view, pace)
            if at_once > 1:
                rate = -(-self.settings.backfill_rate // at_once)  # each does its part of it
                settings = replace(self.settings, backfill_rate=rate)
                builder = Elsewhere(self.name, settings, self._folds[view], share)
            slices = Slices(relay, driven, builder, at_once)
        elif processes > 1:
            say(f"{view} is built by one process: several share the keys of a fold, and it is none")
        return Rebuild(relay, live, candidate, pace, slices, from_baseline)

    def baselines(self, view: str) -> Baselines:
        """The baseline of a view, to be kept, shown or dropped. Needs the relay's role. Raises UnknownView."""
        self.stored(view)
        live, copy = (self._open.views()[view] for _ in range(2))
        if not isinstance(live, DrivenView) or not isinstance(copy, DrivenView):
            raise no_baseline(view)
        return Baselines(self._open.database("headwater_relay"), live, copy)

    async def verify_by(
        self, view: str, feed: str, *, limit: int = 20, timeout_seconds: float | None = None
    ) -> Verification:
        """Compares a SQL view with its query as the store of a feed recomputes it from the feed's events.

        Waits for the feed to reach the view. Needs the relay's role. Raises UnknownView, DefinitionError, QueryRefused
        for what would not be computed alike, NotCaughtUp, and what the store raises.
        """
        live, source = self.stored(view), self.stored(feed)
        if not isinstance(live, DrivenSql):
            raise DefinitionError(
                f"{view!r} is no SQL view, so nothing else recomputes it.",
                hint="Verify it against the log, without --by.",
            )
        if not isinstance(source, DrivenFeed):
            raise DefinitionError(
                f"{feed!r} is no feed.",
                hint=f"The app's feeds are {', '.join(f.name for f in self.feeds) or 'none'}.",
            )

        async def reached(position: int) -> None:
            await self.reader.reached(feed, position, timeout_seconds=timeout_seconds)

        return await live.verify_by(lambda wanted: recompute(source, wanted, reached), limit=limit)

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

    def database(self, role: str = "headwater_app") -> Database:
        """A pool of connections in one role."""
        return self._open.database(role)

    async def _hold_to_the_ledger(self) -> None:
        """A database that was restored forgets again whom it had forgotten."""
        if self.settings.forgotten_ledger:
            operator, relay = self.database("headwater_operator"), self.database("headwater_relay")
            await operator.open()
            try:
                places = self._places(operator, relay)
                await self._open.personal.hold_to_ledger(operator, places)
            except (
                StoreUnavailable
            ) as error:  # the keys are gone, and it is tried again at the next start
                _log.warning("what was opened of somebody forgotten is not purged yet: %s", error)

    def _places(self, operator: Database, relay: Database) -> Sequence[Place]:
        """Where else than in the log something of a person may be."""
        views = PurgedViews(relay, self._open.stored)
        return [KeptAnswers(operator), BlindIndexes(operator), views]  # a store may be down
