"""Statements from .sql files, by name.

A file beside its owner holds several statements, each after a line ``-- name: of_the_statement``.
"""

from __future__ import annotations

from importlib.resources import files
from typing import LiteralString


class Statements:
    """The statements of one package's ``sql/`` folder: ``statements["file.name"]``."""

    def __init__(self, package: str) -> None:
        self._by_name: dict[str, LiteralString] = {}
        for file in sorted(files(package).joinpath("sql").iterdir(), key=lambda f: f.name):
            if file.name.endswith(".sql"):
                self._load(file.name.removesuffix(".sql"), file.read_text())

    def _load(self, prefix: str, text: str) -> None:
        for block in text.split("-- name: ")[1:]:
            name, _, statement = block.partition("\n")
            self._by_name[f"{prefix}.{name.strip()}"] = statement.strip()

    def __getitem__(self, name: str) -> LiteralString:
        # LiteralString, since these are the project's own files and never input from outside.
        return self._by_name[name]
