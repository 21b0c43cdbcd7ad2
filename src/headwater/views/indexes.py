"""Indexes of a fold's documents, kept by the store beside them: rankings, counters, places, distinct counts. Pure.

An index follows from the documents, and is written in the atomic write that writes them. A document that
leaves takes what the indexes hold of it along.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from headwater.errors import DefinitionError, ViewDefinitionError

Key = tuple[str, str]

_NUMBERS: tuple[type, ...] = (int, float, Decimal)
_NAMES: tuple[type, ...] = (str, int, UUID, date)
_NORTH = 85.05112878


@dataclass(frozen=True, slots=True)
class Ranking:
    """Keys in the order of a number of their documents, the highest first.

    Scores are doubles: whole numbers are exact up to 2^53. A document whose field is None is not ranked.
    """

    score: str
    kind: ClassVar[str] = "ranking"
    holds: ClassVar[tuple[type, ...]] = _NUMBERS

    @property
    def fields(self) -> tuple[str, ...]:
        """The document's fields that it reads."""
        return (self.score,)

    def entry(self, document: object) -> float | None:
        """What it holds of a document. Raises ValueError for what it cannot hold."""
        value = getattr(document, self.score)
        return None if value is None else _finite(self.score, value)


@dataclass(frozen=True, slots=True)
class Counter:
    """A number of each document, exact, read for many keys at once without their documents."""

    value: str
    kind: ClassVar[str] = "counter"
    holds: ClassVar[tuple[type, ...]] = (int, Decimal)

    @property
    def fields(self) -> tuple[str, ...]:
        """The document's fields that it reads."""
        return (self.value,)

    def entry(self, document: object) -> str | None:
        """What it holds of a document. Raises ValueError for what it cannot hold."""
        value = getattr(document, self.value)
        if value is None:
            return None
        _finite(self.value, value)
        return str(value)


@dataclass(frozen=True, slots=True)
class Places:
    """Where each document is, in degrees: what is near a point is found.

    Between 85.05112878 degrees north and south. A document without both is nowhere.
    """

    longitude: str
    latitude: str
    kind: ClassVar[str] = "places"
    holds: ClassVar[tuple[type, ...]] = _NUMBERS

    @property
    def fields(self) -> tuple[str, ...]:
        """The document's fields that it reads."""
        return (self.longitude, self.latitude)

    def entry(self, document: object) -> tuple[float, float] | None:
        """What it holds of a document. Raises ValueError for what it cannot hold."""
        longitude, latitude = getattr(document, self.longitude), getattr(document, self.latitude)
        if longitude is None or latitude is None:
            return None
        place = _finite(self.longitude, longitude), _finite(self.latitude, latitude)
        if not (-180 <= place[0] <= 180 and -_NORTH <= place[1] <= _NORTH):
            raise ValueError(
                f"{longitude}, {latitude} is no place between {_NORTH} degrees north and south"
            )
        return place


@dataclass(frozen=True, slots=True)
class Distinct:
    """How many different values a field has had since the document came to be: about, in constant room.

    Values are only added, so it can tell of no part of a document's life. A document that leaves
    takes all along.
    """

    of: str
    kind: ClassVar[str] = "distinct"
    holds: ClassVar[tuple[type, ...]] = _NAMES

    @property
    def fields(self) -> tuple[str, ...]:
        """The document's fields that it reads."""
        return (self.of,)

    def entry(self, document: object) -> str | None:
        """What one state of a document adds."""
        value = getattr(document, self.of)
        return None if value is None else str(value)


Index = Ranking | Counter | Places | Distinct
Entry = float | str | tuple[float, float] | None


def name_of_index(index: Index) -> str:
    """An index as definitions and stores name it."""
    return ":".join((index.kind, *index.fields))


@dataclass(slots=True)
class Seen:
    """The values that fields have had, key by key, and the keys whose documents began anew meanwhile."""

    indexes: tuple[Distinct, ...]
    renewed: set[Key] = field(default_factory=set)
    values: dict[Key, dict[str, set[str]]] = field(default_factory=dict)

    @staticmethod
    def of(indexes: Iterable[Index]) -> Seen:
        """Nothing seen yet."""
        return Seen(tuple(index for index in indexes if isinstance(index, Distinct)))

    def note(self, key: Key, document: object | None) -> None:
        """Takes in the next state of a document."""
        if not self.indexes:
            return
        if document is None:
            self.renewed.add(key)
            self.values.pop(key, None)
            return
        for index in self.indexes:
            if (value := index.entry(document)) is not None:
                self.values.setdefault(key, {}).setdefault(index.of, set()).add(value)


def check_indexes(view: str, indexes: Sequence[Index], state: type) -> None:
    """Raises ViewDefinitionError where an index names no field of the state, or one that it cannot hold."""
    types: Mapping[str, Any] = get_type_hints(state)
    for place, index in enumerate(indexes):
        if index in indexes[:place]:
            raise ViewDefinitionError(
                f"The fold {view!r} declares {name_of_index(index)!r} twice.",
                hint="Declare it once.",
            )
        for name in index.fields:
            if name not in types:
                raise ViewDefinitionError(
                    f"The {index.kind} of {view!r} reads {name!r}, which {state.__name__} does not have.",
                    hint="Name a field of the document.",
                )
            wrong = [kind for kind in _members(types[name]) if not _is_held(kind, index.holds)]
            if wrong:
                held = ", ".join(kind.__name__ for kind in index.holds)
                raise ViewDefinitionError(
                    f"The {index.kind} of {view!r} reads {name!r}, which may be "
                    f"{getattr(wrong[0], '__name__', wrong[0])}.",
                    hint=f"It holds {held}, and None.",
                )


def chosen(view: str, indexes: Sequence[Index], kind: type[Any], name: str | None) -> Any:
    """The index of a kind that a reader means. Raises DefinitionError where there is none, or several."""
    found = [
        index for index in indexes if isinstance(index, kind) and name in {None, index.fields[0]}
    ]
    if len(found) != 1:
        declared = ", ".join(map(name_of_index, indexes)) or "none"
        count = "several" if found else "no"
        raise DefinitionError(
            f"The fold {view!r} keeps {count} {kind.__name__}"
            + (f" of {name!r}." if name else " to read."),
            hint=f"Its indexes are {declared}; declare them by @app.fold(indexes=[...]).",
        )
    return found[0]


def _members(annotated: Any) -> tuple[Any, ...]:
    """The types of a union, without None; a type itself."""
    union = get_origin(annotated) is Union or type(annotated).__name__ == "UnionType"
    kinds = get_args(annotated) if union else (annotated,)
    return tuple(kind for kind in kinds if kind is not type(None))


def _is_held(kind: Any, held: tuple[type, ...]) -> bool:
    return isinstance(kind, type) and issubclass(kind, held) and kind is not bool


def _finite(name: str, value: float | Decimal) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} is {value}, which is no finite number")
    return number
