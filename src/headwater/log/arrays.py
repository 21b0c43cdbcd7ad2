"""One-dimensional Postgres arrays in binary form, packed in one pass.

An append of ten thousand events sends one array per field. psycopg's general list dumper asks every
element for its type; here the type is known, so an element costs one ``pack``.

Source of the layout: ``array_recv`` and ``jsonb_recv`` of PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from struct import Struct
from typing import Any, ClassVar
from uuid import UUID

from psycopg.abc import AdaptContext
from psycopg.adapt import Dumper
from psycopg.pq import Format

_HEADER = Struct("!iiIii")  # dimensions, has nulls, element oid, length, lower bound
_LENGTH = Struct("!i")
_NULL = _LENGTH.pack(-1)
_INT4 = Struct("!ii")
_INT8 = Struct("!iq")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

_TEXT, _INT, _BIGINT, _UUID, _TIMESTAMPTZ, _JSONB = 25, 23, 20, 2950, 1184, 3802
_ARRAY_OF = {_TEXT: 1009, _INT: 1007, _BIGINT: 1016, _UUID: 2951, _TIMESTAMPTZ: 1185, _JSONB: 3807}


@dataclass(frozen=True, slots=True)
class BinaryArray:
    """A packed array and the oid of its element type. Make one by the functions below."""

    element: int
    packed: bytes


def text_array(values: Iterable[str]) -> BinaryArray:
    """``text[]`` without NULLs."""
    return _pack(_TEXT, [_sized(value.encode()) for value in values])


def int_array(values: Iterable[int | None]) -> BinaryArray:
    """``int[]``; None is NULL."""
    return _pack(_INT, [_NULL if value is None else _INT4.pack(4, value) for value in values])


def bigint_array(values: Iterable[int]) -> BinaryArray:
    """``bigint[]`` without NULLs."""
    return _pack(_BIGINT, [_INT8.pack(8, value) for value in values])


def uuid_array(values: Iterable[UUID | None]) -> BinaryArray:
    """``uuid[]``; None is NULL."""
    return _pack(_UUID, [_NULL if value is None else _sized(value.bytes) for value in values])


def instant_array(values: Iterable[datetime | None]) -> BinaryArray:
    """``timestamptz[]`` of aware datetimes; None is NULL."""
    return _pack(_TIMESTAMPTZ, [_NULL if v is None else _INT8.pack(8, _micros(v)) for v in values])


def jsonb_array(values: Iterable[bytes | None]) -> BinaryArray:
    """``jsonb[]`` of encoded JSON; None is NULL."""
    return _pack(_JSONB, [_NULL if v is None else _sized(b"\x01" + v) for v in values])


def _sized(value: bytes) -> bytes:
    return _LENGTH.pack(len(value)) + value


def _micros(value: datetime) -> int:
    delta = value - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def _pack(element: int, parts: Sequence[bytes]) -> BinaryArray:
    header = _HEADER.pack(1, 1, element, len(parts), 1)
    return BinaryArray(element, header + b"".join(parts))


class BinaryArrayDumper(Dumper):
    """Hands a ``BinaryArray`` to libpq as it is, typed by its element."""

    format = Format.BINARY
    by_oid: ClassVar[dict[int, type[BinaryArrayDumper]]] = {}

    def get_key(self, obj: Any, format: Any) -> Any:  # noqa: A002, ARG002 - psycopg's names
        return (self.cls, obj.element)

    def upgrade(self, obj: Any, format: Any) -> BinaryArrayDumper:  # noqa: A002, ARG002
        return type(self).by_oid[obj.element](self.cls)

    def dump(self, obj: Any) -> bytes:
        packed: bytes = obj.packed
        return packed


for _element, _array in _ARRAY_OF.items():
    BinaryArrayDumper.by_oid[_element] = type(
        f"Array{_array}Dumper", (BinaryArrayDumper,), {"oid": _array}
    )


def register(context: AdaptContext) -> None:
    """Teaches a connection to send ``BinaryArray`` parameters."""
    context.adapters.register_dumper(BinaryArray, BinaryArrayDumper)
