"""Messages of logical replication (pgoutput, version 1) as structs. No I/O.

The format is Postgres's: "Logical Replication Message Formats" in its documentation.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

_POSTGRES_EPOCH_SECONDS: Final = 946_684_800

Values = list[str | None]


class Begin(msgspec.Struct, frozen=True):
    """A transaction follows. ``lsn`` is its commit's; ``xid`` the last 32 bits of its number."""

    lsn: int
    seconds: float
    xid: int


class Commit(msgspec.Struct, frozen=True):
    """The transaction ends. ``end`` is the LSN just behind its commit."""

    end: int


class Column(msgspec.Struct, frozen=True):
    """A column as the relation had it when the change was made."""

    name: str
    type: int
    typmod: int


class Relation(msgspec.Struct, frozen=True):
    """What a table looks like, before its first change and after each ALTER."""

    oid: int
    identity: str
    columns: tuple[Column, ...]


class Change(msgspec.Struct, frozen=True):
    """A row that came, changed or went. ``missing`` are the places of values that were left out.

    ``old`` is the row's key, or the whole row by REPLICA IDENTITY FULL, where Postgres tells it;
    ``new`` is None for a row that went.
    """

    relation: int
    old: Values | None
    new: Values | None
    missing: frozenset[int] = frozenset()


class Truncate(msgspec.Struct, frozen=True):
    """Tables that lost all rows."""

    relations: tuple[int, ...]


Message = Begin | Commit | Relation | Change | Truncate


def decode(data: bytes) -> Message | None:
    """The message, or None for one that says nothing about rows. Raises ValueError for a malformed one."""
    reader = _Reader(data)
    match kind := reader.character():
        case "B":
            lsn, microseconds, xid = reader.unpack(">QqI")
            return Begin(lsn, _POSTGRES_EPOCH_SECONDS + microseconds / 1_000_000, xid)
        case "C":
            _, _, end, _ = reader.unpack(">BQQq")
            return Commit(end)
        case "R":
            return reader.relation()
        case "I":
            (relation,) = reader.unpack(">I")
            reader.character()
            new, missing = reader.row()
            return Change(relation, None, new, missing)
        case "U":
            return reader.update()
        case "D":
            (relation,) = reader.unpack(">I")
            reader.character()
            return Change(relation, reader.row()[0], None)
        case "T":
            count, _ = reader.unpack(">IB")
            return Truncate(reader.unpack(f">{count}I"))
        case "O" | "Y" | "M":
            return None
    raise ValueError(f"a message of the unknown kind {kind!r}")


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def unpack(self, form: str) -> tuple[int, ...]:
        try:
            values = struct.unpack_from(form, self._data, self._at)
        except struct.error as error:
            raise ValueError(f"a message ends early, at byte {self._at}") from error
        self._at += struct.calcsize(form)
        return values

    def character(self) -> str:
        (code,) = self.unpack(">B")
        return chr(code)

    def text(self) -> str:
        end = self._data.index(b"\0", self._at)
        value = self._data[self._at : end].decode()
        self._at = end + 1
        return value

    def relation(self) -> Relation:
        (oid,) = self.unpack(">I")
        self.text()
        self.text()
        identity = self.character()
        (count,) = self.unpack(">H")
        columns = []
        for _ in range(count):
            self.unpack(">B")
            name = self.text()
            type_, typmod = self.unpack(">Ii")
            columns.append(Column(name, type_, typmod))
        return Relation(oid, identity, tuple(columns))

    def row(self) -> tuple[Values, frozenset[int]]:
        (count,) = self.unpack(">H")
        values: Values = []
        missing = []
        for place in range(count):
            match self.character():
                case "t":
                    (length,) = self.unpack(">I")
                    values.append(self._data[self._at : self._at + length].decode())
                    self._at += length
                case "u":
                    missing.append(place)
                    values.append(None)
                case _:
                    values.append(None)
        return values, frozenset(missing)

    def update(self) -> Change:
        (relation,) = self.unpack(">I")
        old: Values | None = None
        if self.character() != "N":
            old, _ = self.row()
            self.character()
        new, missing = self.row()
        if old is not None:
            # What was left out since it did not change, the old row may tell.
            known = {place for place in missing if old[place] is not None}
            new = [old[n] if n in known else value for n, value in enumerate(new)]
            missing -= known
        return Change(relation, old, new, missing)
