"""The FROM clause of a view's statements: the rows of a batch, of one position, or of the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from psycopg import sql

from headwater.stores.postgres.sql_view_text import (
    appended,
    clause,
    enclosed,
    literal,
    name,
    template,
)
from headwater.views.sql import DocumentSource

if TYPE_CHECKING:
    from headwater.views.sql import IncrementalQuery, Reading

Window = Literal["in_batch", "at_position", "up_to", "of_one", "among", "none"]


@dataclass(frozen=True, slots=True)
class Sources:
    """Renders what a query reads, within a window of positions.

    ``changes`` and ``documents`` are relations of a fold: (after_position, tenant, key, old,
    new) and (tenant, key, data).
    """

    query: IncrementalQuery
    changes: sql.Composable | None = None
    documents: sql.Composable | None = None

    def rows(self, window: Window, *, conditions: bool = True) -> sql.Composable:
        """The relation that the query's expressions are over."""
        if self.query.derived is None:
            return self._reading(self.query.readings[0], window)
        sign = sql.SQL(", headwater_sign" if self.query.over_documents else "")
        branches = [
            template("branch").format(
                sign=sign,
                projections=appended(
                    sql.SQL("{} AS {}").format(enclosed(column.text), name(column.name))
                    for column in reading.projections
                ),
                source=self._reading(reading, window),
                where=clause("WHERE", _condition(reading.condition if conditions else None)),
            )
            for reading in self.query.readings
        ]
        union = sql.SQL("\nUNION ALL\n").join(branches)
        return sql.SQL("({}) AS {}").format(union, name(self.query.derived))

    def where(self, also: sql.Composable | None = None) -> sql.Composable:
        """The query's own WHERE clause, and another condition with it."""
        conditions = [c for c in (also, _condition(self.query.condition)) if c is not None]
        return clause("WHERE", sql.SQL(" AND ").join(conditions) if conditions else None)

    def _reading(self, reading: Reading, window: Window) -> sql.Composable:
        columns = appended(
            sql.SQL("{} AS {}").format(enclosed(column.expression), name(column.name))
            for column in reading.columns
        )
        alias = name(reading.alias)
        if not isinstance(reading.source, DocumentSource):
            within = sql.SQL("false") if window == "none" else template(f"events_{window}")
            return template("events_source").format(
                columns=columns, type=literal(reading.source.name), window=within, alias=alias
            )
        if window in {"none", "up_to"}:
            documents = self.documents if window == "up_to" else template("no_documents")
            return template("documents_source").format(
                columns=columns, documents=_required(documents, "documents"), alias=alias
            )
        return template("changes_source").format(
            columns=columns,
            changes=_required(self.changes, "changes"),
            window=template(f"changes_{window}"),
            alias=alias,
        )


def _condition(text: str | None) -> sql.Composable | None:
    return None if text is None else enclosed(text)


def _required(relation: sql.Composable | None, what: str) -> sql.Composable:
    if relation is None:
        raise ValueError(f"A view over documents needs the relation of its {what}.")
    return relation
