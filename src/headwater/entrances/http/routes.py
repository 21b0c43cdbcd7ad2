"""What an operation is: the declaration that requests are checked by and that OpenAPI is made from."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from headwater.entrances.http.access import Caller
from headwater.errors import HeadwaterError, RequestRefused
from headwater.operations.access import Scope

if TYPE_CHECKING:
    from headwater.entrances.http.service import Service

Schema = Mapping[str, Any]

_WHOLE = re.compile(r"[0-9]{1,19}")
_FRACTION = re.compile(r"[0-9]{1,10}(\.[0-9]{1,20})?([eE][-+]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class Text:
    """A parameter that is text."""

    name: str
    about: str
    pattern: str | None = None
    max_length: int = 255
    where: Literal["query", "header", "path"] = "query"
    required: bool = False
    encoded: bool = False
    """Whether the operation decodes and checks it itself."""

    @property
    def schema(self) -> Schema:
        """The parameter as JSON Schema."""
        pattern = {} if self.pattern is None else {"pattern": f"^({self.pattern})$"}
        return {"type": "string", "minLength": 1, "maxLength": self.max_length, **pattern}


@dataclass(frozen=True, slots=True)
class Number:
    """A parameter that is a number, whole unless ``fraction``."""

    name: str
    about: str
    least: int
    most: int
    default: int
    fraction: bool = False
    where: Literal["query"] = "query"
    required: bool = False

    @property
    def schema(self) -> Schema:
        """The parameter as JSON Schema."""
        kind = "number" if self.fraction else "integer"
        bounds = {"minimum": self.least, "maximum": self.most}
        return {"type": kind, **bounds, "default": self.default}


@dataclass(frozen=True, slots=True)
class Flag:
    """A parameter that is true or false."""

    name: str
    about: str
    where: Literal["query"] = "query"
    required: bool = False

    @property
    def schema(self) -> Schema:
        """The parameter as JSON Schema."""
        return {"type": "boolean", "default": False}


@dataclass(frozen=True, slots=True)
class Texts:
    """A parameter that may be given several times."""

    name: str
    about: str
    pattern: str | None = None
    max_length: int = 255
    most: int = 50
    where: Literal["query"] = "query"
    required: bool = False

    @property
    def schema(self) -> Schema:
        """The parameter as JSON Schema."""
        one = Text(self.name, self.about, self.pattern, self.max_length).schema
        return {"type": "array", "items": one, "maxItems": self.most}


Parameter = Text | Number | Flag | Texts


@dataclass(frozen=True, slots=True)
class Answer:
    """One way in which an operation succeeds: media types and their schemas; none: no body."""

    about: str
    content: Mapping[str, Schema] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Call:
    """One request to one operation, checked against the operation's declaration."""

    service: Service
    request: Request
    caller: Caller
    query: Mapping[str, Any]

    def text(self, name: str) -> str | None:
        """A text parameter, or None where it is absent."""
        value: str | None = self.query.get(name)
        return value

    def number(self, name: str) -> int:
        """A whole number, or its default."""
        return int(self.query[name])

    def seconds(self, name: str) -> float:
        """A number of seconds, or its default."""
        return float(self.query[name])

    def flag(self, name: str) -> bool:
        """Whether a flag is set."""
        return bool(self.query[name])

    def texts(self, name: str) -> Sequence[str]:
        """All values of a parameter, none where it is absent."""
        values: Sequence[str] = self.query[name]
        return values


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    method: Literal["GET", "POST"]
    path: str
    summary: str
    run: Callable[[Call], Awaitable[Response]]
    answers: Mapping[int, Answer]
    scope: Scope | Literal["any"] | None = None
    """What a token must have: one scope, or any; None: no token is needed."""
    parameters: Sequence[Parameter] = ()
    body: Mapping[str, Schema] = field(default_factory=dict)
    refusals: Sequence[type[HeadwaterError]] = ()
    by_ticket: bool = False
    """Whether a ticket in the query opens it instead of a token."""

    def values(self, request: HTTPConnection) -> dict[str, Any]:
        """The values of query and path by name. Raises RequestRefused for what is unknown or malformed."""
        known = {p.name: p for p in self.parameters if p.where == "query"}
        given: dict[str, list[str]] = {}
        for name, value in request.query_params.multi_items():
            if name not in known:
                raise RequestRefused(
                    f"There is no parameter {name[:100]!r} here.",
                    hint=f"There is {', '.join(known) or 'none'}.",
                )
            given.setdefault(name, []).append(value)
        values = {name: _value(p, given.get(name)) for name, p in known.items()}
        for parameter in self.parameters:
            if parameter.where == "path" and not parameter.encoded:
                values[parameter.name] = _value(parameter, [request.path_params[parameter.name]])
        return values


def _value(parameter: Parameter, given: list[str] | None) -> Any:
    if isinstance(parameter, Texts):
        if given is not None and len(given) > parameter.most:
            raise _malformed(parameter, f"more than {parameter.most} are given")
        return tuple(_text(parameter, value) for value in given or ())
    if given is None:
        if parameter.required:
            raise _malformed(parameter, "is missing")
        return getattr(parameter, "default", False if isinstance(parameter, Flag) else None)
    if len(given) > 1:
        raise _malformed(parameter, "is given more than once")
    (value,) = given
    if isinstance(parameter, Flag):
        if value not in {"true", "false"}:
            raise _malformed(parameter, "is neither true nor false")
        return value == "true"
    return _number(parameter, value) if isinstance(parameter, Number) else _text(parameter, value)


def _number(parameter: Number, text: str) -> float | int:
    if not (_FRACTION if parameter.fraction else _WHOLE).fullmatch(text):
        raise _malformed(parameter, "is no number")
    value = float(text) if parameter.fraction else int(text)
    if not parameter.least <= value <= parameter.most:
        raise _malformed(parameter, f"is not between {parameter.least} and {parameter.most}")
    return value


def _text(parameter: Text | Texts, value: str) -> str:
    if not value or len(value) > parameter.max_length or "\x00" in value or not _encodable(value):
        raise _malformed(parameter, f"is not 1 to {parameter.max_length} characters of text")
    if parameter.pattern is not None and not re.fullmatch(parameter.pattern, value):
        raise _malformed(parameter, f"does not match {parameter.pattern}")
    return value


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _malformed(parameter: Parameter, why: str) -> RequestRefused:
    return RequestRefused(f"The parameter {parameter.name!r} {why}.", hint=parameter.about)
