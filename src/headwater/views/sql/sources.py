"""What a view may read: the events of one type, or the documents of one fold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwater.events.relations import Column, Relation
    from headwater.views.sql.query import IncrementalQuery


@dataclass(frozen=True, slots=True)
class EventSource:
    """The events of one type; column expressions are SQL over the alias ``e`` of the log."""

    relation: Relation

    @property
    def name(self) -> str:
        """The event type."""
        return self.relation.name

    @property
    def columns(self) -> tuple[Column, ...]:
        """The relation's columns."""
        return self.relation.columns


@dataclass(frozen=True, slots=True)
class DocumentSource:
    """The documents of one fold.

    Column expressions are SQL over an alias ``e`` with ``e.tenant``, ``e.key`` (text) and
    ``e.data`` (the document, jsonb), so that a field reads the same as a field of an event.
    """

    name: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class ViewSource:
    """The groups of another SQL view, as its query gives them."""

    name: str
    query: IncrementalQuery


Source = EventSource | DocumentSource | ViewSource


def find_column(source: EventSource | DocumentSource, name: str) -> Column | None:
    """The source's column of that name, or None."""
    return next((column for column in source.columns if column.name == name), None)
