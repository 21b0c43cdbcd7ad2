"""What a fact is: types, schemas and typed relations. No I/O."""

from headwater.events.event import Event, EventType, EventTypes, Recorded, encode
from headwater.events.relations import COMMON_COLUMNS, Column, Relation

__all__ = [
    "COMMON_COLUMNS",
    "Column",
    "Event",
    "EventType",
    "EventTypes",
    "Recorded",
    "Relation",
    "encode",
]
