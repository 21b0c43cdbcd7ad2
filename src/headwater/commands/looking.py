"""What a decision looks at: the states of its sources, and the versions that they were at."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from headwater.commands.command import Command
from headwater.commands.decider import Decider, Evolving, evolved
from headwater.commands.snapshots import SPACING, Snapshot, Snapshots, as_json
from headwater.commands.statements import SQL
from headwater.commands.streams import Past, SharedReads, read_streams
from headwater.errors import HeadwaterError, InvalidStreamName, LimitExceeded, StateUnreadable
from headwater.log.database import Connection
from headwater.log.reading import StoredRow, recorded

_STREAM = re.compile(r"[a-z][a-z0-9_-]*/[^\x00-\x20\x7f\ud800-\udfff]+")
_KEY = re.compile(r"[^\x00\ud800-\udfff]{1,255}")


@dataclass(frozen=True, slots=True)
class Place:
    """A stream or a key, by name."""

    by: Literal["stream", "key"]
    name: str


@dataclass(frozen=True, slots=True)
class Sights:
    """What a decision on a command looks at: a fold over a place, for each of its sources; and whose."""

    tenant: str
    folds: Sequence[Evolving]
    places: Sequence[Place]

    @staticmethod
    def of(decider: Decider[Any], command: Command, tenant: str) -> Sights:
        """What a decider looks at for a command. Raises InvalidStreamName and LimitExceeded.

        Checked before anything is read: reads are shared, and one caller's name must not fail another's.
        """
        places = [_checked(Place(s.over.by, s.name.fill(command))) for s in decider.sources]
        return Sights(tenant, [source.over.fold for source in decider.sources], places)

    def __iter__(self) -> Iterator[tuple[Evolving, Place]]:
        return zip(self.folds, self.places, strict=True)

    @property
    def are_streams(self) -> bool:
        """Whether they are streams alone."""
        return all(place.by == "stream" for place in self.places)


def _checked(place: Place) -> Place:
    if place.by == "stream" and not (len(place.name) <= 255 and _STREAM.fullmatch(place.name)):
        raise InvalidStreamName(
            f"The stream name {place.name[:300]!r} is malformed.",
            hint="Write category/id: a lower-case category, a slash, and an id without spaces; at most 255 characters.",
        )
    if not _KEY.fullmatch(place.name):
        raise LimitExceeded(
            "A key has more than 255 characters, or none, or one that no text in Postgres has.",
            hint="Use a shorter one.",
        )
    return place


@dataclass(slots=True)
class Seen:
    """States in the order of the sources, the version of each place, and the newest position.

    ``kept`` are the versions of the newest snapshots and ``data`` the states as they may be kept, in the same order;
    the latter where streams alone are looked at.
    """

    states: list[Any] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    data: list[bytes | None] = field(default_factory=list)
    versions: dict[Place, int] = field(default_factory=dict)
    position: int = 0

    def add(self, fold: Evolving, place: Place, version: int, past: Past) -> Any:
        """Adds the state of a source; the state."""
        self.versions[place] = min(version, self.versions.get(place, version))
        self.states.append(_state(fold, place, past))
        self.kept.append(past.version)
        self.position = max(self.position, past.newest[1])
        return self.states[-1]

    def by(self, kind: Literal["stream", "key"]) -> dict[str, int]:
        """The versions of streams, or of keys, by name."""
        return {place.name: v for place, v in self.versions.items() if place.by == kind}


async def look(connection: Connection, sights: Sights) -> Seen:
    """Reads what a decider looks at, in the tenant's transaction.

    Raises StateUnreadable where its fold fails at an event.

    A version is read before or with the events that it counts. So a state may be newer than its
    version says, and then the append is refused; it is never older.
    """
    seen = Seen()
    for fold, place in sights:
        version, past = await _READ[place.by](connection, place.name, sights.tenant, fold)
        seen.add(fold, place, version, past)
    return seen


async def look_at_streams(reads: SharedReads, snapshots: Snapshots, sights: Sights) -> Seen:
    """The same for a decider that looks at streams alone, in reads that commands share.

    They see committed events only, so what they lead to may be kept.
    """
    seen = Seen()
    for fold, place in sights:
        past = await reads.past(place.name, sights.tenant, fold.fingerprint)
        version, position = past.newest
        data = as_json(seen.add(fold, place, version, past))
        seen.data.append(data)
        if len(past.rows) >= SPACING and data is not None:
            kept = Snapshot(sights.tenant, place.name, fold.fingerprint, version, position, data)
            snapshots.keep(kept)
            seen.kept[-1] = version
    return seen


async def _stream(
    connection: Connection, name: str, tenant: str, fold: Evolving
) -> tuple[int, Past]:
    # All of its events, whatever their types: the last one's version is the stream's.
    (past,) = await read_streams(connection, tenant, [(name, fold.fingerprint)])
    return past.newest[0], past


async def _key(connection: Connection, name: str, tenant: str, fold: Evolving) -> tuple[int, Past]:
    asked = {"tenant": tenant, "name": name}
    cursor = await connection.execute(SQL["commands.key_version"], asked, prepare=True)
    counted = await cursor.fetchone()
    asked_types = {**asked, "types": [t.name for t in fold.types]}
    cursor = await connection.execute(SQL["commands.key"], asked_types, binary=True, prepare=True)
    rows: list[StoredRow] = await cursor.fetchall()
    return (counted[0] if counted else 0), Past(rows)


_READ = {"stream": _stream, "key": _key}


def _kept(fold: Evolving, place: Place, past: Past) -> Any:
    """The snapshot's state, None without one or where there is no document."""
    if past.state is None:
        return None
    try:
        return msgspec.json.decode(past.state, type=fold.state | None)
    except msgspec.MsgspecError as error:
        raise StateUnreadable(
            f"The snapshot of the fold {fold.name!r} over {place.name!r} cannot be read: {error}.",
            hint="Delete it from headwater.snapshots as an operator: it is made again.",
        ) from error


def _state(fold: Evolving, place: Place, past: Past) -> Any:
    state = _kept(fold, place, past)
    for row in past.rows:
        declared = fold.types.get(row[4])
        if declared is None:
            continue
        try:
            if fold.takes_recorded:
                whole = recorded(fold.types, row)
                state = evolved(fold, state, whole.event, whole)
            else:
                state = evolved(fold, state, declared.decode(row[9], row[5]))
        except (HeadwaterError, msgspec.ValidationError, Exception) as error:
            raise StateUnreadable(
                f"The fold {fold.name!r} fails at the event at {row[0]} ({row[4]}): "
                f"{type(error).__name__}: {error}.",
                hint="Mend the fold; nothing was decided.",
            ) from error
    return state
