"""Takes what was opened of a person out of views: the documents concerned are folded again, without the key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import msgspec

from headwater.errors import LeaseLost, StoreUnavailable, SubjectForgotten, UnknownEventType
from headwater.log.database import Connection, Database
from headwater.log.reading import StoredRow, recorded
from headwater.personal.places import Found, Person
from headwater.views.documents import SetAside, Step
from headwater.views.driving.generations import drop_generation
from headwater.views.driving.record import SQL, ViewRecord
from headwater.views.driving.work import Folding, encode
from headwater.views.fold import Failed, FoldEvent, Key, evolve_all
from headwater.views.port import StoredView
from headwater.views.storage import Place, Storage

AT_ONCE = 500
"""How many documents one transaction folds again."""
SEALED = "It holds sealed text only."
_ATTEMPTS = 20


@runtime_checkable
class Purgeable(Protocol):
    """A view that may hold what it opened."""

    async def purge(self, person: Person) -> Found:
        """Takes out what it holds of a person. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class PurgedViews:
    """The views of an app as a place to be purged. ``database`` is in the relay's role."""

    database: Database
    views: Mapping[str, StoredView]

    async def purge(self, person: Person) -> list[Found]:
        """Purges the views, one after another; a relay may drive them meanwhile.

        Raises StoreUnavailable where a store is down, once all others are purged.
        """
        found, down = [], None
        for name, view in self.views.items():
            try:
                if isinstance(view, Purgeable):
                    found.append(await self._purged(view, person))
                else:
                    found.append(Found(f"view {name}", note=SEALED))
            except StoreUnavailable as error:
                down = error
        if down is not None:
            raise down
        return found

    async def _purged(self, view: Purgeable, person: Person) -> Found:
        """What a relay has overtaken, or another who is forgotten, is begun again."""
        for _ in range(_ATTEMPTS):
            try:
                return await view.purge(person)
            except (LeaseLost, SubjectForgotten):
                continue
        return await view.purge(person)

    async def look(self, person: Person) -> list[Found]:
        """Which rows are registered: of views that the app no longer has, too."""
        async with self.database.connection() as connection:
            cursor = await connection.execute(SQL["opened.left"], {"key_id": person.key_id})
            left: Counter[str] = Counter(dict(await cursor.fetchall()))
        names = sorted({*left, *self.views})
        return [
            Found(
                f"view {name}",
                left=left[name],
                note="" if name in self.views else "The app has no such view: declare it, and forget again.",
            )
            for name in names
        ]  # fmt: skip


async def drop_others(
    connection: Connection,
    record: ViewRecord,
    person: Person,
    storage: Storage | None = None,
    place: Place | None = None,
) -> None:
    """Drops the generations of a view that nobody reads, where they hold something of a person.

    A rebuild under way begins anew; what was kept from before the last one is gone.
    """
    for row in (f"{record.name}~next", f"{record.name}~last"):
        cursor = await connection.execute(
            SQL["opened.generation"], {"row": row, "view": record.name, "key_id": person.key_id}
        )
        if await cursor.fetchone() is not None:
            await drop_generation(connection, record.name, row)
    cursor = await connection.execute(SQL["opened.generations"], {"view": record.name})
    newest, kept = (await cursor.fetchall())[0]
    if storage is not None and place is not None:
        await storage.sweep(replace(place, generation=newest + 1), kept)
    await connection.execute(SQL["opened.sweep"], {"view": record.name, "kept": kept})


async def refolded(
    folding: Folding[Any],
    record: ViewRecord,
    connection: Connection,
    keys: Sequence[Key],
    upto: int,
) -> tuple[Step, SetAside]:
    """Documents of one tenant as the log gives them now, and events that the function cannot take any more.

    Those are parked, as when a batch fails; the document stays as it was before.
    """
    aside = {row[0] for row in await record.not_applied(connection)}
    rows = [row for row in await _rows(folding, connection, keys, upto) if row[0] not in aside]
    step, parked = Step(upto, upto, indexes=folding.fold.indexes), SetAside()
    by_key: dict[Key, list[StoredRow]] = {key: [] for key in keys}
    for row in rows:
        if (key := _key(folding, row)) in by_key:
            by_key[key].append(row)
    states: dict[Key, Any] = {}
    for key, own in by_key.items():
        last = await _refold(folding, key, own, step, parked, states)
        if (state := states.get(key)) is None:
            step.removed.append(key)
        else:
            step.kept.append(key)
            step.documents.append(encode(state))
            step.positions.append(last)
    step.states = states
    return step, parked


async def _refold(
    folding: Folding[Any],
    key: Key,
    rows: Sequence[StoredRow],
    step: Step,
    parked: SetAside,
    states: dict[Key, Any],
) -> int:
    """Folds one document; the position of the last event that it took."""
    last, failure = 0, ""
    for row in rows:
        if failure:
            parked.followers.append((row[0], key))
            continue
        try:
            whole = recorded(folding.fold.types, row)
            item = FoldEvent(
                row[0], key, whole.event, whole if folding.fold.takes_recorded else None
            )
            items, opened = await folding.opening.events([item])
            for _ in evolve_all(folding.fold, states, items):
                last = row[0]
            step.opened += opened
        except (Failed, msgspec.ValidationError, UnknownEventType) as error:
            failure = error.reason if isinstance(error, Failed) else type(error).__name__
            parked.culprits.append((row[0], key, failure, "parked"))
    return last


async def _rows(
    folding: Folding[Any], connection: Connection, keys: Sequence[Key], upto: int
) -> list[StoredRow]:
    fold, names = folding.fold, [key for _, key in keys]
    streams = [fold.streams_of(name) for name in names]
    asked: dict[str, Any] = {"tenant": keys[0][0], "types": fold.type_names, "upto": upto}
    if None in streams:
        statement = SQL["opened.of_keys"]
        asked |= {"fields": fold.key_names, "keys": names}
    else:
        statement = SQL["log.of_streams"]
        asked["streams"] = [stream for some in streams for stream in some or ()]
    cursor = await connection.execute(statement, asked, binary=True)
    rows: list[StoredRow] = await cursor.fetchall()
    return rows


def _key(folding: Folding[Any], row: StoredRow) -> Key | None:
    data = msgspec.json.decode(row[9])
    value = next((data[n] for n in folding.fold.key_names if n in data), None)
    return None if value is None else (row[1], str(value))
