"""Statements with names put in, and how names and texts are written in ClickHouse's SQL."""

from __future__ import annotations

from collections.abc import Iterable
from string import Template

from headwater.log.statements import Statements

_SQL = Statements("headwater.stores.clickhouse")


def statement(name: str, /, **parts: object) -> str:
    """A statement with its $names replaced. Raises KeyError for a name that is not given."""
    return Template(_SQL[name]).substitute({k: str(v) for k, v in parts.items()})


def quoted(*names: str) -> str:
    """A name, qualified by those before it."""
    return ".".join("`" + n.replace("\\", "\\\\").replace("`", "\\`") + "`" for n in names)


def literal(text: str) -> str:
    """What stands between the quotes of a text."""
    return text.replace("\\", "\\\\").replace("'", "\\'")


def listed(parts: Iterable[str]) -> str:
    """The parts with commas between them."""
    return ", ".join(parts)
