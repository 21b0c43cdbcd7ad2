"""The football example's rules: given what happened, when the referee asks, then."""

from __future__ import annotations

import pytest

from examples.football.app import app
from examples.football.domain import (
    BegunBefore,
    Booked,
    Ended,
    IsOff,
    KickedOff,
    KickOff,
    NotPlaying,
    NotUnderWay,
    Score,
    Scored,
    SentOff,
    Show,
    Substitute,
    Substituted,
    Whistle,
)
from headwater.testing.deciding import given

BEGIN = KickOff("m", "cup", "final", "Norland", "Estria", "Ada")
BEGUN = KickedOff("m", "cup", "final", "Norland", "Estria", "Ada")
ANN = ("m", 10, 0, "Norland", "P1", "Ann")


def told(number, minute=10, player="P1", name="Ann", team="Norland"):
    """The fields of a moment of the match."""
    return ("m", "cup", f"m.{number}", minute, 0, team, player, name)


def yellow(number, *, second=False):
    return Booked(*told(number), foul=None, second=second)


def test_a_match_begins_once_and_ends_once():
    given(app).when(BEGIN).then(BEGUN)
    given(app, BEGUN).when(BEGIN).then(BegunBefore())
    goal = Scored(*told(1), own_goal=False, penalty=False, score="Norland 1:0 Estria")
    ended = Ended("m", "cup", "Norland", "Estria", 1, 0, None)
    given(app, BEGUN, goal).when(Whistle("m")).then(ended)
    given(app, BEGUN, goal, ended).when(Whistle("m")).then(NotUnderWay("over"))


@pytest.mark.parametrize(
    "decision", [Score(*ANN), Show(*ANN, card="yellow"), Substitute(*ANN, on="P2", on_name="Bea")]
)
def test_nothing_is_decided_unless_the_match_is_under_way_and_the_player_on_the_pitch(decision):
    off = Substituted(*told(1, minute=5), on="P9", on_name="Eve")
    red = SentOff(*told(1, minute=5), foul=None, reason="red")
    ended = Ended("m", "cup", "Norland", "Estria", 0, 0, None)
    given(app).when(decision).then(NotUnderWay("not begun"))
    given(app, BEGUN, ended).when(decision).then(NotUnderWay("over"))
    given(app, BEGUN, off).when(decision).then(IsOff("P1"))
    given(app, BEGUN, red).when(decision).then(IsOff("P1"))


def test_a_second_yellow_card_sends_off():
    show = Show(*ANN, card="yellow")
    given(app, BEGUN).when(show).then(yellow(1))
    off = SentOff(*told(3), foul=None, reason="second yellow")
    given(app, BEGUN, yellow(1)).when(show).then(yellow(2, second=True), off)
    given(app, BEGUN, yellow(1), yellow(2, second=True), off).when(show).then(IsOff("P1"))


def test_a_red_card_sends_off_and_is_no_yellow_one():
    red = SentOff(*told(1), foul="handball", reason="red")
    given(app, BEGUN).when(Show(*ANN, card="red", foul="handball")).then(red)


def test_who_is_off_does_not_come_on_again():
    off = Substituted(*told(1, player="P2", name="Bea"), on="P1", on_name="Ann")
    given(app, BEGUN, off).when(Substitute(*ANN, on="P2", on_name="Bea")).then(IsOff("P2"))


def test_a_goal_counts_for_a_team_that_plays():
    scored = Scored(
        *told(1, team="Estria"), own_goal=True, penalty=False, score="Norland 0:1 Estria"
    )
    own = Score("m", 10, 0, "Estria", "P1", "Ann", own_goal=True)
    given(app, BEGUN).when(own).then(scored)
    strange = Score("m", 10, 0, "Sudland", "P1", "Ann")
    given(app, BEGUN).when(strange).then(NotPlaying("Sudland"))
