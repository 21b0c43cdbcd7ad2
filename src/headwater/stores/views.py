"""An app's views, each in its store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from headwater.log import Database
from headwater.personal.opener import Opener
from headwater.readers.feeds import FeedView
from headwater.readers.handles import FoldView, RowsView
from headwater.stores.postgres.derived import DeciderOf
from headwater.stores.postgres.documents import PostgresDocuments
from headwater.stores.postgres.folds import PostgresFold
from headwater.stores.postgres.rows import PostgresRows
from headwater.stores.postgres.sql_view_outside import OutsideSql
from headwater.views import StoredView
from headwater.views.driving.feed import DrivenFeed
from headwater.views.driving.messages import DrivenPublication
from headwater.views.driving.outside_fold import OutsideFold
from headwater.views.publication import Publication
from headwater.views.store import (
    DocumentsEngine,
    Engine,
    MessagesEngine,
    RowsEngine,
    Store,
    TablesEngine,
)


def stored_views(
    relay: Database,
    engines: Mapping[str, Engine],
    folds: Iterable[FoldView[Any]],
    rows: Iterable[RowsView[Any]],
    feeds: Iterable[FeedView],
    publications: Iterable[tuple[Publication, Store]],
    decider_of: DeciderOf,
    opener: Opener,
) -> dict[str, StoredView]:
    """The views by name, folds first. ``relay`` is in the relay's role; nothing here does I/O."""
    in_log: dict[str, PostgresFold[Any]] = {}
    stored: dict[str, StoredView] = {}
    for view in folds:
        if view.store is None:
            stored[view.name] = in_log[view.name] = PostgresFold(
                relay, view.fold, decider_of, opener
            )
        else:
            documents = cast("DocumentsEngine", engines[view.store.name]).documents
            stored[view.name] = OutsideFold(relay, view.fold, documents, PostgresDocuments, opener)
    for handle in rows:
        if handle.store is not None:
            where = cast("TablesEngine", engines[handle.store.name])
            stored[handle.name] = OutsideSql(relay, handle.view, where.tables, where.every_seconds)
            continue
        query = handle.view.query
        fold = in_log[query.reads[0]] if query.over_documents else None
        stored[handle.name] = PostgresRows(relay, handle.view, fold)
    for feed in feeds:
        engine = cast("RowsEngine", engines[feed.store.name])
        stored[feed.name] = DrivenFeed(relay, feed.feed, engine.rows, engine.every_seconds, opener)
    for publication, bus in publications:
        messages = cast("MessagesEngine", engines[bus.name]).messages
        stored[publication.name] = DrivenPublication(relay, publication, messages)
    return stored
