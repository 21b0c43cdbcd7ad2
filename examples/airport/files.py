"""The SQL of this example, by file name."""

from __future__ import annotations

from functools import cache
from pathlib import Path

HERE = Path(__file__).parent


@cache
def statement(name: str) -> bytes:
    """The statement in ``sql/statements/``. As bytes, which psycopg takes for a trusted file's text."""
    return (HERE / "sql" / "statements" / f"{name}.sql").read_bytes()


def tables() -> bytes:
    """The application's own schema."""
    return (HERE / "tables.sql").read_bytes()


def queries(folder: str) -> dict[str, str]:
    """The queries of a folder of ``sql/``, in the order of their names."""
    return {file.stem: file.read_text() for file in sorted((HERE / "sql" / folder).glob("*.sql"))}
