"""Event types of the registry as source text: Python classes and TypeScript types. No I/O."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterable
from typing import Any

import msgspec

Schema = dict[str, Any]

_FORMATS = {"decimal": "Decimal", "date-time": "datetime", "date": "date", "uuid": "UUID"}
_PYTHON = {"integer": "int", "number": "float", "boolean": "bool", "string": "str", "null": "None"}
_TYPESCRIPT = {"integer": "number", "number": "number", "boolean": "boolean", "string": "string", "null": "null"}  # fmt: skip


class RegisteredType(msgspec.Struct, frozen=True):
    """A row of the registry."""

    type: str
    schema_version: int
    stream_pattern: str
    schema: Schema


def python_source(types: Iterable[RegisteredType]) -> str:
    """A module of Event classes, one for each type."""
    parts = [
        '"""Event types of the registry, written by `headwater types --python`."""\n',
        "from datetime import date, datetime\nfrom decimal import Decimal\nfrom typing import Any, Literal\nfrom uuid import UUID\n",
        "import msgspec\n\nfrom headwater import Event\n",
    ]
    parts += [_python_class(registered) for registered in types]
    return "\n".join(parts)


def typescript_source(types: Iterable[RegisteredType]) -> str:
    """A module of TypeScript types: each event's data, and a map from type names to them."""
    listed = list(types)
    parts = ["// Event types of the registry, written by `headwater types --typescript`.\n"]
    parts += [f"export type {_class_name(t.type)} = {_typescript(t.schema)};\n" for t in listed]
    names = [f"  {json.dumps(t.type)}: {_class_name(t.type)};" for t in listed]
    parts.append("export interface EventTypes {\n" + "\n".join(names) + "\n}\n")
    return "\n".join(parts)


def _class_name(type_name: str) -> str:
    return "".join(part.capitalize() for part in re.split(r"[._]", type_name))


def _python_class(registered: RegisteredType) -> str:
    version = f", version={registered.schema_version}" if registered.schema_version > 1 else ""
    head = (
        f"\nclass {_class_name(registered.type)}(Event, type={registered.type!r}, "
        f"stream={registered.stream_pattern!r}{version}, kw_only=True):"
    )
    required = set(registered.schema.get("required", ()))
    lines = [
        _python_field(name, schema, required=name in required)
        for name, schema in registered.schema["properties"].items()
    ]
    return "\n".join([head.replace("'", '"'), *(lines or ["    pass"]), ""])


def _python_field(name: str, schema: Schema, *, required: bool) -> str:
    attribute = re.sub(r"\W", "_", name)
    if not attribute.isidentifier() or keyword.iskeyword(attribute) or attribute.startswith("__"):
        attribute = f"field_{attribute.strip('_')}"
    annotation = _python(schema)
    if not required and "None" not in annotation.split(" | "):
        annotation += " | None"
    options = ([] if attribute == name else [f"name={name!r}"]) + ([] if required else ["default=None"])  # fmt: skip
    value = f" = msgspec.field({', '.join(options)})" if options else ""
    return f"    {attribute}: {annotation}{value}"


def _python(schema: Schema) -> str:
    if "anyOf" in schema:
        return " | ".join(_python(option) for option in schema["anyOf"])
    if "enum" in schema:
        return f"Literal[{', '.join(repr(value) for value in schema['enum'])}]"
    if "format" in schema:
        return _FORMATS[schema["format"]]
    match schema.get("type"):
        case "array":
            return f"list[{_python(schema.get('items', {}))}]"
        case "object":
            return f"dict[str, {_python(schema.get('additionalProperties') or {})}]"
        case None:
            return "Any"
        case kind:
            return _PYTHON[kind]


def _typescript(schema: Schema) -> str:
    if "anyOf" in schema:
        return " | ".join(_typescript(option) for option in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if "format" in schema:
        return "string"
    match schema.get("type"):
        case "array":
            return f"Array<{_typescript(schema.get('items', {}))}>"
        case "object" if "properties" in schema:
            required = set(schema.get("required", ()))
            fields = [
                f"  {json.dumps(name)}{'' if name in required else '?'}: {_typescript(field)};"
                for name, field in schema["properties"].items()
            ]
            return "{\n" + "\n".join(fields) + "\n}"
        case "object":
            return f"Record<string, {_typescript(schema.get('additionalProperties') or {})}>"
        case None:
            return "unknown"
        case kind:
            return _TYPESCRIPT[kind]
