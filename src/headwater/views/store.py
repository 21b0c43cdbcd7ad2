"""The port that stores implement: what an engine must do to hold views.

A store is declared with the app (``Redis("fast")``) and does nothing then. An open app makes one
engine of it, and the engine one storage per view. Postgres, which holds the log, writes a view's data
and its checkpoint in the log's own database. Every other store keeps a checkpoint beside the data and
moves both in one atomic write; that checkpoint is the truth for exactly-once effect.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from headwater.views.batches import (
    OutsideRows,
    OutsideTables,
)
from headwater.views.documents import (
    OutsideDocuments,
)
from headwater.views.messages import OutsideMessages

Transform = Literal["fold", "index", "sql", "feed", "messages"]
"""What a store may run; ``index`` is what folds keep beside their documents."""


class Engine(Protocol):
    """An open store: connections to one engine, shared by its views."""

    async def close(self) -> None:
        """Closes the connections. Idempotent."""
        ...


class DocumentsEngine(Engine, Protocol):
    """An engine that holds folds."""

    @property
    def documents(self) -> OutsideDocuments:
        """Where folds' documents go."""
        ...


class RowsEngine(Engine, Protocol):
    """An engine that holds feeds."""

    @property
    def every_seconds(self) -> float:
        """How long a feed that has caught up waits for more."""
        ...

    @property
    def rows(self) -> OutsideRows:
        """Where feeds' rows go."""
        ...


class TablesEngine(Engine, Protocol):
    """An engine that holds SQL views."""

    @property
    def every_seconds(self) -> float:
        """How long a view that has caught up waits for more."""
        ...

    @property
    def tables(self) -> OutsideTables:
        """Where SQL views are kept."""
        ...


class MessagesEngine(Engine, Protocol):
    """A bus: an engine that takes publications."""

    @property
    def messages(self) -> OutsideMessages:
        """Where publications' messages go."""
        ...


class Store(Protocol):
    """A declaration: which engine, under which name. Nothing here does I/O."""

    @property
    def name(self) -> str:
        """The name under which settings know it."""
        ...

    @property
    def kind(self) -> str:
        """The engine's kind, such as ``redis``."""
        ...

    @property
    def transforms(self) -> frozenset[Transform]:
        """What runs in it. The rest is refused when the app is built."""
        ...

    def engine(self, url: str) -> Engine:
        """The engine at a URL, '' for its default. Connects when first used.

        Raises ExtraMissing and SettingError.
        """
        ...


@runtime_checkable
class Embeddable(Store, Protocol):
    """A store whose engine can be embedded, where no URL says otherwise."""

    def embedded_url(self, home: Path) -> str:
        """The URL of an engine below a folder."""
        ...


def name_of(store: Store) -> str:
    """A store as definitions of views name it."""
    return f"{store.kind}/{store.name}"
