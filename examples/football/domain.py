"""What happens in a match, the state that it leaves, and what a referee may decide. Pure: no I/O."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from headwater import Command, Document, Event, Rejection

Name = Annotated[str, Meta(min_length=1, max_length=80)]
Card = Literal["yellow", "second yellow", "red"]

# Facts -------------------------------------------------------------------------------------------


class Told(Struct):
    """What every reader needs of a moment: when, who, and for whom. ``added`` is stoppage time."""

    match: str
    cup: str
    moment: str
    minute: int
    added: int
    team: str
    player: str
    name: str


class KickedOff(Event, type="match.kicked_off", stream="match/{match}"):
    """A match began."""

    match: str
    cup: str
    stage: str
    home: str
    away: str
    referee: str


class Scored(Told, Event, type="match.scored", stream="match/{match}"):
    """A goal for a team. In an own goal the player is of the other one."""

    own_goal: bool
    penalty: bool
    score: str


class Booked(Told, Event, type="match.booked", stream="match/{match}"):
    """A yellow card."""

    foul: str | None
    second: bool


class SentOff(Told, Event, type="match.sent_off", stream="match/{match}"):
    """A player must leave the pitch."""

    foul: str | None
    reason: Literal["second yellow", "red"]


class Substituted(Told, Event, type="match.substituted", stream="match/{match}"):
    """One player went off, another came on."""

    on: str
    on_name: str


class Ended(Event, type="match.ended", stream="match/{match}"):
    """The final whistle."""

    match: str
    cup: str
    home: str
    away: str
    goals_home: int
    goals_away: int
    penalties: str | None


class WentOffAir(Event, type="match.went_off_air", stream="match/{match}"):
    """Nobody broadcasts the match any more."""

    match: str


class RuleBroken(Event, type="match.rule_broken", stream="match/{match}"):
    """The records tell what the rules do not allow."""

    match: str
    cup: str
    minute: int
    player: str
    name: str
    rule: str


class Reacted(Event, type="fans.reacted", stream="moment/{moment}"):
    """So many more reactions to a moment."""

    moment: str
    reactions: int


Moment = Scored | Booked | SentOff | Substituted

# The match, as the referee's notebook has it -------------------------------------------------------


class Match(Document):
    """A match so far."""

    cup: str = ""
    home: str = ""
    away: str = ""
    status: Literal["not begun", "under way", "over"] = "not begun"
    goals: dict[str, int] = msgspec.field(default_factory=dict)
    booked: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    moments: int = 0


def match_so_far(state: Match, event: KickedOff | Moment | Ended) -> Match:
    """The match after a fact."""
    match event:
        case KickedOff(cup=cup, home=home, away=away):
            return Match(cup, home, away, "under way", {home: 0, away: 0})
        case Ended():
            return state.but(status="over")
        case Scored(team=team):
            state = state.but(goals=state.goals | {team: state.goals.get(team, 0) + 1})
        case Booked(player=player):
            state = state.but(booked=(*state.booked, player))
        case SentOff(player=player) | Substituted(player=player):
            state = state.but(off=(*state.off, player))
    return state.but(moments=state.moments + 1)


# What the referee asks for -------------------------------------------------------------------------


class KickOff(Command, stream="match/{match}"):
    """Begin a match."""

    match: Name
    cup: Name
    stage: Name
    home: Name
    away: Name
    referee: Name


class Decision(Command):
    """When, who, and for whom."""

    match: Name
    minute: int
    added: int
    team: Name
    player: Name
    name: Name


class Score(Decision, stream="match/{match}"):
    """Give a goal."""

    own_goal: bool = False
    penalty: bool = False


class Show(Decision, stream="match/{match}"):
    """Show a card. Whether a yellow one is the second, the notebook says."""

    card: Literal["yellow", "red"]
    foul: str | None = None


class Substitute(Decision, stream="match/{match}"):
    """Let the player go off and another come on."""

    on: Name
    on_name: Name


Decided = Score | Show | Substitute


class Whistle(Command, stream="match/{match}"):
    """End a match; ``penalties`` is how a shoot-out ended."""

    match: Name
    penalties: str | None = None


class NotUnderWay(Rejection, frozen=True):
    """The match is not under way."""

    status: str


class BegunBefore(Rejection, frozen=True):
    """The match has begun already."""


class NotPlaying(Rejection, frozen=True):
    """The team does not play in this match."""

    team: str


class IsOff(Rejection, frozen=True):
    """The player is off the pitch."""

    player: str


Refused = NotUnderWay | NotPlaying | IsOff

# The rules -----------------------------------------------------------------------------------------


def kick_off(state: Match, command: KickOff) -> KickedOff | BegunBefore:
    """A match begins once."""
    if state.status != "not begun":
        return BegunBefore()
    return KickedOff(**msgspec.structs.asdict(command))


def score(state: Match, command: Score) -> Scored | Refused:
    """Only who is on the pitch scores."""
    return _refusal(state, command) or goal(state, command)


def show(state: Match, command: Show) -> list[Booked | SentOff] | Refused:
    """No card for who is off; a second yellow card sends off."""
    card: Card = command.card
    if card == "yellow" and command.player in state.booked:
        card = "second yellow"
    return _refusal(state, command) or cards(state, command, card)


def substitute(state: Match, command: Substitute) -> Substituted | Refused:
    """Who is off stays off."""
    if command.on in state.off:
        return IsOff(command.on)
    return _refusal(state, command) or substitution(state, command)


def whistle(state: Match, command: Whistle) -> Ended | NotUnderWay:
    """The result is the sum of the goals."""
    if state.status != "under way":
        return NotUnderWay(state.status)
    home, away = state.goals[state.home], state.goals[state.away]
    return Ended(command.match, state.cup, state.home, state.away, home, away, command.penalties)


def _refusal(state: Match, command: Decision) -> Refused | None:
    if state.status != "under way":
        return NotUnderWay(state.status)
    if command.team not in state.goals:
        return NotPlaying(command.team)
    return IsOff(command.player) if command.player in state.off else None


# The facts of a decision, whatever the rules say: playback records what was ---------------------------


def goal(state: Match, command: Score) -> Scored:
    """A goal."""
    after = state.goals | {command.team: state.goals.get(command.team, 0) + 1}
    score = f"{state.home} {after.get(state.home)}:{after.get(state.away)} {state.away}"
    own_goal, penalty = command.own_goal, command.penalty
    return Scored(**_told(state, command), own_goal=own_goal, penalty=penalty, score=score)


def cards(state: Match, command: Show, card: Card) -> list[Booked | SentOff]:
    """A card; a second yellow one is two facts."""
    facts: list[Booked | SentOff] = []
    if card != "red":
        second = card == "second yellow"
        facts.append(Booked(**_told(state, command), foul=command.foul, second=second))
    if card != "yellow":
        told = _told(state, command, len(facts))
        facts.append(SentOff(**told, foul=command.foul, reason=card))
    return facts


def substitution(state: Match, command: Substitute) -> Substituted:
    """A substitution."""
    return Substituted(**_told(state, command), on=command.on, on_name=command.on_name)


def _told(state: Match, command: Decision, before: int = 0) -> dict[str, Any]:
    """The fields of Told. A match counts its moments."""
    own = {name: getattr(command, name) for name in Decision.__struct_fields__}
    return own | {"cup": state.cup, "moment": f"{command.match}.{state.moments + before + 1}"}
