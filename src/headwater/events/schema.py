"""The JSON Schema of a Python type, in the part of JSON Schema that the database checks.

What a field may be: str, int (64 bits), float, bool, Decimal, datetime with a time zone, date, UUID,
Literal and Enum of strings or integers, lists, dicts with string keys, frozen structs, and any of
these or None. Decimals are exact: JSON numbers or strings of digits. Anything else is refused when the
event class is defined, since a check that only Python makes is no check for plain SQL.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import inspect

from headwater.errors import EventDefinitionError
from headwater.events.relations import COMMON_COLUMNS, Column, Relation
from headwater.events.upcasting import Upcasting

Schema = dict[str, Any]

_SCALARS: dict[type[inspect.Type], Schema] = {
    inspect.AnyType: {},
    inspect.NoneType: {"type": "null"},
    inspect.BoolType: {"type": "boolean"},
    inspect.DecimalType: {"type": ["number", "string"], "format": "decimal"},
    inspect.DateTimeType: {"type": "string", "format": "date-time"},
    inspect.DateType: {"type": "string", "format": "date"},
    inspect.UUIDType: {"type": "string", "format": "uuid"},
}


def schema_of(cls: type[msgspec.Struct]) -> Schema:
    """The schema of a struct: an object with named, typed fields and no others.

    A struct made for what the registry holds carries its schema as ``__registered__``.
    """
    if (registered := cls.__dict__.get("__registered__")) is not None:
        return dict(registered)
    return _object(inspect.type_info(cls), cls.__name__)  # type: ignore[arg-type]


def _object(info: inspect.StructType, where: str) -> Schema:
    return {
        "type": "object",
        "properties": {f.encode_name: _schema(f.type, f"{where}.{f.name}") for f in info.fields},
        "required": sorted(f.encode_name for f in info.fields if f.required),
        "additionalProperties": False,
    }


def _schema(info: inspect.Type, where: str) -> Schema:
    if (scalar := _SCALARS.get(type(info))) is not None:
        return dict(scalar)
    match info:
        case inspect.Metadata():
            return _schema(info.type, where)
        case inspect.StrType(pattern=None):
            return _limits({"type": "string"}, minLength=info.min_length, maxLength=info.max_length)
        case inspect.IntType(gt=None, lt=None, multiple_of=None):
            return _limits({"type": "integer"}, minimum=info.ge, maximum=info.le)
        case inspect.FloatType(gt=None, lt=None, multiple_of=None):
            return _limits({"type": "number"}, minimum=info.ge, maximum=info.le)
        case inspect.LiteralType():
            return {"enum": list(info.values)}
        case inspect.EnumType():
            return {"enum": [member.value for member in info.cls]}
        case inspect.ListType() | inspect.VarTupleType():
            items = _schema(info.item_type, f"{where}[]")
            return _limits(
                {"type": "array", "items": items},
                minItems=info.min_length,
                maxItems=info.max_length,
            )
        case inspect.DictType(key_type=inspect.StrType(), min_length=None, max_length=None):
            values = _schema(info.value_type, f"{where}{{}}")
            return {"type": "object", "additionalProperties": values}
        case inspect.StructType(tag=None, array_like=False):
            return _object(info, where)
        case inspect.UnionType():
            return {"anyOf": [_schema(option, where) for option in info.types]}
    raise EventDefinitionError(
        f"The field {where} has a type that the database cannot check.",
        hint="Use str, int, float, bool, Decimal, datetime, date, UUID, Literal, Enum, lists, "
        "dicts with string keys, structs, or any of these or None; limits by ge, le, min_length "
        "and max_length.",
    )


def _limits(schema: Schema, **limits: float | None) -> Schema:
    return schema | {name: limit for name, limit in limits.items() if limit is not None}


# A schema as columns -----------------------------------------------------------------------------

_SQL_TYPES = {
    "string": "text",
    "integer": "bigint",
    "number": "double precision",
    "boolean": "boolean",
}
_SQL_FORMATS = {
    "decimal": "numeric",
    "date-time": "timestamp with time zone",
    "date": "date",
    "uuid": "uuid",
}


def relation_of(type_name: str, schema: Schema, upcasting: Upcasting | None = None) -> Relation:
    """The typed relation that SQL views read for a type: its fields, then what every event has.

    With ``upcasting``, events of other versions are in it in this version's shape.
    """
    known = upcasting or Upcasting()
    fields = [_column(name, field, known) for name, field in schema["properties"].items()]
    taken = {column.name for column in fields}
    columns = (*fields, *(c for c in COMMON_COLUMNS if c.name not in taken))
    return Relation(type_name, columns, known.confined)


def _column(name: str, schema: Schema, upcasting: Upcasting) -> Column:
    sql_type = sql_type_of(schema)
    literal = "'" + name.replace("'", "''") + "'"
    value, text = f"(e.data -> {literal})", f"(e.data ->> {literal})"
    meaning = _read(sql_type, value, text) + upcasting.changes(name)
    if (other := upcasting.column(name)) is not None:
        own = f"CASE WHEN e.schema_version = {upcasting.version} THEN"
        value = f"({own} {value} ELSE {other} END)"
        text = f"({own} {text} ELSE {other} #>> '{{}}' END)"
    options = schema.get("anyOf", (schema,))
    sealed = any(option.get("format") == "sealed" for option in options)
    return Column(name, sql_type, _read(sql_type, value, text), meaning, sealed)


def _read(sql_type: str, value: str, text: str) -> str:
    """A stored field, by its SQL as jsonb and as text, as a value of the column's type."""
    if sql_type == "jsonb":
        return f"nullif({value}, 'null'::jsonb)"
    return text if sql_type == "text" else f"{text}::{sql_type}"


def sql_type_of(schema: Schema) -> str:
    """The Postgres type of a schema's values, None aside: a scalar type, or jsonb."""
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if options:
        types = {sql_type_of(option) for option in options}
        return types.pop() if len(types) == 1 else "jsonb"
    if "enum" in schema:
        kinds = {type(value) for value in schema["enum"] if value is not None}
        return {frozenset({str}): "text", frozenset({int}): "bigint"}.get(frozenset(kinds), "jsonb")
    if (sql_type := _SQL_FORMATS.get(schema.get("format", ""))) is not None:
        return sql_type
    kind = schema.get("type")
    return _SQL_TYPES.get(kind, "jsonb") if isinstance(kind, str) else "jsonb"
