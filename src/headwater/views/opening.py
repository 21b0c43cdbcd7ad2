"""Views that open: what they declare, and what they register for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from headwater.errors import ViewDefinitionError
from headwater.events import EventType


@dataclass(frozen=True, slots=True)
class Opened:
    """A row that holds what one key sealed: under which it is found again.

    ``key`` is a document's key; of a feed, the event's position.
    """

    key_id: UUID
    tenant: str
    key: str


def check_opens(view: str, opens: Sequence[str], types: Iterable[EventType]) -> None:
    """Raises ViewDefinitionError where a view opens what is personal in no event that it reads."""
    personal = {name for declared in types for name in declared.personal}
    if unknown := [name for name in opens if name not in personal]:
        known = ", ".join(sorted(personal)) or "none"
        raise ViewDefinitionError(
            f"The view {view!r} opens {unknown[0]!r}, which is a personal field of no event that it reads.",
            hint=f"Their personal fields: {known}.",
        )
