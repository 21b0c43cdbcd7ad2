"""Whether one version of an event type can be read as another: schemas compared, nothing read. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import msgspec

from headwater.events.event import EventType
from headwater.events.schema import Schema
from headwater.events.upcasting import Cast, Computed, Default, Remove, Rename, Step

Level = Literal["fail", "warn"]

_CASTS: dict[type, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    Decimal: {"type": ["number", "string"], "format": "decimal"},
    bool: {"type": "boolean"},
    datetime: {"type": "string", "format": "date-time"},
    date: {"type": "string", "format": "date"},
    UUID: {"type": "string", "format": "uuid"},
}
_LIMITS = {"minimum": 1, "minLength": 1, "minItems": 1, "maximum": -1, "maxLength": -1, "maxItems": -1}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Issue:
    """What stands between two versions of a type: ``fail`` breaks readers, ``warn`` breaks going back."""

    level: Level
    problem: str
    remedy: str


def reading_old(declared: EventType, version: int, schema: Schema) -> list[Issue]:
    """What keeps events of an earlier version from being read as the declared one."""
    upcasting = declared.upcasting
    steps = [s for v in range(version, declared.schema_version) for s in upcasting.steps.get(v, ())]
    if not all(isinstance(step, Step) for step in steps):
        return []  # a function may do anything; the replay shows what it does
    fields = dict(schema["properties"])
    certain = set(schema["required"])
    for step in steps:
        _take(step, fields, certain)  # type: ignore[arg-type]
    own = declared.schema["properties"]
    issues = []
    for name in sorted(set(fields) - set(own)):
        remedy = f'Add Remove("{name}") to the steps, or Rename.'
        issues.append(Issue("fail", f"the field {name} was removed", remedy))
    for name, wanted in own.items():
        if name not in certain and name in upcasting.required:
            what = "may be missing" if name in fields else "is new, required, and has no default"
            remedy = f'Add Default("{name}", ...), or give it a default.'
            issues.append(Issue("fail", f"the field {name} {what}", remedy))
        elif name in fields and not fits(fields[name], wanted):
            change = f"the field {name} was {_told(fields[name])} and is {_told(wanted)}"
            issues.append(Issue("fail", change, f'Add Cast("{name}", ...) or Computed.'))
    return issues


def _take(step: Step, fields: dict[str, Schema], certain: set[str]) -> None:
    """What a step makes of a schema: the fields there may be, and those that are there for certain."""
    match step:
        case Rename():
            if step.field in fields:
                fields[step.to] = fields.pop(step.field)
            if step.field in certain:
                certain.remove(step.field)
                certain.add(step.to)
        case Remove():
            fields.pop(step.field, None)
            certain.discard(step.field)
        case Default():
            value: Schema = {"enum": [msgspec.json.decode(msgspec.json.encode(step.value))]}
            known = fields.get(step.field)
            fields[step.field] = value if known is None else {"anyOf": [known, value]}
            certain.add(step.field)
        case Cast():
            null = step.field in fields and fits({"type": "null"}, fields[step.field])
            to = _CASTS[step.to]
            fields[step.field] = {"anyOf": [to, {"type": "null"}]} if null else to
        case Computed():
            fields[step.field] = _CASTS[step.to]
            certain.discard(step.field)
            if certain >= set(step.inputs):
                certain.add(step.field)


def going_back(declared: EventType, version: int, schema: Schema) -> list[Issue]:
    """What keeps code of an earlier version from reading events of the declared one."""
    own, required = declared.schema["properties"], set(declared.schema["required"])
    problems = []
    for name, wanted in schema["properties"].items():
        needed = name in schema["required"]
        if name not in own:
            problems += [f"the field {name} is gone"] * needed
        elif not fits(own[name], wanted):
            problems.append(f"the field {name} is {_told(own[name])} and was {_told(wanted)}")
        elif needed and name not in required:
            problems.append(f"the field {name} may be missing")
    remedy = (
        f"Code of version {version} parks such events: write them once you need not go back to it."
    )
    return [Issue("warn", problem, remedy) for problem in problems]


def fits(given: Schema, wanted: Schema) -> bool:
    """Whether every value that one schema allows, the other allows too. In doubt, no."""
    if not wanted or given == wanted:
        return True
    if "anyOf" in given:
        return all(fits(option, wanted) for option in given["anyOf"])
    if "anyOf" in wanted:
        return any(fits(given, option) for option in wanted["anyOf"])
    if "enum" in given:
        return all(_allows(wanted, value) for value in given["enum"])
    if "enum" in wanted or not given:
        return False
    if given.get("format") != wanted.get("format") and "format" in wanted:
        return wanted["format"] == "decimal" and given.get("type") in {"integer", "number"}
    kinds = given.get("type"), wanted.get("type")
    if kinds == ("object", "object"):
        return _object_fits(given, wanted)
    if kinds == ("array", "array") and not fits(given.get("items", {}), wanted.get("items", {})):
        return False
    return (kinds[0] == kinds[1] or kinds == ("integer", "number")) and _within(given, wanted)


def _object_fits(given: Schema, wanted: Schema) -> bool:
    if "properties" not in given or "properties" not in wanted:
        open_ = given.get("additionalProperties"), wanted.get("additionalProperties")
        return all(isinstance(o, Mapping) for o in open_) and fits(*open_)  # type: ignore[arg-type]
    own = given["properties"]
    return set(wanted["required"]) <= set(given["required"]) and all(
        name not in own or fits(own[name], schema) for name, schema in wanted["properties"].items()
    )


def _within(given: Schema, wanted: Schema) -> bool:
    """Whether limits did not become tighter."""
    for name, sign in _LIMITS.items():
        if name in wanted and not (name in given and given[name] * sign >= wanted[name] * sign):
            return False
    return True


def _allows(wanted: Schema, value: Any) -> bool:
    if "enum" in wanted:
        return value in wanted["enum"]
    found = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null",
             list: "array", dict: "object"}[type(value)]  # fmt: skip
    if wanted.get("format") == "decimal":
        return found in {"integer", "number"} or (found == "string" and _is_decimal(value))
    kind = wanted.get("type")
    if "format" in wanted or found in {"array", "object"}:
        return found == kind  # its inside is seen by the replay
    measures = {"minimum": value, "maximum": value} if found in {"integer", "number"} else {}
    if found == "string":
        measures = {"minLength": len(value), "maxLength": len(value)}
    return (found == kind or (found, kind) == ("integer", "number")) and _within(measures, wanted)


def _is_decimal(text: str) -> bool:
    return text.lstrip("+-").replace(".", "", 1).isdigit()


def _told(schema: Schema) -> str:
    """A schema in a few words."""
    if "anyOf" in schema:
        return " or ".join(_told(option) for option in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(map(repr, schema["enum"]))
    limits = [f"{name} {schema[name]}" for name in _LIMITS if name in schema]
    return ", ".join([str(schema.get("format") or schema.get("type") or "anything"), *limits])
