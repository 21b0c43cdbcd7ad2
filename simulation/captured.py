"""What the events of a captured table say of its rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

Key = tuple[str, str]
"""Tenant and stream."""


class Change(NamedTuple):
    """One event of a captured table, the verb being the last word of its type."""

    tenant: str
    stream: str
    version: int
    verb: str
    data: dict[str, Any]
    metadata: dict[str, Any]


def replay(changes: Iterable[Change]) -> tuple[dict[Key, dict[str, Any]], list[str]]:
    """The rows that the table holds by what the log says, and what in its story could not have happened."""
    rows: dict[Key, dict[str, Any]] = {}
    versions: dict[Key, int] = {}
    problems = []
    for change in changes:
        key = (change.tenant, change.stream)
        was, row = rows.get(key), dict(change.data)
        before = row.pop("before", None)
        impossible = {
            "is not dense": change.version != versions.get(key, 0) + 1,
            "was or was not there": (was is None) != (change.verb == "inserted"),
            "changed something else": change.verb == "updated"
            and not _follows(was or {}, row, before, change.metadata),
            "was another row": change.verb == "deleted" and not _same(was, row),
        }
        problems += [
            f"{key} {change.version} {change.verb}: {what}" for what, is_so in impossible.items() if is_so
        ]  # fmt: skip
        versions[key] = change.version
        rows[key] = row
        if change.verb == "deleted":
            del rows[key]
    return rows, problems


def _same(was: dict[str, Any] | None, row: dict[str, Any]) -> bool:
    """Whether they are one row; a column that was added since is null in what was told before."""
    return was is None or {**dict.fromkeys(row), **was} == {**dict.fromkeys(was), **row}


def _follows(
    was: dict[str, Any], row: dict[str, Any], before: dict[str, Any], metadata: dict[str, Any]
) -> bool:
    """Whether an update tells what changed, and that it did."""
    return (
        bool(before or "exact" in metadata)
        and {name: was.get(name) for name in before} == before
        and all(row[name] != value for name, value in before.items())
    )
