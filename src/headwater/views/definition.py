"""What a view is: a named derivation, and whether what is stored still follows from it."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

import msgspec

from headwater.errors import ViewDefinitionError

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True, slots=True)
class Definition:
    """A view's definition as data: what its rows follow from, and nothing else."""

    view: str
    kind: Literal["fold", "sql", "feed", "publication", "sagas"]
    content: dict[str, Any]

    def __post_init__(self) -> None:
        # Two underscores part a view's name from its generation in the names of tables.
        if not _NAME.fullmatch(self.view) or "__" in self.view:
            raise ViewDefinitionError(
                f"The view's name {self.view!r} is malformed.",
                hint="Use up to 40 lower-case letters, digits and single underscores, a letter first.",
            )

    @property
    def encoded(self) -> str:
        """The content as JSON, its keys sorted."""
        return msgspec.json.encode(self.content, order="sorted").decode()

    @property
    def fingerprint(self) -> str:
        """Changes whenever the definition does."""
        return hashlib.sha256(f"{self.kind} {self.encoded}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Difference:
    """One key on which a view and the fold of the log disagree."""

    tenant: str
    key: str
    expected: Any
    stored: Any


class Change(msgspec.Struct, frozen=True):
    """An event behind a row, and the row as it was after it; None where there was none.

    ``left_out`` says why the event had no part in it: parked, skipped or discarded.
    """

    position: int
    stream: str
    version: int
    type: str
    recorded_at: datetime
    occurred_at: datetime | None
    data: msgspec.Raw
    row: Any
    left_out: str | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The newest ``changes`` of a row, oldest first, of ``events`` in all, up to a view's checkpoint."""

    view: str
    tenant: str
    key: tuple[str | None, ...]
    position: int
    events: int
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """A share of a view's keys: those whose hash falls into one of ``slices``.

    With ``of_whole`` it is one part of a whole comparison, which takes what it needs; else it spares what it runs beside.
    """

    slices: int
    number: int
    of_whole: bool = False

    @staticmethod
    def of(share: float) -> Sample:
        """A slice by chance, of about this share of the keys."""
        slices = max(round(1 / share), 1)
        return Sample(slices, random.randrange(slices))  # noqa: S311 - which one is no secret


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome of comparing a view with the fold of the log up to its checkpoint.

    ``parked_keys`` counts the keys that are left out, and parked events of which no key is known. ``excluded``
    are outputs that were not compared: approximations, where another engine recomputed the view.
    """

    view: str
    position: int
    rows: int
    differing: int
    differences: tuple[Difference, ...]
    parked_keys: int
    excluded: tuple[str, ...] = ()

    @staticmethod
    def of_parts(parts: Sequence[Verification], limit: int) -> Verification:
        """The outcome of a comparison from those of its parts."""
        differences = [difference for part in parts for difference in part.differences]
        return replace(
            parts[0],
            rows=sum(part.rows for part in parts),
            differing=sum(part.differing for part in parts),
            differences=tuple(differences[:limit]),
        )

    @property
    def equal(self) -> bool:
        """Whether view and log agree, parked keys aside."""
        return self.differing == 0

    @property
    def summary(self) -> str:
        """'equal', 'equal except parked', or how many keys differ."""
        if not self.equal:
            return f"{self.differing} differ"
        return f"equal except {self.parked_keys} parked" if self.parked_keys else "equal"
