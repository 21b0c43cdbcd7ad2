"""The OpenAPI 3.1 document, made from the operations' own declarations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from headwater.entrances.http.appending import AppendedEvent, Receipt
from headwater.entrances.http.behind import Between, Explained, FieldChange, PastRow
from headwater.entrances.http.events import EventPage, StoredEvent, StreamPage
from headwater.entrances.http.health import Readiness
from headwater.entrances.http.jobs import SHOWN
from headwater.entrances.http.lines import CloudEvent, EventLine
from headwater.entrances.http.live.presence import Member, Members
from headwater.entrances.http.overview import (
    CallerState,
    DefinitionText,
    LogState,
    Overview,
    ParkedEvent,
    ParkedPage,
    ViewLag,
)
from headwater.entrances.http.problems import MEDIA_TYPE, STATUS, Problem
from headwater.entrances.http.routes import Operation, Parameter
from headwater.entrances.http.tickets import Ticket
from headwater.entrances.http.views import Row, ViewList, ViewPage, ViewState
from headwater.errors import (
    BodyTooLarge,
    BodyTooSlow,
    DatabaseUnavailable,
    Forbidden,
    HeadwaterError,
    MediaTypeRefused,
    MethodRefused,
    RateExceeded,
    RequestRefused,
    Unauthenticated,
)
from headwater.operations.health import Finding
from headwater.views.definition import Change

_NAMED = (
    EventLine, CloudEvent, Receipt, AppendedEvent, Problem, StoredEvent, EventPage, StreamPage,
    ViewState, ViewList, ViewPage, Row, Readiness, Finding, Ticket,
    Member, Members, CallerState, Overview, LogState, ViewLag, DefinitionText, ParkedEvent, ParkedPage,
    Explained, Change, PastRow, Between, FieldChange,
    *SHOWN,
)  # fmt: skip


def schema(named: str) -> Mapping[str, Any]:
    """A reference to a named schema."""
    return {"$ref": f"#/components/schemas/{named}"}


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = operation.path.replace(":path}", "}")
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Headwater",
            "version": version("headwater"),
            "description": "Append events to the log, read it in order, read its views.",
        },
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "ticket": {"type": "apiKey", "in": "query", "name": "ticket"},
            },
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.run.__name__,
        "summary": operation.summary,
        "parameters": [_parameter(parameter) for parameter in operation.parameters],
        "responses": {
            str(status): {
                "description": answer.about,
                "headers": {
                    name: {"description": about, "schema": {"type": "string"}}
                    for name, about in answer.headers.items()
                },
                "content": {media: {"schema": one} for media, one in answer.content.items()},
            }
            for status, answer in operation.answers.items()
        }
        | _refusals(operation),
    }
    if operation.scope is not None:
        described["security"] = [{"token": [] if operation.scope == "any" else [operation.scope]}]
        if operation.by_ticket:
            described["security"].append({"ticket": []})
        described["description"] = (
            "Needs a token of any scope."
            if operation.scope == "any"
            else f"Needs a token of the scope `{operation.scope}`."
        )
    if operation.body:
        described["requestBody"] = {
            "required": True,
            "content": {media: {"schema": one} for media, one in operation.body.items()},
        }
    return described


def refusals_of(operation: Operation) -> Sequence[type[HeadwaterError]]:
    """All errors that an operation may answer with."""
    common: list[type[HeadwaterError]] = [RequestRefused, MethodRefused]
    if operation.scope is not None:
        common += [Unauthenticated, Forbidden, RateExceeded, DatabaseUnavailable]
    if operation.body:
        common += [BodyTooLarge, BodyTooSlow, MediaTypeRefused]
    return [*common, *operation.refusals]


def _refusals(operation: Operation) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for refusal in refusals_of(operation):
        by_status.setdefault(STATUS[refusal], []).append(refusal.code)
    return {
        str(status): {
            "description": f"Refused: {', '.join(f'`{code}`' for code in codes)}.",
            "content": {MEDIA_TYPE: {"schema": schema("Problem")}},
        }
        for status, codes in sorted(by_status.items())
        if status not in operation.answers
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.required or parameter.where == "path",
        "description": parameter.about,
        "schema": dict(parameter.schema),
    }


def _schemas() -> dict[str, Any]:
    _, components = msgspec.json.schema_components(
        _NAMED, ref_template="#/components/schemas/{name}"
    )
    found: dict[str, Any] = dict(components)
    # Raw JSON has any schema; an event's data and metadata are objects.
    for name, fields in {
        "EventLine": ("data",),
        "CloudEvent": ("data",),
        "StoredEvent": ("data", "metadata"),
        "Row": ("row",),
        "ParkedEvent": ("data",),
    }.items():
        for field in fields:
            found[name]["properties"][field] = {"type": "object"}
    found["EventLine"]["properties"]["metadata"] = {
        "anyOf": [{"type": "object"}, {"type": "null"}],
        "default": None,
    }
    cloud = found["CloudEvent"]
    cloud["properties"]["specversion"] = {"const": "1.0"}
    cloud["propertyNames"] = {"pattern": "^[a-z0-9]{1,64}$"}
    cloud["additionalProperties"] = {"type": ["string", "integer", "boolean", "null"]}
    return found
