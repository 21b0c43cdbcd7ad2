"""SQL views: a SELECT over typed relations, kept up to date batch by batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from headwater.errors import ViewDefinitionError
from headwater.events import EventTypes
from headwater.relay import OnFailure
from headwater.views.definition import Definition
from headwater.views.fold import Fold
from headwater.views.purpose import Purpose
from headwater.views.sql import (
    DocumentSource,
    EventSource,
    IncrementalQuery,
    Source,
    ViewSource,
    parse_view_query,
)


@dataclass(frozen=True, slots=True)
class Retention:
    """Which groups a view keeps: those whose ``bucket`` is within so many seconds of the log's newest event."""

    bucket: str
    seconds: float


@dataclass(frozen=True)
class SqlView:
    """A SQL view's definition: its query as text and parsed, and the type of its rows."""

    name: str
    row: type[msgspec.Struct]
    text: str
    query: IncrementalQuery
    on_failure: OnFailure
    float_tolerance: float | None
    store: str | None = None
    retention: Retention | None = None
    purpose: Purpose | None = None

    @staticmethod
    def of(
        *,
        name: str,
        row: type[msgspec.Struct] | None,
        key: tuple[str, ...] | None,
        text: str,
        events: EventTypes,
        folds: Mapping[str, Fold[Any]],
        on_failure: OnFailure,
        float_tolerance: float | None,
        store: str | None = None,
        views: Mapping[str, SqlView] | None = None,
        bucket: str | None = None,
        keep_seconds: float | None = None,
        purpose: Purpose | None = None,
    ) -> SqlView:
        """The view of a SELECT over an app's events, over one fold's documents, or over another view's groups.

        ``row`` and ``key`` follow from the query where they are None: a struct of its outputs, and
        those that it groups by.

        Raises ViewDefinitionError for a query that cannot be kept, and where the row's fields are not
        the query's outputs.
        """
        sources: dict[str, Source] = {t.name: EventSource(t.relation) for t in events}
        sources |= {f.name: DocumentSource(f.name, f.columns) for f in folds.values()}
        sources |= {v.name: ViewSource(v.name, v.query) for v in (views or {}).values()}
        query = parse_view_query(text, name=name, key=key, sources=sources)
        row = row or _row_of(query)
        fields = [field.encode_name for field in msgspec.structs.fields(row)]
        outputs = [output.name for output in query.outputs]
        if sorted(fields) != sorted(outputs):
            raise ViewDefinitionError(
                f"The rows of {name!r} have the fields {', '.join(fields)}, but its query gives "
                f"{', '.join(outputs)}.",
                hint=f"Give {row.__name__} exactly the query's outputs.",
            )
        if query.over_documents and store is not None:
            raise ViewDefinitionError(
                f"The view {name!r} reads a fold's documents, which only a view in Postgres does.",
                hint="Leave store= out, or read the events.",
            )
        if query.over_documents and on_failure != "stop":
            # A fold's change is not an event that could be set aside and replayed.
            on_failure = "stop"
        _check_purpose(name, query, folds, purpose)
        retention = _retention(name, query, bucket, keep_seconds)
        view = SqlView(
            name, row, text, query, on_failure, float_tolerance, store, retention, purpose
        )
        assert view.definition.view == name  # its name is checked there, now and not at run time
        return view

    @cached_property
    def definition(self) -> Definition:
        """The definition as data."""
        content: dict[str, Any] = {
            "sql": " ".join(self.text.split()),
            "key": list(self.query.key),
            "columns": [
                [
                    reading.source.name,
                    *(list(column.definition) for column in reading.columns),
                ]
                for reading in self.query.readings
            ],
            "float_tolerance": self.float_tolerance,
        }
        if self.query.over is not None:
            outputs = [[o.name, o.kind, o.text, o.condition] for o in self.query.outputs]
            content["over"] = [self.query.over, outputs, self.query.condition]
        if self.retention is not None:
            content["keep"] = [self.retention.bucket, self.retention.seconds]
        if self.store is not None:
            content["store"] = self.store
        if self.purpose is not None:
            content["purpose"] = self.purpose.definition
        return Definition(self.name, "sql", content)


def _check_purpose(
    name: str, query: IncrementalQuery, folds: Mapping[str, Fold[Any]], purpose: Purpose | None
) -> None:
    """Raises ViewDefinitionError where what a view reads is not for the view's purpose."""
    if purpose is not None and not query.over_documents:
        raise ViewDefinitionError(
            f"The view {name!r} is for the purpose {purpose.name!r} and reads events, which do not say who agrees to it.",
            hint="Declare a fold with the purpose, keyed by the person, and read its documents.",
        )
    for read in query.reads if query.over_documents else ():
        other = folds[read].purpose
        if other == purpose:
            continue
        if other is None:
            raise ViewDefinitionError(
                f"The view {name!r} is for a purpose, and the fold {read!r} that it reads is for none.",
                hint="Read a fold with purpose=.",
            )
        raise ViewDefinitionError(
            f"The view {name!r} reads the documents of {read!r}, which is for the purpose {other.name!r}.",
            hint="Pass that purpose= to the view, if that is what it is for.",
        )


def _retention(
    name: str,
    query: IncrementalQuery,
    bucket: str | None,
    keep_seconds: float | None,
) -> Retention | None:
    """What is kept. Raises ViewDefinitionError for what is not offered."""
    if bucket is not None and bucket not in query.key:
        raise ViewDefinitionError(
            f"The view {name!r} has no key {bucket!r} to be its bucket.",
            hint=f"Its key is ({', '.join(query.key)}).",
        )
    if keep_seconds is None:
        return None
    if bucket is None or keep_seconds <= 0:
        raise ViewDefinitionError(
            f"The view {name!r} keeps {keep_seconds:g} seconds of nothing that it names.",
            hint="Pass bucket=, the key that is a time, and a positive keep_seconds=.",
        )
    if query.over_documents:
        raise ViewDefinitionError(
            f"Buckets of {name!r} cannot be removed: that is offered for views over events.",
            hint="Leave keep_seconds= out.",
        )
    return Retention(bucket, keep_seconds)


def _row_of(query: IncrementalQuery) -> type[msgspec.Struct]:
    """A struct of a query's outputs; those that are no Python names are fields by their place."""
    fields, renamed = [], {}
    for place, output in enumerate(query.outputs, start=1):
        field = output.name if output.name.isidentifier() else f"output_{place}"
        fields.append((field, Any))
        renamed[field] = output.name
    return msgspec.defstruct(f"{query.name}_row", fields, rename=renamed, frozen=True)
