"""What an app declares: its events, views and commands. Nothing here does I/O.

Names that belong together are checked as they are declared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headwater.commands import Command, Decider, Over
from headwater.errors import (
    CommandDefinitionError,
    DefinitionError,
    UnknownView,
    ViewDefinitionError,
)
from headwater.events import Event, EventType, EventTypes
from headwater.personal import RetentionApplied, SubjectWasForgotten
from headwater.readers.feeds import FeedView
from headwater.readers.feeds import Installation as FeedsInstallation
from headwater.readers.handles import D, FoldView, Installation, R, RowsView
from headwater.receiving import Inbox
from headwater.relay import OnFailure
from headwater.sagas.declaring import SagaDefinitions
from headwater.sagas.view import NAME as SAGAS
from headwater.views import Fold, SqlView
from headwater.views.derivation import Derivation, check_loops
from headwater.views.feed import Feed
from headwater.views.indexes import Index
from headwater.views.publication import Publication
from headwater.views.purpose import Purpose
from headwater.views.store import Store, Transform, name_of


class Definitions(SagaDefinitions, Installation, FeedsInstallation):
    """The declarations of one app, over the types of events that it knows."""

    def __init__(self, name: str, events: Iterable[type[Event]]) -> None:
        super().__init__()
        self.name = name
        declared = list(events)
        if any(EventType.of(event).personal for event in declared):
            declared += [SubjectWasForgotten, RetentionApplied]
        self.events = EventTypes(dict.fromkeys(declared))
        self._folds: dict[str, FoldView[Any]] = {}
        self._rows: dict[str, RowsView[Any]] = {}
        self._feeds: dict[str, FeedView] = {}
        self._publications: dict[str, tuple[Publication, Store]] = {}
        self._inboxes: dict[str, tuple[Inbox, Store]] = {}
        self._stores: dict[str, Store] = {}
        self._derivations: list[Derivation] = []
        self._deciders: dict[type[Command], Decider[Any]] = {}

    def fold(
        self,
        *,
        key: str,
        name: str | None = None,
        on_failure: OnFailure = "park",
        version: int = 1,
        store: Store | None = None,
        indexes: Sequence[Index] = (),
        opens: Sequence[str] = (),
        purpose: Purpose | None = None,
    ) -> Callable[[Callable[..., D | None]], FoldView[D]]:
        """Declares a fold: ``def orders(state: Order, event: Placed | Voided) -> Order | None``.

        ``key`` names a field of every event that it reads; an event whose key is None concerns no
        document. A state of None removes the document. The function must depend on its arguments
        alone; raise ``version`` when code that it calls has changed. ``store`` is where the documents
        are; without one, in the log's database. ``indexes`` are kept beside them, where the store offers it.
        ``opens`` names the personal fields that the function gets in clear, and ``(forgotten)`` once the person
        is: then documents that hold such text are folded again. With a ``purpose`` it has documents of those who agree to
        it, from when they agree until they take it back.
        """
        where = None if store is None else self._offered(store, "fold")
        if indexes and store is None:
            raise ViewDefinitionError(
                "Indexes of documents are kept in a store such as Redis, not in Postgres.",
                hint="Pass store=Redis(...), or read a SQL view over the fold's documents.",
            )
        if indexes and store is not None:
            self._offered(store, "index")

        def declare(evolve: Callable[..., D | None]) -> FoldView[D]:
            fold = Fold.of(
                evolve, name=name, key=key, on_failure=on_failure, version=version, store=where,
                indexes=indexes, opens=opens, purpose=purpose,
            )  # fmt: skip
            return self.declare(fold, store)

        return declare

    def derive(
        self, view: FoldView[D], *, name: str | None = None, on_failure: OnFailure = "park"
    ) -> Callable[[Callable[..., Any]], FoldView[D]]:
        """Declares events that follow from a fold's changes: ``def large(before: Order, after: Order, event: Placed)``.

        The function returns events, commands or jobs (``-> Enqueue | None``), one or several, or None. It makes a view of its own, which
        folds as ``view`` does and appends what it derives, in one commit; a rebuild derives nothing again.
        Raises DefinitionError where a type of event would follow from itself.
        """
        if view.fold.purpose is not None:
            raise ViewDefinitionError(
                f"{view.name!r} is for a purpose, and what is derived from it would be for others too.",
                hint="Derive from a fold without a purpose.",
            )
        if view.fold.opens:
            raise ViewDefinitionError(
                f"{view.name!r} opens personal fields, and what is derived from it would hold them in clear.",
                hint="Derive from a fold that opens nothing: what it derives carries sealed text.",
            )
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
        bucket: str | None = None,
        keep_seconds: float | None = None,
        opens: Sequence[str] = (),
        purpose: Purpose | None = None,
    ) -> RowsView[R]:
        """Declares an incremental SQL view: a SELECT over event types as relations, or the path of one.

        It may read one SQL view declared before it, whose outputs it brings together by ``merged(x)``.
        ``bucket`` names the key that is a time; with ``keep_seconds`` groups are removed whose bucket is older
        than the log's newest event by more.

        ``key`` names the outputs that it groups by, ``row`` is a struct of all outputs; left out, both
        follow from the query, and rows have no types that a checker knows. Sums of floats
        depend on the batches' boundaries: cast to numeric, or declare a ``float_tolerance``.
        With a ``purpose`` it reads the documents of a fold that has it, and so counts those who agree, for as long as they do.
        """
        if opens:
            raise ViewDefinitionError(
                f"The SQL view {name!r} cannot open {', '.join(opens)}: no SQL ever sees a person's text in clear.",
                hint=f"Make it a fold with opens={list(opens)!r}, which writes what is to be shown into its document.",
            )
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
            views={handle.name: handle.view for handle in self._rows.values()},
            bucket=bucket,
            keep_seconds=keep_seconds,
            purpose=purpose,
        )
        for read in view.query.reads if view.query.over_documents else ():
            if self._folds[read].fold.opens:
                raise ViewDefinitionError(
                    f"The view {name!r} reads the documents of {read!r}, which opens personal fields.",
                    hint="Read the events, or a second fold that opens nothing: its documents are the projection that may be summed up.",
                )
            if self._folds[read].store is not None:
                raise ViewDefinitionError(
                    f"The view {name!r} reads the documents of {read!r}, which are in another store.",
                    hint="Read a fold in Postgres, or the events.",
                )
        handle: RowsView[R] = RowsView(self, view, store, bucket)
        self._rows[name] = handle
        return handle

    def feed(
        self,
        name: str,
        *,
        types: Sequence[type[Event]],
        store: Store,
        on_failure: OnFailure = "park",
        opens: Sequence[str] = (),
    ) -> FeedView:
        """Declares a feed: events of these types, as they are, as typed rows in a store.

        ``opens`` names the personal fields that are there in clear; rows of a person who is forgotten are written anew.
        """
        where = self._offered(store, "feed")
        feed = Feed(name, tuple(types), where, on_failure, tuple(sorted(set(opens))))
        for declared in feed.types:
            self.events.named(declared.name)
        self._unused(name)
        view = FeedView(self, feed, store)
        self._feeds[name] = view
        return view

    def publish(
        self,
        name: str,
        *,
        types: Sequence[type[Event]],
        bus: Store,
        on_failure: OnFailure = "park",
        edition: int = 1,
    ) -> Publication:
        """Declares a publication: events of these types go out by a bus, in order, each once.

        A rebuild publishes nothing again. Another ``edition`` does: everything, into a channel of its own.
        """
        where = self._offered(bus, "messages")
        publication = Publication(self.name, name, tuple(types), where, on_failure, edition)
        for type_name in publication.type_names:
            self.events.named(type_name)
        self._unused(name)
        self._publications[name] = publication, bus
        self._no_circles()
        return publication

    def receive(
        self,
        name: str,
        *,
        source: str,
        bus: Store,
        types: Sequence[type[Event]],
        edition: int = 1,
    ) -> Inbox:
        """Declares an inbox: what the app ``source`` publishes as ``name`` is appended here, in order, each once.

        ``types`` are this app's own classes for the types that it takes; others are passed by, and so are fields that a
        class does not have. Earlier versions are upcast. Raises ViewDefinitionError for personal fields, which
        only the source can open, and for types that this app publishes itself.
        """
        inbox = Inbox(source, name, tuple(types), self._offered(bus, "messages"), edition)
        for type_name in inbox.types:
            self.events.named(type_name)
        if inbox.name in self._inboxes or source == self.name:
            raise DefinitionError(
                f"The app {self.name!r} receives {name!r} of {source!r} twice, or from itself.",
                hint="Declare one inbox for each publication of another app.",
            )
        self._inboxes[inbox.name] = inbox, bus
        self._no_circles()
        return inbox

    def _no_circles(self) -> None:
        received = {name: inbox for inbox, _ in self._inboxes.values() for name in inbox.types}
        for publication, _ in self._publications.values():
            for name in received.keys() & set(publication.type_names):
                raise DefinitionError(
                    f"Events of the type {name!r} would be published by {publication.name!r} and are received "
                    f"from {received[name].source!r}: they could go round.",
                    hint="A fact is published by the service whose it is; publish an event of your own that follows from it.",
                )

    def command(
        self, *over: FoldView[Any] | Over, name: str | None = None
    ) -> Callable[[Callable[..., Any]], Decider[Any]]:
        """Declares who decides on a command: ``def void(state: Order, command: Void) -> list[Voided]``.

        The function takes the state of each fold, over the command's stream or as ``over(...)`` says, then
        the command. It returns events, or a Rejection; it does no I/O, and runs again on a conflict.
        """
        sources = [one if isinstance(one, Over) else Over(one.fold) for one in over]

        def declare(decide: Callable[..., Any]) -> Decider[Any]:
            folds = [one.fold for one in sources if isinstance(one.fold, Fold)]
            if opening := [fold.name for fold in folds if fold.opens or fold.purpose]:
                raise CommandDefinitionError(
                    f"{opening[0]!r} opens personal fields or is for a purpose, and decisions are made on neither.",
                    hint="Decide on a fold that opens nothing and has no purpose.",
                )
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
        if name in self.views or name == SAGAS:
            raise DefinitionError(
                f"There are two views {name!r}.",
                hint=f"Rename one; {SAGAS!r} is the one that starts and wakes sagas.",
            )

    @property
    def views(self) -> list[str]:
        """The names of the views, folds first."""
        return [*self._folds, *self._rows, *self._feeds, *self._publications]

    @property
    def inboxes(self) -> dict[str, Inbox]:
        """The inboxes by name, such as inbox/shop/orders."""
        return {name: inbox for name, (inbox, _) in self._inboxes.items()}

    @property
    def readable(self) -> list[str]:
        """The names of the views that are read by key: all but feeds and publications."""
        return [*self._folds, *self._rows]

    @property
    def feeds(self) -> list[FeedView]:
        """The feeds."""
        return list(self._feeds.values())

    def view(self, name: str) -> FoldView[Any] | RowsView[Any]:
        """A view as readers use it. Raises UnknownView."""
        if (found := self._folds.get(name) or self._rows.get(name)) is None:
            raise UnknownView(
                f"The app {self.name!r} has no view {name!r}.",
                hint=f"It has {', '.join(self.views) or 'none'}.",
            )
        return found
