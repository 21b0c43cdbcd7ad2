"""Folds: the state of an entity as the sum of its events. Pure."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import (
    Any,
    Generic,
    Self,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from headwater.errors import ViewDefinitionError
from headwater.events import Column, Event, EventType, EventTypes, Recorded
from headwater.events.schema import relation_of, schema_of
from headwater.relay import OnFailure
from headwater.views.definition import Definition
from headwater.views.indexes import Distinct, Index, check_indexes, name_of_index
from headwater.views.opening import check_opens
from headwater.views.purpose import Purpose


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class _DocumentMeta(msgspec.StructMeta):
    """Documents are frozen, as their subclasses need not say."""

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        **config: Any,
    ) -> Any:
        return super().__new__(mcls, name, bases, namespace, **(config | {"frozen": True}))


class Document(msgspec.Struct, metaclass=_DocumentMeta):
    """The state that a fold keeps for one key.

    Every field has a default: that is the state before the first event.
    """

    def but(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return msgspec.structs.replace(self, **changes)


D = TypeVar("D", bound=Document)
Evolve = Callable[..., D | None]
Derive = Callable[..., Any]
"""``derive(before, after, event)``: what follows from a change, None where nothing does."""
Key = tuple[str, str]
"""Tenant and key: how a view's documents are told apart."""


@dataclass(frozen=True)
class Fold(Generic[D]):
    """A fold's definition.

    For each key, ``evolve(state, event)`` gives the next state, None to remove the document. A third parameter, where the function has one, receives the whole
    ``Recorded`` event. ``derive`` gives the events, or commands, that follow from a change. ``indexes`` are kept beside the documents. ``version`` is raised when code that ``evolve`` calls has changed. ``store`` names a store outside the log's database.
    ``opens`` names the personal fields that the function gets in clear. With a ``purpose`` there is a document for whoever
    agrees to it, from then on.
    """

    name: str
    key: str
    state: type[D]
    evolve: Evolve[D]
    events: tuple[type[Event], ...]
    takes_recorded: bool
    on_failure: OnFailure = "park"
    version: int = 1
    store: str | None = None
    derive: Derive | None = None
    indexes: tuple[Index, ...] = ()
    opens: tuple[str, ...] = ()
    purpose: Purpose | None = None
    takes: tuple[type[Event], ...] = ()
    """The types that the function takes: of a view for a purpose, not those that only say who agrees."""

    @staticmethod
    def of(
        evolve: Evolve[D],
        *,
        name: str | None,
        key: str,
        on_failure: OnFailure,
        version: int,
        store: str | None = None,
        indexes: Sequence[Index] = (),
        opens: Sequence[str] = (),
        purpose: Purpose | None = None,
    ) -> Fold[D]:
        """The fold of an annotated function. Raises ViewDefinitionError."""
        view = name or evolve.__name__
        parameters = list(inspect.signature(evolve).parameters)
        hints = get_type_hints(evolve)
        if len(parameters) not in {2, 3} or any(p not in hints for p in parameters[:2]):
            raise ViewDefinitionError(
                f"The fold {view!r} does not say what it folds.",
                hint="Write def name(state: State, event: Placed | Voided) -> State | None.",
            )
        state, annotated = hints[parameters[0]], hints[parameters[1]]
        union = get_origin(annotated) in {Union, types.UnionType}
        takes = get_args(annotated) if union else (annotated,)
        agreeing = () if purpose is None else (purpose.given, purpose.withdrawn)
        events = tuple(dict.fromkeys((*takes, *agreeing)))
        fold = Fold(
            view, key, state, evolve, events, len(parameters) == 3, on_failure, version, store,
            indexes=tuple(indexes), opens=tuple(sorted(set(opens))), purpose=purpose, takes=takes,
        )  # fmt: skip
        fold.check()
        return fold

    def check(self) -> None:
        """Raises ViewDefinitionError where state, events or key do not belong together."""
        state: object = self.state  # annotations may say anything
        if not (isinstance(state, type) and issubclass(state, Document)):
            raise ViewDefinitionError(
                f"The state of the fold {self.name!r} is not a Document.",
                hint="Subclass headwater.Document and give every field a default.",
            )
        try:
            self.state()
        except TypeError as error:
            raise ViewDefinitionError(
                f"{self.state.__name__} has a field without a default.",
                hint="The defaults are the state before the first event.",
            ) from error
        check_indexes(self.name, self.indexes, self.state)
        events: tuple[Any, ...] = self.events
        for event in events:
            if not (isinstance(event, type) and issubclass(event, Event)):
                raise ViewDefinitionError(
                    f"The fold {self.name!r} reads {event!r}, which is not an Event.",
                    hint="Annotate the second parameter with event classes.",
                )
            if self.key not in EventType.of(event).schema["required"]:
                raise ViewDefinitionError(
                    f"The fold {self.name!r} is keyed by {self.key!r}, which {event.__name__} does not "
                    "always have.",
                    hint="A fold's key is a required field of every event that it reads.",
                )
        check_opens(self.name, self.opens, self.types)
        if self.purpose is not None:
            self.purpose.check(self.name, self.key, self.opens, self.types)
        if self.opens and any(isinstance(index, Distinct) for index in self.indexes):
            raise ViewDefinitionError(
                f"The fold {self.name!r} opens personal fields and counts distinct values.",
                hint="What such a count has seen cannot be taken back: leave the index, or opens=, out.",
            )
        _ = self.definition

    @cached_property
    def definition(self) -> Definition:
        """The definition as data; the function counts by its code, comments and layout aside."""
        content = {
            "key": self.key,
            "state": schema_of(self.state),
            "events": {t.name: t.upcasting.meaning for t in map(EventType.of, self.events)},
            "evolve": _code_of(self.evolve),
            "version": self.version,
        }
        if self.store is not None:
            content["store"] = self.store
        if self.derive is not None:
            content["derive"] = _code_of(self.derive)
        if self.indexes:
            content["indexes"] = sorted(map(name_of_index, self.indexes))
        if self.opens:
            content["opens"] = list(self.opens)
        if self.purpose is not None:
            content["purpose"] = self.purpose.definition
        return Definition(self.name, "fold", content)

    @cached_property
    def fingerprint(self) -> str:
        """Changes whenever the definition does."""
        return self.definition.fingerprint

    @cached_property
    def key_names(self) -> list[str]:
        """The names that the key's field has, or had in earlier versions."""
        names = [n for t in self.types for n in t.upcasting.former_names(self.key)]
        return list(dict.fromkeys(names))

    @cached_property
    def is_key_text(self) -> bool:
        """Whether a key is in an event as it is, whatever the event's version: text that was never renamed."""
        return len(self.key_names) == 1 and all(
            t.schema["properties"][self.key] == {"type": "string"} for t in self.types
        )

    def streams_of(self, key: str) -> list[str] | None:
        """The streams that hold all events of a key, or None where that cannot be told.

        It can where each type's stream is named by the key alone, and has always been.
        """
        types = list(self.types)
        if any(t.schema_version > 1 or t.stream_name.fields != (self.key,) for t in types):
            return None
        return sorted({t.stream_pattern.replace(f"{{{self.key}}}", key) for t in types})

    @cached_property
    def type_names(self) -> list[str]:
        """The event types that the fold reads."""
        return [EventType.of(event).name for event in self.events]

    @cached_property
    def types(self) -> EventTypes:
        """The event types that the fold reads, for decoding."""
        return EventTypes(self.events)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The documents' fields as columns, for SQL views over them."""
        relation = relation_of(self.name, schema_of(self.state))
        own = set(schema_of(self.state)["properties"])
        fields = tuple(column for column in relation.columns if column.name in own)
        return (*fields, *(() if "key" in own else (Column("key", "text", "e.key"),)))


class Failed(Exception):
    """The fold's function raised at an event."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(reason)
        self.position = position
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Derived:
    """What a fold derived from a change: events and commands, and the event that it follows from."""

    position: int
    tenant: str
    what: tuple[Any, ...]


class FoldEvent(msgspec.Struct, frozen=True):
    """An event as a fold takes it: its key and what happened, decoded late."""

    position: int
    key: Key
    event: Event
    recorded: Recorded[Event] | None = None


def evolve_all(
    fold: Fold[D], states: dict[Key, D | None], events: Iterable[FoldEvent]
) -> Iterator[Key]:
    """Applies events in order to ``states``, in place; yields the keys as they change.

    Raises Failed at the first event that the function cannot take; the states of earlier events
    stand.
    """
    evolve, initial, purpose = fold.evolve, fold.state(), fold.purpose
    for item in events:
        state = states.get(item.key)
        if purpose is not None:
            said = purpose.said(item.event)
            if said == "given" and state is None:
                state = initial
            if said == "withdrawn":
                state = None
            if said is not None:
                states[item.key] = state
                yield item.key
            if state is None or type(item.event) not in fold.takes:
                continue
        try:
            arguments = (initial if state is None else state, item.event)
            changed = (
                evolve(*arguments, item.recorded) if fold.takes_recorded else evolve(*arguments)
            )
            if changed is not None and type(changed) is not fold.state:
                kind = type(changed).__name__
                raise TypeError(f"the fold returned {kind}, not {fold.state.__name__} or None")  # noqa: TRY301
            if changed is not None:
                for index in fold.indexes:
                    index.entry(changed)  # what it cannot hold cannot be applied
        except Exception as error:
            raise Failed(item.position, _reason(fold, error)) from error
        # Whether somebody agrees is told by whether there is a document.
        states[item.key] = initial if changed is None and purpose is not None else changed
        yield item.key


def _reason(fold: Fold[Any], error: Exception) -> str:
    """Why an event was not applied. It is kept, so of a view that opens it says nothing of the event's data."""
    kind = type(error).__name__
    return f"{kind}, in a view that opens personal fields" if fold.opens else f"{kind}: {error}"


def derive_all(
    fold: Fold[D], states: dict[Key, D | None], events: Sequence[FoldEvent]
) -> Iterator[Derived]:
    """Applies events as ``evolve_all`` does, and yields what the fold derives from the changes.

    ``derive`` takes the states as ``evolve`` does, its defaults where there is no document.
    """
    assert fold.derive is not None
    initial = fold.state()
    for item in events:
        before = states.get(item.key)
        for _ in evolve_all(fold, states, [item]):
            after = states[item.key]
            try:
                given = (initial if state is None else state for state in (before, after))
                what = fold.derive(*given, item.event)
            except Exception as error:
                raise Failed(item.position, f"{type(error).__name__}: {error}") from error
            if what is not None:
                several = tuple(what) if isinstance(what, (list, tuple)) else (what,)
                yield Derived(item.position, item.key[0], several)


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a view's keys, one of ``of``, numbered from 0; the same in every process."""

    number: int
    of: int

    def holds(self, key: Key) -> bool:
        """Whether a key is in this slice."""
        return zlib.crc32(f"{key[0]}\x00{key[1]}".encode()) % self.of == self.number


def _code_of(function: Callable[..., Any]) -> str:
    """A function's code, such that comments, layout and Python's version do not count."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError):
        return function.__code__.co_code.hex()
    definition = tree.body[0]
    if isinstance(definition, ast.FunctionDef):
        definition.decorator_list = []
    return ast.dump(definition, annotate_fields=False)
