"""Feeds: views that hand on the events themselves, typed, one relation per event type. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from headwater.errors import ViewDefinitionError
from headwater.events import Column, Event, EventType
from headwater.relay import OnFailure
from headwater.views.definition import Definition
from headwater.views.opening import check_opens

_METADATA = Column("metadata", "jsonb", "e.metadata")
_SCHEMA_VERSION = Column("schema_version", "integer", "e.schema_version")


@dataclass(frozen=True)
class Feed:
    """A feed's definition: which types of events go to which store, and which personal fields in clear."""

    name: str
    events: tuple[type[Event], ...]
    store: str
    on_failure: OnFailure = "park"
    opens: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.events:
            raise ViewDefinitionError(
                f"The feed {self.name!r} names no event types.", hint="Pass types=[Placed, ...]."
            )
        if confined := [t.name for t in self.types if t.upcasting.confined]:
            raise ViewDefinitionError(
                f"Earlier versions of {confined[0]!r} are upcast by a Python function, which no feed can call.",
                hint="Write the steps as Rename, Cast, Default, Remove or Computed.",
            )
        check_opens(self.name, self.opens, self.types)
        _ = self.definition

    @cached_property
    def types(self) -> tuple[EventType, ...]:
        """The event types."""
        return tuple(EventType.of(event) for event in self.events)

    @cached_property
    def type_names(self) -> list[str]:
        """Their names."""
        return [declared.name for declared in self.types]

    @cached_property
    def columns(self) -> dict[str, tuple[Column, ...]]:
        """Each type's columns: its fields, what every event has, its metadata."""
        return {declared.name: _columns(declared) for declared in self.types}

    @cached_property
    def definition(self) -> Definition:
        """The definition as data."""
        columns: dict[str, Any] = {
            name: [c.definition for c in columns] for name, columns in self.columns.items()
        }
        content = {"columns": columns, "store": self.store}
        return Definition(
            self.name, "feed", content | ({"opens": self.opens} if self.opens else {})
        )


def _columns(declared: EventType) -> tuple[Column, ...]:
    columns = declared.relation.columns
    taken = {column.name for column in columns}
    return (*columns, *(c for c in (_SCHEMA_VERSION, _METADATA) if c.name not in taken))
