"""Rows of a SQL view as people see them."""

from __future__ import annotations

from typing import Any

from headwater.views.definition import Difference


def difference_of(key: tuple[str, ...], side: str, tenant: str, row: dict[str, Any]) -> Difference:
    """A row that is on one side of a comparison only."""
    place = ", ".join(f"{name}={row.get(name)}" for name in key)
    expected, stored = (row, None) if side == "expected" else (None, row)
    return Difference(tenant, place, expected, stored)
