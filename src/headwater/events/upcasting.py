"""Upcasting: events of an earlier version, read in the newest shape.

What changed from one version to the next is a list of steps. A step is data, compiled twice: to Python, for
folds and readers, and to SQL over the stored data, for views that never leave Postgres. Both work on fields
of a JSON object, where a field is absent, null or a value. A value that a step cannot convert is absent
afterwards, so a field that is required and has no default is missing, and the event is parked.

A Python function may stand among the steps. It is compiled to nothing else, so only folds and readers read
that type.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from dataclasses import field as own
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from headwater.errors import EventDefinitionError
from headwater.events.expressions import SQL_TYPES, Compiled, compiled

Data = dict[str, Any]
"""An event's data: numbers with a fraction are Decimals, so that nothing is lost."""
Shape = dict[str, str]
"""SQL of type jsonb for fields that steps have touched; NULL where the field is absent."""

ABSENT = "NULL::jsonb"
_encode = msgspec.json.Encoder(decimal_format="number").encode
_NUMBER = r"[-+]?[0-9]+(\.[0-9]+)?"
_LAYOUTS: dict[type, str] = {
    int: r"[-+]?[0-9]+(\.0+)?",
    Decimal: _NUMBER,
    float: _NUMBER + r"([eE][-+]?[0-9]{1,3})?",
}


@dataclass(frozen=True, slots=True)
class Step(ABC):
    """One change of an event's data, of one field."""

    field: str

    @abstractmethod
    def apply(self, data: Data) -> None:
        """Changes the data."""

    @abstractmethod
    def shape(self, shape: Shape) -> None:
        """Changes the fields' SQL."""

    @property
    def content(self) -> dict[str, Any]:
        """The step as data."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        return {"step": type(self).__name__.lower()} | {n: _plain(v) for n, v in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return value.__name__ if isinstance(value, type) else value


Function = Callable[[Data], Data]
Steps = Sequence[Step | Function]


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def stored(shape: Shape, name: str) -> str:
    """The SQL of a field: what steps made of it, or what the log holds."""
    return shape.get(name, f"(e.data -> {_literal(name)})")


@dataclass(frozen=True, slots=True)
class Rename(Step):
    """A field has another name."""

    to: str

    def apply(self, data: Data) -> None:
        """Moves the value, if there is one."""
        if self.field in data:
            data[self.to] = data.pop(self.field)

    def shape(self, shape: Shape) -> None:
        """Moves the SQL."""
        shape[self.to] = f"coalesce({stored(shape, self.field)}, {stored(shape, self.to)})"
        shape[self.field] = ABSENT


@dataclass(frozen=True, slots=True)
class Remove(Step):
    """A field is no more."""

    def apply(self, data: Data) -> None:
        """Takes it out."""
        data.pop(self.field, None)

    def shape(self, shape: Shape) -> None:
        """Takes it out."""
        shape[self.field] = ABSENT


@dataclass(frozen=True, slots=True)
class Default(Step):
    """A field is new: earlier events have this value. One that is null stays null."""

    value: Any

    def apply(self, data: Data) -> None:
        """Fills what is absent."""
        if self.field not in data:
            data[self.field] = _loads(_encode(self.value))

    def shape(self, shape: Shape) -> None:
        """Fills what is absent."""
        text = _literal(_encode(self.value).decode())
        shape[self.field] = f"coalesce({stored(shape, self.field)}, {text}::jsonb)"


@dataclass(frozen=True, slots=True)
class Cast(Step):
    """A field has another type: str, int, float, Decimal or bool; datetime, date and UUID are text."""

    to: type

    def __post_init__(self) -> None:
        if self.to not in {*SQL_TYPES, datetime, date, UUID}:
            raise EventDefinitionError(
                f"The field {self.field!r} cannot be cast to {self.to!r}.",
                hint="Cast to str, int, float, Decimal, bool, datetime, date or UUID, or compute it.",
            )

    def apply(self, data: Data) -> None:
        """Converts the value. What cannot be converted is taken out; null stays null."""
        if self.field in data and data[self.field] is not None:
            value = _cast(data.pop(self.field), self.to)
            if value is not None:
                data[self.field] = value

    def shape(self, shape: Shape) -> None:
        """Converts the value."""
        value = stored(shape, self.field)
        text = f"({value} #>> '{{}}')"
        if self.to is bool:
            converted = f"CASE {text} WHEN 'true' THEN 'true'::jsonb WHEN 'false' THEN 'false'::jsonb END"  # fmt: skip
        elif (layout := _LAYOUTS.get(self.to)) is not None:
            number = f"trunc({text}::numeric)" if self.to is int else f"{text}::numeric"
            converted = f"CASE WHEN {text} ~ '^({layout})$' THEN to_jsonb({number}) END"
        else:
            converted = f"CASE WHEN jsonb_typeof({value}) NOT IN ('object', 'array') THEN to_jsonb({text}) END"  # fmt: skip
        shape[self.field] = f"CASE WHEN {value} = 'null' THEN {value} ELSE {converted} END"


def _cast(value: Any, to: type) -> Any:
    if isinstance(value, dict | list):
        return None
    if isinstance(value, bool):
        text = str(value).lower()
    else:
        text = format(value, "f") if isinstance(value, Decimal) else str(value)
    if to is bool:
        return {"true": True, "false": False}.get(text)
    if (layout := _LAYOUTS.get(to)) is None:
        return text
    if re.fullmatch(layout, text, re.ASCII) is None:
        return None
    number = Decimal(text)
    return int(number) if to is int else number or number.copy_abs()  # no -0 in Postgres


@dataclass(frozen=True, slots=True)
class Computed(Step):
    """A field follows from others by a SQL expression, such as ``net + tax``.

    ``inputs`` gives the types of the fields that it names: str, int, float, Decimal or bool. Raises
    EventDefinitionError where Python and Postgres would not compute the same.
    """

    expression: str
    inputs: Mapping[str, type]
    _compiled: Compiled = own(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not set(self.inputs.values()) <= set(SQL_TYPES):
            raise EventDefinitionError(
                f"The expression {self.expression!r} has inputs of other types than a SQL expression takes.",
                hint="Give str, int, float, Decimal or bool.",
            )
        object.__setattr__(self, "_compiled", self._compile({}))

    @property
    def to(self) -> type:
        """The type of what is computed."""
        return self._compiled.type

    def _compile(self, shape: Shape) -> Compiled:
        fields = {
            name: (kind, f"(({stored(shape, name)} #>> '{{}}')::{SQL_TYPES[kind]})")
            for name, kind in self.inputs.items()
        }
        return compiled(self.expression, fields)

    def apply(self, data: Data) -> None:
        """Sets the field; a result that is null takes it out."""
        values = {name: _typed(data.get(name), kind) for name, kind in self.inputs.items()}
        result = self._compiled.value(values)
        data.pop(self.field, None)
        if result is not None:
            data[self.field] = result

    def shape(self, shape: Shape) -> None:
        """Sets the field."""
        shape[self.field] = f"to_jsonb({self._compile(shape).sql})"


def _typed(value: Any, kind: type) -> Any:
    """A JSON value as an input of an expression, as Postgres would read its text."""
    if value is None:
        return None
    if kind is str:
        return _cast(value, str)
    if kind is bool:
        return value if isinstance(value, bool) else _cast(value, bool)
    return kind(Decimal(str(value)))


def _loads(data: bytes | str) -> Any:
    return json.loads(data, parse_float=Decimal)


@dataclass(frozen=True, slots=True)
class Upcasting:
    """What an event type knows of other versions than its own.

    ``steps[v]`` leads from version v to v + 1. ``defaults`` are the fields of the class that have one, as
    JSON: they hold for events that lack them. Events of a newer version are read as they are, what is
    unknown in them passed by.
    """

    version: int = 1
    steps: Mapping[int, Steps] = own(default_factory=dict)
    defaults: Mapping[str, bytes] = own(default_factory=dict)
    required: frozenset[str] = frozenset()

    @property
    def confined(self) -> bool:
        """Whether a Python function is among the steps, so that SQL cannot do the same."""
        return any(not isinstance(s, Step) for steps in self.steps.values() for s in steps)

    @property
    def content(self) -> dict[str, Any]:
        """The steps as data, by the version that they lead from."""
        return {
            str(version): [
                step.content if isinstance(step, Step) else {"function": step.__qualname__}
                for step in steps
            ]
            for version, steps in sorted(self.steps.items())
        }

    def former_names(self, name: str) -> list[str]:
        """The names that a field has had, the newest first."""
        names = [name]
        for version in sorted(self.steps, reverse=True):
            for step in reversed(self.steps[version]):
                if isinstance(step, Rename) and step.to == names[-1]:
                    names.append(step.field)
        return names

    def upcast(self, data: bytes | str, version: int) -> Data:
        """The data of an event of another version in this version's shape."""
        value: Data = _loads(data)
        for between in range(version, self.version):
            for step in self.steps.get(between, ()):
                if isinstance(step, Step):
                    step.apply(value)
                else:
                    value = step(value)
        return value

    @property
    def meaning(self) -> dict[str, Any]:
        """The steps that change what earlier events say. New fields do not: no code read them."""
        told = {
            version: [step for step in steps if step.get("step") != "default"]
            for version, steps in self.content.items()
        }
        return {version: steps for version, steps in told.items() if steps}

    def changes(self, name: str) -> str:
        """The arms of a CASE over ``e.schema_version``: the SQL, as jsonb, of a field that steps touch."""
        arms = []
        for version in range(1, self.version):
            shape: Shape = {}
            for between in range(version, self.version):
                for step in self.steps.get(between, ()):
                    if isinstance(step, Step):
                        step.shape(shape)
            if name in shape:
                arms.append(f"WHEN {version} THEN {shape[name]}")
        return " ".join(arms)

    def column(self, name: str) -> str | None:
        """The SQL, as jsonb, of a field of events of other versions; None where it is read as it is."""
        found = stored({}, name)
        if arms := self.changes(name):
            found = f"CASE e.schema_version {arms} ELSE {found} END"
        if name in self.required:
            return f"headwater.required_field({found}, {_literal(name)}, e.type, e.schema_version, {self.version})"
        if (default := self.defaults.get(name)) not in {None, b"null"}:
            return f"coalesce({found}, {_literal(default.decode())}::jsonb)"
        return found if arms else None
