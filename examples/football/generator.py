"""A cup that is made up: plausible, the same each time, and with a few records that break the rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import combinations
from random import Random

from examples.football.domain import Card, Decided, KickOff, Score, Show, Substitute
from examples.football.source import REAL, Played, Record, Source

TEAMS = ("Norland", "Estria", "Sudland", "Vestmark", "Isleton", "Montara", "Lakonia", "Plainsea")
CUPS = {f"MADE-UP-{year}": datetime(year, 6, 10, tzinfo=UTC) for year in (2010, 2014, 2018, 2022)}
SQUAD, ELEVEN = 18, 11


def made_up(seed: int = 20) -> Source:
    """Four cups, each team against each other."""
    chance = Random(seed)
    cups = {cup: list(_cup(chance, cup, begins)) for cup, begins in CUPS.items()}
    about = f"made up, since HEADWATER_DATA is not set. The real data is {REAL}"
    return Source(about, cups, {_player(t, n): _name(t, n) for t in TEAMS for n in range(SQUAD)})


def _cup(chance: Random, cup: str, begins: datetime) -> list[Played]:
    played = []
    for number, (home, away) in enumerate(combinations(TEAMS, 2), start=1):
        match, began = f"{cup}-{number:02}", begins + timedelta(days=number)
        stage = "final" if number == len(TEAMS) * (len(TEAMS) - 1) // 2 else "group stage"
        begin = KickOff(match, cup, stage, home, away, f"Referee {number % 5}")
        records = _Match(chance, match, began, (home, away)).records()
        played.append(Played(began, began + timedelta(minutes=120), begin, records, None))
    return played


class _Match:
    """Minute by minute; who is on the pitch is known, so that a broken rule is meant."""

    def __init__(self, chance: Random, match: str, began: datetime, teams: tuple[str, str]) -> None:
        self._chance, self._match, self._began, self._teams = chance, match, began, teams
        self._on = {team: list(range(ELEVEN)) for team in teams}
        self._bench = {team: list(range(ELEVEN, SQUAD)) for team in teams}
        self._off: list[tuple[str, int]] = []
        self._booked: set[str] = set()
        self._minute = 0

    def records(self) -> list[Record]:
        made: list[Record] = []
        for minute in range(1, 91):
            self._minute = minute
            team = self._chance.choice(self._teams)
            what = self._chance.random()
            if what < 0.03:
                made.append(self._record(Score(*self._told(team, self._anyone(team)))))
            elif what < 0.07:
                made.append(self._booking(team, self._anyone(team)))
            elif what < 0.11 and minute > 45 and len(self._bench[team]) > SQUAD - ELEVEN - 3:
                made.append(self._substitution(team))
            elif self._off and what > 0.995:  # a card for who is off
                made.append(self._booking(*self._off[-1]))
        return made

    def _anyone(self, team: str) -> int:
        return self._chance.choice(self._on[team])

    def _booking(self, team: str, number: int) -> Record:
        show = Show(*self._told(team, number), card="yellow")
        card: Card = "second yellow" if show.player in self._booked else "yellow"
        self._booked.add(show.player)
        if card == "second yellow" and number in self._on[team]:
            self._leave(team, number)
        return self._record(show, card)

    def _substitution(self, team: str) -> Record:
        number, on = self._anyone(team), self._bench[team].pop(0)
        self._leave(team, number)
        self._on[team].append(on)
        told = self._told(team, number)
        return self._record(Substitute(*told, _player(team, on), _name(team, on)))

    def _leave(self, team: str, number: int) -> None:
        self._on[team].remove(number)
        self._off.append((team, number))

    def _record(self, decision: Decided, card: Card | None = None) -> Record:
        pause = 15 if self._minute > 45 else 0
        return Record(self._began + timedelta(minutes=self._minute + pause), decision, card)

    def _told(self, team: str, number: int) -> tuple[str, int, int, str, str, str]:
        return self._match, self._minute, 0, team, _player(team, number), _name(team, number)


def _player(team: str, number: int) -> str:
    return f"{team[:3].upper()}-{number + 1:02}"


def _name(team: str, number: int) -> str:
    return f"{team} {number + 1}"
