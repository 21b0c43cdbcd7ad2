"""What a fact is: typed, immutable, under an explicit stable name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from functools import cache
from keyword import iskeyword
from typing import Any, ClassVar, Generic, TypeVar, dataclass_transform
from uuid import UUID

import msgspec
from msgspec import StructMeta
from msgspec.structs import fields as struct_fields

from headwater.errors import EventDefinitionError, InvalidEvent, UnknownEventType
from headwater.events.pattern import Pattern
from headwater.events.personal import (
    blind_indexes,
    kept_days,
    personal_fields,
    sealed_properties,
    sealed_schema,
)
from headwater.events.relations import Relation
from headwater.events.schema import Schema, relation_of, schema_of
from headwater.events.upcasting import Step, Steps, Upcasting

_TYPE_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*){1,3}")
_PATTERN = re.compile(r"[a-z][a-z0-9_-]*/[^{}]*(\{[A-Za-z_][A-Za-z0-9_]*\}[^{}]*)+")

_EXPONENT = re.compile(rb'"-?[0-9](\.[0-9]+)?E[-+][0-9]+"')
_encoder = msgspec.json.Encoder(decimal_format="string")
_renumber = msgspec.json.Encoder(decimal_format="number").encode


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class _EventMeta(StructMeta):
    """Takes ``type``, ``stream`` and ``version`` from the class line and checks them there."""

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        type: str | None = None,  # noqa: A002 - the word users write
        stream: str | None = None,
        version: int = 1,
        keys: tuple[str, ...] = (),
        upcasts: Mapping[int, Steps] | None = None,
        **config: Any,
    ) -> Any:
        config = {"forbid_unknown_fields": True} | config | {"frozen": True}
        if type is not None or stream is not None:
            namespace["__declared__"] = (type or "", stream or "", version, keys, upcasts or {})
        elif bases and bases != (msgspec.Struct,):
            raise EventDefinitionError(
                f"The event {name} has no type.",
                hint=f'Write class {name}(Event, type="category.happened", stream="category/{{field}}").',
            )
        return super().__new__(mcls, name, bases, namespace, **config)


class Event(msgspec.Struct, metaclass=_EventMeta):
    """A fact.

    Subclass with a stable type name and the stream that it belongs to:
    ``class Placed(Event, type="order.placed", stream="order/{order}")``

    Fields are typed; instances are immutable. A changed set of fields is a new ``version``, and
    ``upcasts`` says how events of earlier versions are read as it: the steps that lead from each version
    to the next, such as ``{1: [Rename("sum", "total")]}``. ``keys`` are what decisions may depend on
    beside the stream, such as ``("mail:{mail}",)``; one with a field that is None is left out.
    """

    __declared__: ClassVar[tuple[str, str, int, tuple[str, ...], Mapping[int, Steps]]]


E_co = TypeVar("E_co", bound=Event, covariant=True)


@dataclass(frozen=True, slots=True)
class EventType:
    """One version of one type of event: its names, its schema, and how its data is coded."""

    name: str
    schema_version: int
    stream_pattern: str
    event_class: type[Event]
    schema: Schema
    decoder: msgspec.json.Decoder[Event]
    stream_name: Pattern
    key_names: tuple[Pattern, ...]
    upcasting: Upcasting
    personal: Mapping[str, str]
    """Personal fields, with the field that names each one's subject."""
    blind: Mapping[str, str]
    """Those that are found by what they say, with the name of the index."""
    kept_days: Mapping[str, int]
    """Those that nobody can open after so many days."""

    @staticmethod
    @cache
    def of(event_class: type[Event]) -> EventType:
        """The type of an event class.

        Raises EventDefinitionError where the class's names or fields are not well formed.
        """
        name, pattern, version, keys, upcasts = event_class.__declared__
        schema, personal = event_class.__dict__.get("__registered__"), {}
        blind, kept = {}, {}
        if schema is None:  # what is registered, the database has checked
            schema = schema_of(event_class)
            _check_names(event_class, name, pattern, version, schema)
            _check_keys(event_class, keys)
            personal = personal_fields(event_class, schema)
            blind, kept = blind_indexes(event_class), kept_days(event_class)
            _check_personal(event_class, personal, pattern, keys)
            schema = sealed_schema(schema, personal)
            _check_upcasts(event_class, version, upcasts)
            upcasting = Upcasting(
                version, upcasts, _defaults_of(event_class), frozenset(schema["required"])
            )
        else:  # of any version, what it lacks unset
            upcasting = Upcasting(version)
            personal = {
                name: subject
                for name, subject in sealed_properties(schema).items()
                if hasattr(event_class, name) and hasattr(event_class, subject)
            }
        decoder = msgspec.json.Decoder(event_class)
        stream, key_names = Pattern.of(pattern), tuple(map(Pattern.of, keys))
        return EventType(
            name,
            version,
            pattern,
            event_class,
            schema,
            decoder,
            stream,
            key_names,
            upcasting,
            personal,
            blind,
            kept,
        )

    @staticmethod
    def registered(name: str, version: int, pattern: str, schema: Schema) -> EventType:
        """A type as the log's registry has it, for code that has no class of its own for it.

        The database checks such events; here their fields are of any type, and events of other versions
        are read too, what they lack unset.
        """
        title = "".join(word.title() for word in re.split(r"[._]", name))
        return EventType.of(
            _EventMeta(
                title,
                (Event,),
                fields_of(schema, msgspec.UNSET),
                type=name,
                stream=pattern,
                version=version,
                forbid_unknown_fields=False,
            )
        )

    @property
    def relation(self) -> Relation:
        """The typed relation that SQL views read for this type, events of all versions in it."""
        return relation_of(self.name, self.schema, self.upcasting)

    def stream_of(self, event: Event) -> str:
        """The name of the stream that an event belongs to."""
        return self.stream_name.fill(event)

    def keys_of(self, event: Event) -> list[str]:
        """The keys that an event carries by its class."""
        filled = (pattern.fill_known(event) for pattern in self.key_names)
        return [key for key in filled if key is not None]

    def decode(self, data: bytes | str, schema_version: int | None = None) -> Event:
        """The typed event of stored data, by default of this version.

        An earlier one is upcast; of a newer one, what is unknown is passed by. Raises
        msgspec.ValidationError where it does not fit.
        """
        if schema_version in {None, self.schema_version}:
            return self.decoder.decode(data)
        assert schema_version is not None
        try:
            whole = self.upcasting.upcast(data, schema_version)
            known = self.schema["properties"]
            return self.decoder.decode(
                _renumber({name: value for name, value in whole.items() if name in known})
            )
        except Exception as error:  # a step may raise what it likes
            raise msgspec.ValidationError(
                f"The event is version {schema_version} of {self.name!r}, and cannot be read as version "
                f"{self.schema_version}: {error}"
            ) from error


def fields_of(schema: Schema, default: object) -> dict[str, Any]:
    """The namespace of a struct with a schema's fields, of any type and with one default.

    Those whose names are none of Python's are fields by their place.
    """
    names: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for place, field in enumerate(schema["properties"]):
        attribute = field if field.isidentifier() and not iskeyword(field) else f"field_{place}"
        names[attribute] = Any
        defaults[attribute] = msgspec.field(default=default, name=field)
    return {"__annotations__": names, "__registered__": schema, "__module__": __name__, **defaults}


def encode(event: Event) -> bytes:
    """An event's data as JSON. Raises InvalidEvent for what JSON or Postgres cannot hold."""
    try:
        data = _encoder.encode(event)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidEvent(
            f"The data of {type(event).__name__} cannot be written as JSON: {error}.",
            hint="Numbers are 64-bit integers, floats or decimals; text is valid Unicode.",
        ) from error
    if _EXPONENT.search(data):
        data = _encoder.encode(_spelled_out(event))
    if b"\\u0000" in data:
        raise InvalidEvent(
            f"The data of {type(event).__name__} holds the character NUL, which Postgres cannot store.",
            hint="Remove it.",
        )
    return data


_AS_THEY_ARE = (datetime, date, time, UUID, Decimal, bytes)


def _spelled_out(event: Event) -> Any:
    """The event's data with decimals in digits alone: 0.000000001 and not 1E-9, which is no decimal's layout."""

    def spell(value: Any) -> Any:
        if isinstance(value, Decimal):
            return format(value, "f") if value.is_finite() else value
        if isinstance(value, dict):
            return {name: spell(each) for name, each in value.items()}
        return [spell(each) for each in value] if isinstance(value, list | tuple) else value

    return spell(msgspec.to_builtins(event, builtin_types=_AS_THEY_ARE))


def _check_names(cls: type[Event], name: str, pattern: str, version: int, schema: Schema) -> None:
    where = f"The event {cls.__name__}"
    if not _TYPE_NAME.fullmatch(name) or len(name) > 100:
        raise EventDefinitionError(
            f"{where} has the malformed type {name!r}.",
            hint="Write two to four lower-case words with dots, such as order.placed.",
        )
    if not _PATTERN.fullmatch(pattern):
        raise EventDefinitionError(
            f"{where} has the malformed stream {pattern!r}.",
            hint="Write category/{field}, such as order/{order}.",
        )
    if version < 1:
        raise EventDefinitionError(f"{where} has version {version}.", hint="Versions count from 1.")
    types = {field.name: field.type for field in struct_fields(cls)}
    for placeholder in Pattern.of(pattern).fields:
        if placeholder not in schema["required"] or types[placeholder] not in (str, int, UUID):
            raise EventDefinitionError(
                f"{where} names the stream by {placeholder!r}, which is no required field of type "
                "str, int or UUID.",
                hint="A stream's name must follow from every event of it.",
            )


def _check_keys(cls: type[Event], keys: tuple[str, ...]) -> None:
    known = {field.name for field in struct_fields(cls)}
    for key in keys:
        fields = Pattern.of(key).fields
        if not fields or not known.issuperset(fields):
            raise EventDefinitionError(
                f"The event {cls.__name__} has the malformed key {key!r}.",
                hint="Write a text with the names of its fields in braces, such as mail:{mail}.",
            )


def _check_personal(
    cls: type[Event], personal: Mapping[str, str], pattern: str, keys: tuple[str, ...]
) -> None:
    """Raises EventDefinitionError where a personal field would stand in a name in clear."""
    named = {name for text in (pattern, *keys) for name in Pattern.of(text).fields}
    if clear := sorted(named & set(personal)):
        raise EventDefinitionError(
            f"The personal field {cls.__name__}.{clear[0]} is part of a stream's or a key's name.",
            hint="Names are not sealed: use an identifier that says nothing of the person.",
        )


def _check_upcasts(cls: type[Event], version: int, upcasts: Mapping[int, Steps]) -> None:
    """Raises EventDefinitionError for steps that lead from nowhere."""
    if wrong := [v for v in upcasts if not 1 <= v < version]:
        raise EventDefinitionError(
            f"The event {cls.__name__} is version {version} and says how to upcast from {wrong[0]}.",
            hint="Write the steps under the version that they lead from; they lead to the next one.",
        )
    for steps in upcasts.values():
        for step in steps:
            if not isinstance(step, Step) and not callable(step):
                raise EventDefinitionError(
                    f"The event {cls.__name__} has the upcasting step {step!r}.",
                    hint="Use Rename, Remove, Default, Cast, Computed, or a function of the data.",
                )


def _defaults_of(cls: type[Event]) -> dict[str, bytes]:
    """The defaults of a class's fields, as JSON."""
    found: dict[str, bytes] = {}
    for each in struct_fields(cls):
        if each.default_factory is not msgspec.NODEFAULT:
            found[each.encode_name] = _encoder.encode(each.default_factory())
        elif each.default is not msgspec.NODEFAULT:
            found[each.encode_name] = _encoder.encode(each.default)
    return found


class Recorded(msgspec.Struct, Generic[E_co], frozen=True):
    """An event as the log holds it: what happened, and where in the log it stands."""

    position: int
    tenant: str
    stream: str
    version: int
    type: str
    schema_version: int
    id: UUID
    recorded_at: datetime
    occurred_at: datetime | None
    event: E_co
    metadata: dict[str, Any]
    keys: tuple[str, ...] = ()


class EventTypes:
    """The event types that an app declares, by class and by name."""

    def __init__(self, classes: Iterable[type[Event]]) -> None:
        self._by_name: dict[str, EventType] = {}
        for event_class in classes:
            self.add(event_class)

    def add(self, event_class: type[Event]) -> None:
        """Declares one more. Raises EventDefinitionError where another class has its name."""
        declared = EventType.of(event_class)
        clash = self._by_name.get(declared.name)
        if clash is not None and clash.event_class is not event_class:
            raise EventDefinitionError(
                f"{clash.event_class.__name__} and {event_class.__name__} have the same type "
                f"{declared.name!r}.",
                hint="Each type is declared once; its newest version replaces the older class.",
            )
        self._by_name[declared.name] = declared

    def __iter__(self) -> Iterator[EventType]:
        return iter(self._by_name.values())

    def get(self, name: str) -> EventType | None:
        """The type of that name, or None."""
        return self._by_name.get(name)

    def named(self, name: str) -> EventType:
        """The type of that name. Raises UnknownEventType."""
        if (found := self._by_name.get(name)) is None:
            raise UnknownEventType(
                f"The app does not declare the event type {name!r}.",
                hint="Add its class to App(events=...).",
            )
        return found
