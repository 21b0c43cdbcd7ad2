"""What a fact is: types, schemas and typed relations. No I/O."""

from headwater.events.event import Event, EventType, EventTypes, Recorded, encode
from headwater.events.personal import Personal
from headwater.events.relations import COMMON_COLUMNS, Column, Relation
from headwater.events.upcasting import Cast, Computed, Default, Remove, Rename

__all__ = [
    "COMMON_COLUMNS",
    "Cast",
    "Column",
    "Computed",
    "Default",
    "Event",
    "EventType",
    "EventTypes",
    "Personal",
    "Recorded",
    "Relation",
    "Remove",
    "Rename",
    "encode",
]
