"""Property tests of deciders: many commands, one after another, over a log in memory.

    @hypothesis.given(stories(app, Deposit, Withdraw, account=sampled_from(["a", "b"])))
    def test_nobody_overdraws(story):
        for account in ("a", "b"):
            assert story.state(accounts, account).balance >= 0

Needs the package hypothesis, which is no dependency of Headwater's.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from hypothesis import note, strategies
from hypothesis.strategies import SearchStrategy

from headwater.app import App, FoldView
from headwater.commands.command import Command, Rejection
from headwater.commands.decider import evolved
from headwater.events import Event
from headwater.testing.deciding import given
from headwater.views import Document

D = TypeVar("D", bound=Document)


class Story:
    """Commands that were decided in turn, what came of each, and the facts that followed."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.facts: list[Event] = []
        self.told: list[tuple[Command, tuple[Event, ...] | Rejection]] = []

    def do(self, command: Command) -> tuple[Event, ...] | Rejection:
        """Decides on a command after all that came before."""
        outcome = given(self._app, *self.facts).when(command).outcome
        if not isinstance(outcome, Rejection):
            self.facts += outcome
        self.told.append((command, outcome))
        return outcome

    def state(self, view: FoldView[D], key: object) -> D | None:
        """A fold's document of a key, after all that was decided; None where there is none."""
        fold, state = view.fold, None
        for fact in self.facts:
            if isinstance(fact, fold.events) and str(getattr(fact, fold.key)) == str(key):
                state = evolved(fold, state, fact)
        return state

    def __repr__(self) -> str:
        lines = (f"    {command!r} -> {outcome!r}\n" for command, outcome in self.told)
        return f"Story(\n{''.join(lines)})"


def stories(
    app: App,
    *commands: type[Command],
    longest: int = 20,
    **fields: SearchStrategy[object],
) -> SearchStrategy[Story]:
    """Stories of these commands; ``fields`` say where values come from, by name, others follow from types."""
    any_of = strategies.one_of([_commands(command, fields) for command in commands])

    @strategies.composite
    def told(draw: strategies.DrawFn) -> Story:
        story = Story(app)
        for command in draw(strategies.lists(any_of, max_size=longest)):
            story.do(command)
        note(repr(story))  # the shortest story that fails is shown as it was told
        return story

    return told()


def _commands(
    command: type[Command], fields: dict[str, SearchStrategy[object]]
) -> SearchStrategy[Command]:
    return strategies.builds(
        command,
        **{
            field.name: fields.get(field.name, strategies.from_type(field.type))
            for field in msgspec.structs.fields(command)
        },
    )
