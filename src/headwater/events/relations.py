"""Event types as typed relations: the columns that SQL views read.

A relation is what ``FROM flight.departed`` means: one row per event of that type, the common
columns of every event, and one typed column per field of the event's data. Column expressions
are SQL over the alias ``e`` of ``headwater.events``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a relation: its name, its Postgres type and how a row of the log yields it.

    ``meaning`` is what of the expression matters to a view's data: the rest is how events of versions
    that the reader does not know are refused. A ``sealed`` column holds sealed texts of persons.
    """

    name: str
    sql_type: str
    expression: str
    meaning: str = ""
    sealed: bool = False

    @property
    def definition(self) -> tuple[str, str, str]:
        """The column as part of a view's definition."""
        return self.name, self.sql_type, self.meaning or self.expression


@dataclass(frozen=True, slots=True)
class Relation:
    """The columns of one event type, ``name`` being the type's stable name.

    ``confined``: earlier events are upcast by a Python function, so SQL cannot read them.
    """

    name: str
    columns: tuple[Column, ...]
    confined: bool = False

    def column(self, name: str) -> Column | None:
        """The column of that name, or None."""
        return next((column for column in self.columns if column.name == name), None)


COMMON_COLUMNS = (
    Column("position", "bigint", "e.position"),
    Column("tenant", "text", "e.tenant"),
    Column("stream", "text", "e.stream"),
    Column("version", "integer", "e.version"),
    Column("type", "text", "e.type"),
    Column("id", "uuid", "e.id"),
    Column("recorded_at", "timestamp with time zone", "e.recorded_at"),
    Column("occurred_at", "timestamp with time zone", "e.occurred_at"),
)
"""What every event has. A data field of the same name wins over the common column."""
