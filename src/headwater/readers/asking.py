"""SQL of the application's own over views in a store that runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headwater.errors import DefinitionError
from headwater.readers.feeds import FeedView
from headwater.readers.handles import FoldView, RowsView
from headwater.readers.reading import Reader
from headwater.readers.received import Wait
from headwater.views.batches import AskedViews
from headwater.views.storage import Place


async def ask(
    reader: Reader,
    select: str,
    parameters: Mapping[str, object],
    *,
    views: Sequence[FoldView[Any] | RowsView[Any] | FeedView],
    tenant: str,
    at_least: str | None,
    timeout_seconds: float | None,
) -> list[dict[str, Any]]:
    """The rows of a SELECT over views that are in one store, each at least at the token.

    Raises DefinitionError where they are not, and as ``Reader.outside`` and the store do.
    """
    wait, storage, shown = Wait(timeout_seconds), None, dict[str, str]()
    for view in views:
        storage = _storage_of(view, views[0])

        async def read(place: Place, held: AskedViews = storage) -> tuple[int, Mapping[str, str]]:
            return await held.position(place), await held.shown(place)

        shown |= await reader.outside(
            read, view=view.name, tenant=tenant, at_least=at_least,
            timeout_seconds=wait.left_seconds,
        )  # fmt: skip
    assert storage is not None
    return await storage.ask(select, parameters, shown, tenant)


def _storage_of(
    view: FoldView[Any] | RowsView[Any] | FeedView, first: FoldView[Any] | RowsView[Any] | FeedView
) -> AskedViews:
    storage: object = None if isinstance(view, FoldView) else view.storage
    if not isinstance(storage, AskedViews) or view.store != first.store:
        raise DefinitionError(
            f"The view {view.name!r} cannot be queried: it is in another store than Postgres and ClickHouse, or the "
            "others are in another than it.",
            hint="Use its get and list, and query each store by itself.",
        )
    return storage
