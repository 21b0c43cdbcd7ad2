"""Playback: what was recorded becomes facts, whatever the rules say; what they do not allow is recorded too."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from examples.football import domain
from examples.football.app import DAY_SECONDS, Football
from examples.football.books import note
from examples.football.domain import (
    Match,
    RuleBroken,
    Score,
    SentOff,
    Show,
    Substitute,
    WentOffAir,
    Whistle,
)
from examples.football.source import Played, Record
from headwater import Event, Fact, Rejection, Token

Ruling = list[Event] | Rejection


async def play_back(football: Football, cup: list[Played]) -> Token:
    """A cup in one transaction: its rows and its facts."""
    facts = [fact for played in cup for fact in told(played)]
    async with football.app.transaction() as tx:
        await note(tx, (fact.event for fact in facts))
        return (await tx.append(*facts)).token


def told(played: Played) -> Iterator[Fact]:
    """A match as facts."""
    match = played.kick_off.match
    begun = domain.kick_off(Match(), played.kick_off)
    assert isinstance(begun, domain.KickedOff)
    yield Fact(event=begun, expect=0, occurred_at=played.began)
    state = domain.match_so_far(Match(), begun)
    for record in played.records:
        ruling, facts = by_the_rules(state, record), as_recorded(state, record)
        for fact in facts:
            yield Fact(event=fact, occurred_at=record.at)
            state = domain.match_so_far(state, fact)
        if ruling != facts:
            broken = _broken(record, state.cup, _rule(ruling))
            yield Fact(event=broken, occurred_at=record.at)
    ended = domain.whistle(state, Whistle(match, played.penalties))
    assert isinstance(ended, domain.Ended)
    yield Fact(event=ended, occurred_at=played.ended)
    yield Fact(event=WentOffAir(match), occurred_at=played.ended + timedelta(seconds=DAY_SECONDS))


def by_the_rules(state: Match, record: Record) -> Ruling:
    """What a referee who keeps to the rules would have decided."""
    match record.decision:
        case Score() as decision:
            ruling: Event | Rejection | list[domain.Booked | SentOff] = domain.score(
                state, decision
            )
        case Show() as decision:
            ruling = domain.show(state, decision)
        case Substitute() as decision:
            ruling = domain.substitute(state, decision)
    if isinstance(ruling, Rejection):
        return ruling
    return [ruling] if isinstance(ruling, Event) else list(ruling)


def as_recorded(state: Match, record: Record) -> list[domain.Moment]:
    """What happened."""
    match record.decision:
        case Score() as decision:
            return [domain.goal(state, decision)]
        case Show() as decision:
            return [*domain.cards(state, decision, record.card or decision.card)]
        case Substitute() as decision:
            return [domain.substitution(state, decision)]


def _rule(ruling: Ruling) -> str:
    if isinstance(ruling, Rejection):
        return ruling.message
    off = any(isinstance(event, SentOff) for event in ruling)
    return "A second yellow card sends off." if off else "A first yellow card does not send off."


def _broken(record: Record, cup: str, rule: str) -> RuleBroken:
    d = record.decision
    return RuleBroken(d.match, cup, d.minute, d.player, d.name, rule)
