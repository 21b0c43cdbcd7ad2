"""The application's own tables: normalised, and written in the transaction of the facts."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import groupby
from pathlib import Path

import msgspec

from examples.football.domain import Booked, Ended, KickedOff, Scored, SentOff, Substituted
from examples.football.source import Source
from headwater import Event, Transaction

HERE = Path(__file__).parent
KEPT: dict[type[Event], str] = {
    KickedOff: "kicked_off", Scored: "scored", Booked: "booked", SentOff: "sent_off",
    Substituted: "substituted", Ended: "ended",
}  # fmt: skip
"""What has rows, in the order in which their tables refer to each other."""


@cache
def statement(name: str) -> bytes:
    """A statement of ``sql/statements``. As bytes, which psycopg takes for a trusted file's text."""
    return (HERE / "sql" / "statements" / f"{name}.sql").read_bytes()


async def open_books(tx: Transaction, source: Source) -> None:
    """Makes the tables, and fills those of who takes part."""
    await tx.connection.execute((HERE / "tables.sql").read_bytes())
    starts = [played.kick_off for played in source.matches]
    teams = {team for start in starts for team in (start.home, start.away)}
    rows: dict[str, list[tuple[str, ...]]] = {
        "player": list(source.players.items()),
        "team": [(team,) for team in teams],
        "referee": [(referee,) for referee in {start.referee for start in starts}],
    }
    async with tx.connection.cursor() as cursor:
        for name, filled in rows.items():
            await cursor.executemany(statement(name), filled)


async def note(tx: Transaction, events: Iterable[Event]) -> None:
    """Writes the rows of some facts."""
    order = list(KEPT)
    kept = sorted((e for e in events if type(e) in KEPT), key=lambda e: order.index(type(e)))
    async with tx.connection.cursor() as cursor:
        for kind, together in groupby(kept, key=type):
            rows = [msgspec.structs.asdict(event) for event in together]
            await cursor.executemany(statement(KEPT[kind]), rows)
