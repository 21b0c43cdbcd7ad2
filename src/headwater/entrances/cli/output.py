"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

_NO_WRAP = 24

# A pipe has no width: nothing is cut where no person looks.
_people = Console(width=None if sys.stdout.isatty() else 160)
_notes = Console(stderr=True)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None
) -> None:
    """Prints a table; numbers are right-aligned."""
    shown = [list(row) for row in rows]
    made = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = bool(shown) and all(isinstance(row[index], (int, float)) for row in shown)
        short = all(len(cell(row[index])) <= _NO_WRAP for row in shown)
        made.add_column(
            column, justify="right" if numeric else "left", overflow="fold", no_wrap=short
        )
    for row in shown:
        made.add_row(*(cell(value) for value in row))
    _people.print(made)


def listed(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], none: str, *, as_json: bool
) -> int:
    """Prints rows as a table, as a list of records, or a sentence where there are none; the exit code 0."""
    if as_json:
        json([as_record(columns, row) for row in rows])
    elif rows:
        table(columns, rows)
    else:
        say(none)
    return 0


def cell(value: Any) -> str:
    """A value as people read it."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int() if abs(value) < 1_000_000_000:
            return f"{value:,}"
        case float():
            return f"{value:,.1f}"
        case _:
            return str(value).replace("[", "\\[")


def say(text: str) -> None:
    """Prints a line as it is."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Prints a line beside the output, such as progress or a warning."""
    _notes.print(text, markup=False, highlight=False, soft_wrap=True)


def json(value: Any) -> None:
    """Prints one JSON document on a line of its own."""
    sys.stdout.write(msgspec.json.encode(value, enc_hook=str).decode() + "\n")
    sys.stdout.flush()


def progress_bar() -> Any:
    """A progress display on standard error, silent where that is no terminal."""
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=_notes,
        transient=True,
        disable=not _notes.is_terminal,
    )


def as_record(columns: Sequence[str], row: Sequence[Any]) -> Mapping[str, Any]:
    """A row under its columns' names."""
    return dict(zip(columns, row, strict=True))
