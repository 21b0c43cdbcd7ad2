"""Which events are behind a row, and how it changed at each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from headwater.errors import DefinitionError, UnknownView
from headwater.log.database import Connection
from headwater.log.reading import StoredRow, recorded
from headwater.views.definition import Change, Explanation
from headwater.views.driving.record import SQL, ViewRecord
from headwater.views.driving.work import Folding, plain
from headwater.views.fold import FoldEvent, Key, evolve_all


async def upto_of(record: ViewRecord, connection: Connection) -> tuple[int, dict[int, str]]:
    """The view's checkpoint, and the positions that it has not applied with their status."""
    position = await record.checkpoint(connection)
    if position is None:
        raise UnknownView(
            f"The view {record.name!r} is not deployed.", hint="Run headwater up or init first."
        )
    aside = await record.not_applied(connection)
    return position, {place: status for place, _, _, status in aside}


def change_of(row: StoredRow, state: Any, left_out: str | None = None) -> Change:
    """A row of the log as a change."""
    data = msgspec.Raw(row[9].encode())
    return Change(row[0], row[2], row[3], row[4], row[7], row[8], data, state, left_out)


async def explain_fold(
    folding: Folding[Any],
    record: ViewRecord,
    connection: Connection,
    key: Sequence[str | None],
    tenant: str,
    limit: int,
) -> Explanation:
    """Folds the events of a key again, one by one: of its streams where the key names them, else of the tenant."""
    fold = folding.fold
    if len(key) != 1 or key[0] is None:
        raise DefinitionError(
            f"The view {fold.name!r} is keyed by {fold.key!r}.", hint="Name one value."
        )
    upto, aside = await upto_of(record, connection)
    streams = fold.streams_of(key[0])
    asked = {
        "tenant": tenant, "types": fold.type_names, "upto": upto, "fields": fold.key_names, "key": key[0], "streams": streams,
    }  # fmt: skip
    statement = SQL["log.of_key" if streams is None else "log.of_streams"]
    cursor = await connection.execute(statement, asked, binary=True)
    rows: list[StoredRow] = await cursor.fetchall()
    place: Key = (tenant, key[0])
    states: dict[Key, Any] = {}
    changes = []
    for row in rows:
        if row[0] not in aside:
            whole = recorded(fold.types, row)
            item = FoldEvent(row[0], place, whole.event, whole if fold.takes_recorded else None)
            opened, _ = await folding.opening.events([item])
            for _ in evolve_all(fold, states, opened):
                pass
        changes.append(change_of(row, plain(states.get(place)), aside.get(row[0])))
    return Explanation(fold.name, tenant, tuple(key), upto, len(rows), tuple(changes[-limit:]))


async def whole_events(connection: Connection, positions: Sequence[int]) -> Mapping[int, StoredRow]:
    """Rows of the log by position."""
    cursor = await connection.execute(
        SQL["log.at_positions"], {"positions": list(positions)}, binary=True
    )
    return {row[0]: row for row in await cursor.fetchall()}
