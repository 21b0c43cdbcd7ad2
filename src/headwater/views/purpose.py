"""Purposes: what a view is for, and which facts say that a person agrees to it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from headwater.errors import ViewDefinitionError
from headwater.events import Event, EventType

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class Purpose:
    """A purpose, such as ``newsletter``, and the events by which a person agrees and takes it back.

    Both have the view's key, which names the person. Where they have a field ``purpose``, they count for the purpose that
    it names; without one, for this.
    """

    name: str
    given: type[Event]
    withdrawn: type[Event]

    def said(self, event: Event) -> Literal["given", "withdrawn"] | None:
        """What an event says of this purpose."""
        kind = type(event)
        if kind not in {self.given, self.withdrawn} or getattr(event, "purpose", self.name) != self.name:  # fmt: skip
            return None
        return "given" if kind is self.given else "withdrawn"

    @property
    def definition(self) -> list[str]:
        """The purpose as part of a view's definition."""
        return [self.name, EventType.of(self.given).name, EventType.of(self.withdrawn).name]

    def check(self, view: str, key: str, opens: Iterable[str], types: Iterable[EventType]) -> None:
        """Raises ViewDefinitionError where the view's documents are not each of one person, the one who agrees."""
        if not _NAME.fullmatch(self.name) or self.given is self.withdrawn:
            raise ViewDefinitionError(
                f"The purpose {self.name!r} of the view {view!r} is malformed.",
                hint="Give it a lower-case name, and two types of events.",
            )
        opened = set(opens)
        for declared in types:
            for name, subject in declared.personal.items():
                if name in opened and subject != key:
                    raise ViewDefinitionError(
                        f"The view {view!r} is for a purpose that the person {key!r} agrees to, and opens {name!r}, which is "
                        f"of {subject!r}.",
                        hint=f"Open fields of {key!r} alone, or key the view by who agrees.",
                    )
