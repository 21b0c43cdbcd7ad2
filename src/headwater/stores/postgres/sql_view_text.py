"""Pieces of SQL for incremental views: named templates, names, literals and the user's text.

Everything that ``fragment``, ``name`` and ``literal`` return is for statements that run with
parameters, where psycopg reads a percent sign as the start of a placeholder.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterable

_SECTION = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@cache
def _templates(file: str) -> dict[str, str]:
    text = files("headwater.stores.postgres").joinpath("sql", file).read_text(encoding="utf-8")
    _, *parts = _SECTION.split(text)
    return {name: body.strip("\n") for name, body in zip(parts[0::2], parts[1::2], strict=True)}


def template(name: str, *, file: str = "sql_view.sql") -> sql.SQL:
    """The SQL of that name, its placeholders still open."""
    return sql.SQL(_templates(file)[name])


def table_template(name: str) -> sql.SQL:
    """The SQL of that name about tables."""
    return template(name, file="sql_view_tables.sql")


def fragment(text: str) -> sql.SQL:
    """The user's own SQL."""
    return sql.SQL(text.replace("%", "%%"))


def enclosed(text: str) -> sql.Composable:
    """The user's own expression, between parentheses."""
    return sql.SQL("({})").format(fragment(text))


def name(*parts: str) -> sql.Identifier:
    """A quoted name."""
    return sql.Identifier(*(part.replace("%", "%%") for part in parts))


def literal(value: str) -> sql.Literal:
    """A quoted text."""
    return sql.Literal(value.replace("%", "%%"))


def listed(parts: Iterable[sql.Composable]) -> sql.Composed:
    """The parts with commas between them."""
    return sql.SQL(", ").join(parts)


def appended(parts: Iterable[sql.Composable]) -> sql.Composed:
    """The parts with a comma before each."""
    return sql.Composed([sql.SQL(", {}").format(part) for part in parts])


def unmatched(columns: Iterable[sql.Composable]) -> sql.Composed:
    """The rows of ``compared`` that one side has and the other has not, each as often as it is missing."""
    return template("unmatched").format(columns=listed(columns))


def clause(keyword: str, content: sql.Composable | None) -> sql.Composable:
    """The clause, or nothing without content."""
    if content is None:
        return sql.SQL("")
    return sql.Composed([sql.SQL("\n "), sql.SQL(keyword), sql.SQL(" "), content])
