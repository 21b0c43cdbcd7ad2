"""How an example tells its story: chapters, lines, and checks that must hold."""

from __future__ import annotations

from rich.console import Console


class Story:
    """Says what happens, and keeps whether each check held."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.passed = True

    def say(self, text: str) -> None:
        """A line of the story."""
        self._console.print(text, markup=False)

    def chapter(self, title: str) -> None:
        """A heading."""
        self._console.print(f"\n[bold]{title}[/]")

    def check(self, what: str, found: object, expected: object) -> None:
        """A line that says what was found, and what should have been where it differs."""
        held = found == expected
        self.passed = self.passed and held
        self.say(
            f"  {'ok' if held else 'FAILED'}  {what}: {found}{'' if held else f', not {expected}'}"
        )
