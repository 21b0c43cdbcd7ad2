"""What the demo shows: progress while it runs, then results and checks."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Self
from zoneinfo import ZoneInfo

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from examples.airport.checks import Check
from examples.airport.data import NEW_YORK
from examples.airport.replay import Lag

PLAIN_EVERY_SECONDS = 5.0
RATE_OVER_SECONDS = 3.0


class Screen:
    """Live on a terminal; elsewhere a line every few seconds."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._live = Live(console=console, refresh_per_second=8) if console.is_terminal else None
        self._seen: deque[tuple[float, int]] = deque()
        self._printed = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        (self._live.console if self._live is not None else self._console).print(
            text, highlight=False
        )

    def say_behind(self, lags: Sequence[Lag]) -> None:
        """A line that stays: how many events each view is behind."""
        behind = ", ".join(f"{view.view} {view.behind:,}" for view in lags)
        self.say(f"[dim]  events behind: {behind}[/]")

    def show(self, done: int, moment: datetime, lags: Sequence[Lag]) -> None:
        """How far the replay is, and how far behind each view."""
        rate = self._rate(done)
        left = (self._total - done) / rate if rate else None
        if self._live is not None:
            self._live.update(self._picture(done, moment, rate, left, lags))
        elif time.monotonic() - self._printed > PLAIN_EVERY_SECONDS:
            self._printed = time.monotonic()
            self.say(
                f"{_local(moment)}: {done:,} of {self._total:,} events, {rate:,.0f}/s {_left(left)}"
            )
            self.say_behind(lags)

    def _picture(
        self,
        done: int,
        moment: datetime,
        rate: float,
        left: float | None,
        lags: Sequence[Lag],
    ) -> Group:
        head = Table.grid(padding=(0, 2))
        head.add_row(
            Text(_local(moment), style="bold cyan"),
            ProgressBar(self._total, done, width=30),
            f"{done:,} of {self._total:,} events",
            f"{rate:,.0f}/s",
            _left(left),
        )
        views = Table(box=None, padding=(0, 2), header_style="dim")
        views.add_column("view")
        views.add_column("events behind", justify="right")
        for view in lags:
            style = "green" if view.behind < 10_000 else "yellow"
            views.add_row(view.view, Text(f"{view.behind:,}", style=style))
        return Group(head, views)

    def _rate(self, done: int) -> float:
        now = time.monotonic()
        self._seen.append((now, done))
        while now - self._seen[0][0] > RATE_OVER_SECONDS:
            self._seen.popleft()
        since, before = self._seen[0]
        return (done - before) / (now - since) if now - since > 0.5 else 0.0


def results(console: Console, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """One result as a table."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0)
    )
    for name, value in rows[0].items() if rows else ():
        text = isinstance(value, str)
        table.add_column(name.replace("_", " "), justify="left" if text else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console.print(table, "")


def checks(console: Console, made: Sequence[Check]) -> None:
    """The checks with their numbers."""
    table = Table(
        title="Checks", title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0)
    )
    table.add_column("")
    table.add_column("check")
    table.add_column("found", justify="right")
    table.add_column("expected", justify="right")
    for check in made:
        mark = Text("✓", style="green") if check.passed else Text("✗", style="bold red")
        name = check.name.replace("_", " ")
        table.add_row(mark, name, _cell(check.found), _cell(check.expected))
    console.print(table, "")


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case float():
            return f"{value:g}"
        case Decimal() if value != round(value, 3):
            return f"{value:,.3f}"
        case _:
            return f"{value:,}"


def _left(seconds: float | None) -> str:
    return "" if not seconds else f"{seconds:.0f} s left"


def _local(moment: datetime) -> str:
    return moment.astimezone(ZoneInfo(NEW_YORK)).strftime("%d %b %Y %H:%M")
