"""Keys of views as they stand in paths, and the statements that read rows by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import msgspec
from psycopg import sql

from headwater.app import FoldView, RowsView
from headwater.errors import RequestRefused

Handle = FoldView[Any] | RowsView[Any]
Key = tuple[str | None, ...]

_array = msgspec.json.Decoder(list[str | int | float | bool | None], float_hook=str)


def key_names(view: Handle) -> tuple[str, ...]:
    """The parts of a view's key."""
    return (view.fold.key,) if isinstance(view, FoldView) else view.view.query.key


def written_key(parts: Sequence[object]) -> str:
    """A key as it stands in a path: its parts percent-encoded, with commas between; %00 is NULL."""
    return ",".join("%00" if part is None else quote(str(part), safe="") for part in parts)


def read_key(text: str, names: Sequence[str]) -> Key:
    """The parts of a key as it stands in a path. Raises RequestRefused."""
    parts = text.split(",") if len(names) > 1 else [text] if names or text else []
    if len(parts) != len(names):
        raise RequestRefused(
            f"The key has {len(parts)} parts, not {len(names)}.",
            hint=f"Write {','.join(names)}, each part percent-encoded.",
        )
    return tuple(_part(part) for part in parts)


def _part(text: str) -> str | None:
    try:
        part = unquote_to_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise RequestRefused("The key is not UTF-8.") from error
    if part == "\x00":
        return None
    if "\x00" in part or len(part) > 2000:
        raise RequestRefused("The key holds NUL, or more than 2,000 characters.")
    return part


def key_parts(text: str) -> Key:
    """The parts of a key that the database gave as a JSON array, each as Postgres reads it."""
    return tuple(
        None if part is None else str(part).lower() if isinstance(part, bool) else str(part)
        for part in _array.decode(text)
    )


def row_query(view: Handle, key: Sequence[str | None]) -> tuple[sql.Composed, dict[str, Any]]:
    """The row of a key, as the view's store takes it."""
    where = sql.Identifier("headwater_views", view.name)
    if isinstance(view, FoldView):
        statement = sql.SQL(
            "SELECT v.document::text FROM {} AS v WHERE v.tenant = %(tenant)s AND v.key = %(key_0)s"
        )
        return statement.format(where), {"key_0": key[0]}
    conditions: list[sql.Composable] = [sql.SQL("v.tenant = %(tenant)s")]
    names = [sql.Identifier("v", name) for name in view.view.query.key]
    conditions += [
        _equal(name, part, n) for n, (name, part) in enumerate(zip(names, key, strict=True))
    ]
    selected = sql.SQL("SELECT {} FROM {} AS v WHERE {}").format(
        sql.SQL(", ").join(sql.Identifier("v", o.name) for o in view.view.query.outputs),
        where,
        sql.SQL(" AND ").join(conditions),
    )
    return selected, {f"key_{n}": part for n, part in enumerate(key)}


def _equal(name: sql.Identifier, part: str | None, number: int) -> sql.Composed:
    if part is None:
        return sql.SQL("{} IS NULL").format(name)
    return sql.SQL("{} = {}").format(name, sql.Placeholder(f"key_{number}"))


def page_query(view: RowsView[Any], after: Key | None) -> tuple[sql.Composed, dict[str, Any]]:
    """Rows after a key, in the order of keys, NULL last; the key as a JSON array comes first."""
    names = [sql.Identifier("v", name) for name in view.view.query.key]
    outputs = [sql.Identifier("v", output.name) for output in view.view.query.outputs]
    conditions: list[sql.Composable] = [sql.SQL("v.tenant = %(tenant)s")]
    parameters: dict[str, Any] = {}
    if after is not None:
        parameters = {f"key_{n}": part for n, part in enumerate(after)}
        conditions.append(_beyond(names, after))
    statement = sql.SQL("SELECT {} FROM {} AS v WHERE {} ORDER BY {} LIMIT %(max_rows)s").format(
        sql.SQL(", ").join(
            [sql.SQL("jsonb_build_array({})::text").format(sql.SQL(", ").join(names)), *outputs]
        ),
        sql.Identifier("headwater_views", view.name),
        sql.SQL(" AND ").join(conditions),
        sql.SQL(", ").join(names or [sql.Identifier("v", "tenant")]),
    )
    return statement, parameters


def _beyond(names: Sequence[sql.Identifier], after: Key) -> sql.Composable:
    """Whether a row's key is greater: equal up to some part and greater in it, where NULL is greatest."""
    branches: list[sql.Composable] = []
    for n, (name, part) in enumerate(zip(names, after, strict=True)):
        equal = [_equal(names[e], after[e], e) for e in range(n)]
        if part is None:
            continue  # nothing is greater than NULL
        greater = sql.SQL("({0} > {1} OR {0} IS NULL)").format(name, sql.Placeholder(f"key_{n}"))
        branches.append(sql.SQL("({})").format(sql.SQL(" AND ").join([*equal, greater])))
    return sql.SQL("({})").format(sql.SQL(" OR ").join(branches or [sql.SQL("false")]))
