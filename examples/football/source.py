"""What is played back: every World Cup where the data is there, or one that is made up."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from examples.football.domain import Card, Decided, KickOff, Score, Show, Substitute

REAL = (
    "the Fjelstul World Cup Database, © 2023 Joshua C. Fjelstul, Ph.D., CC-BY-SA 4.0, "
    "https://github.com/jfjelstul/worldcup (folder data-csv)"
)
PERIODS = ("first half", "second half", "extra time, first half", "extra time, second half")
PAUSES = (0, 15, 20, 21)
"""Minutes of pause before each period begins, about."""

Row = dict[str, str]


@dataclass(frozen=True)
class Record:
    """A moment as it was recorded, in the words of a referee; ``card`` is what the record calls it."""

    at: datetime
    decision: Decided
    card: Card | None = None


@dataclass(frozen=True)
class Played:
    """A match as it was recorded."""

    began: datetime
    ended: datetime
    kick_off: KickOff
    records: list[Record]
    penalties: str | None


@dataclass(frozen=True)
class Source:
    """Matches by cup, in the order in which the cups were played, and who takes part."""

    about: str
    cups: dict[str, list[Played]]
    players: dict[str, str] = field(default_factory=dict)

    @property
    def matches(self) -> Iterator[Played]:
        """All matches."""
        for played in self.cups.values():
            yield from played


class DataMissing(Exception):
    """HEADWATER_DATA names a folder whose data cannot be read."""


def world_cups(folder: Path) -> Source:
    """The recorded cups of a folder. Raises DataMissing."""
    try:
        rows = {name: _read(folder / "worldcup" / f"{name}.csv") for name in _FILES}
        return _Reading(rows).source()
    except (OSError, KeyError, ValueError) as error:
        raise DataMissing(
            f"HEADWATER_DATA is {folder}, and its worldcup/ cannot be read: {error!r}. The data is {REAL}."
        ) from error


def data_folder() -> Path | None:
    """Where the real data is, if anybody says so."""
    named = os.environ.get("HEADWATER_DATA")
    return None if named is None else Path(named)


_FILES = ("matches", "goals", "bookings", "substitutions", "players", "referee_appearances")


def _read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _name(row: Row) -> str:
    names = (row["given_name"], row["family_name"])
    return " ".join(name for name in names if name != "not applicable")


class _Reading:
    """The files brought together by match.

    The order within a minute is not recorded: goals come first, then cards, then substitutions.
    """

    def __init__(self, rows: dict[str, list[Row]]) -> None:
        self._rows = rows
        self._began = {row["match_id"]: _began(row) for row in rows["matches"]}
        self._records: dict[str, list[tuple[tuple[int, ...], Record]]] = {}

    def source(self) -> Source:
        self._goals()
        self._bookings()
        self._substitutions()
        referees = {row["match_id"]: _name(row) for row in self._rows["referee_appearances"]}
        cups: dict[str, list[Played]] = {}
        for row in self._rows["matches"]:
            played = self._played(row, referees.get(row["match_id"], "unknown"))
            cups.setdefault(row["tournament_id"], []).append(played)
        in_order = dict(sorted(cups.items(), key=lambda cup: cup[1][0].began))
        return Source(REAL, in_order, {r["player_id"]: _name(r) for r in self._rows["players"]})

    def _played(self, row: Row, referee: str) -> Played:
        match = row["match_id"]
        records = [one for _, one in sorted(self._records.get(match, []), key=lambda r: r[0])]
        teams = row["home_team_name"], row["away_team_name"]
        begin = KickOff(match, row["tournament_id"], row["stage_name"], *teams, referee)
        lasted = timedelta(minutes=165 if row["extra_time"] == "1" else 120)
        shootout = row["score_penalties"] if row["penalty_shootout"] == "1" else None
        return Played(self._began[match], self._began[match] + lasted, begin, records, shootout)

    def _add(self, row: Row, kind: int, decision: Decided, card: Card | None = None) -> None:
        period = PERIODS.index(row["match_period"].removesuffix(", stoppage time"))
        place = (period, decision.minute, decision.added, kind, int(row["key_id"]))
        after = timedelta(minutes=decision.minute + decision.added + PAUSES[period])
        record = Record(self._began[row["match_id"]] + after, decision, card)
        self._records.setdefault(row["match_id"], []).append((place, record))

    def _goals(self) -> None:
        for row in self._rows["goals"]:
            own_goal, penalty = row["own_goal"] == "1", row["penalty"] == "1"
            self._add(row, 0, Score(*_told(row), own_goal=own_goal, penalty=penalty))

    def _bookings(self) -> None:
        for row in self._rows["bookings"]:
            second, off = row["second_yellow_card"] == "1", row["sending_off"] == "1"
            if row["yellow_card"] == "1":
                card: Card = "second yellow" if second else "yellow"
                self._add(row, 1, Show(*_told(row), card="yellow"), card)
            if off and not second:
                self._add(row, 1, Show(*_told(row), card="red"), "red")

    def _substitutions(self) -> None:
        """Each row is one player: the one who went off and the one who came on are brought together."""
        on: dict[tuple[str, str], list[Row]] = {}
        for row in self._rows["substitutions"]:
            if row["coming_on"] == "1":
                on.setdefault((row["match_id"], row["team_id"]), []).append(row)
        for row in self._rows["substitutions"]:
            if row["going_off"] == "1":
                came = on[row["match_id"], row["team_id"]].pop(0)
                later = max(
                    row,
                    came,
                    key=lambda r: (int(r["minute_regulation"]), int(r["minute_stoppage"])),
                )
                told = (
                    row["match_id"],
                    *_minute(later),
                    row["team_name"],
                    row["player_id"],
                    _name(row),
                )
                self._add(later, 2, Substitute(*told, came["player_id"], _name(came)))


def _began(row: Row) -> datetime:
    """The kick-off by the clock of the place, taken for UTC."""
    return datetime.fromisoformat(f"{row['match_date']}T{row['match_time']}").replace(tzinfo=UTC)


def _minute(row: Row) -> tuple[int, int]:
    return int(row["minute_regulation"]), int(row["minute_stoppage"])


def _told(row: Row) -> tuple[str, int, int, str, str, str]:
    minute, added = _minute(row)
    return row["match_id"], minute, added, row["team_name"], row["player_id"], _name(row)
