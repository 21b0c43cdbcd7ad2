"""The rows of a captured table as a fold: each stream's last event is its row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import new_class
from typing import Any, cast

import msgspec

from headwater.events import Event, EventType
from headwater.events.event import fields_of
from headwater.views import Document, Fold

_HAPPENINGS = ("inserted", "updated", "deleted")


def row_folds(types: Iterable[EventType]) -> Iterator[Fold[Any]]:
    """A fold for each captured table among registered types, named after it: ``shop_orders``.

    A table's row is what its last event says; a deleted one is removed.
    """
    by_name = {declared.name: declared for declared in types}
    for name, inserted in by_name.items():
        table, _, happening = name.rpartition(".")
        events = [by_name.get(f"{table}.{each}") for each in _HAPPENINGS]
        if happening != "inserted" or None in events or len(inserted.stream_name.fields) != 1:
            continue
        classes = tuple(declared.event_class for declared in events if declared is not None)
        view = table.replace(".", "_")
        yield Fold(
            name=view,
            key=inserted.stream_name.fields[0],
            state=_document(view, inserted),
            evolve=_last,
            events=classes,
            takes_recorded=False,
        )


def _document(view: str, inserted: EventType) -> type[Document]:
    schema = {**inserted.schema, "required": []}
    namespace = fields_of(schema, None)
    return cast("type[Document]", new_class(view, (Document,), exec_body=lambda names: names.update(namespace)))  # fmt: skip


def _last(row: Document, event: Event) -> Document | None:
    if EventType.of(type(event)).name.endswith(".deleted"):
        return None
    told = {
        field.name: value
        for field in msgspec.structs.fields(row)
        if (value := getattr(event, field.name, None)) is not msgspec.UNSET
    }
    return row.but(**told)
