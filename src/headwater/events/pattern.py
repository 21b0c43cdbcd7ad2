"""Names made from fields, such as ``order/{order}``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text with fields' names in braces; ``parts`` are text and field in turn."""

    text: str
    parts: tuple[str, ...]

    @staticmethod
    @cache
    def of(text: str) -> Pattern:
        """The pattern that a text is."""
        return Pattern(text, tuple(_PLACEHOLDER.split(text)))

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields, in order."""
        return self.parts[1::2]

    def fill(self, value: object) -> str:
        """The name that follows from the fields of a value."""
        parts = self.parts
        if len(parts) == 3:
            return f"{parts[0]}{getattr(value, parts[1])}{parts[2]}"
        return "".join(
            str(getattr(value, part)) if index % 2 else part for index, part in enumerate(parts)
        )

    def fill_known(self, value: object) -> str | None:
        """The same, or None where a field of the value is None."""
        if any(getattr(value, name) is None for name in self.fields):
            return None
        return self.fill(value)
