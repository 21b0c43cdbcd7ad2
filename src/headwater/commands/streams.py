"""Reading streams for decisions: from the newest snapshot on, in reads that commands share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg import AsyncCursor

from headwater.commands.snapshots import LEAST
from headwater.commands.statements import SQL
from headwater.log import arrays
from headwater.log.database import Connection, Database
from headwater.log.reading import StoredRow
from headwater.log.sharing import Shared

_AT_ONCE = 200
_WIDTH = 12
Asked = tuple[str, str]
"""A stream's name, and the fingerprint of the fold whose state is wanted."""
Question = tuple[str, Asked]
"""The same, after the tenant."""


@dataclass(slots=True)
class Past:
    """What a stream has been: a snapshot's version, position and state, and the events after it.

    Without a snapshot the version is 0, and the state None.
    """

    rows: list[StoredRow] = field(default_factory=list)
    version: int = 0
    position: int = 0
    state: str | None = None

    @property
    def newest(self) -> tuple[int, int]:
        """The stream's version, and the position of its last event."""
        return (self.rows[-1][3], self.rows[-1][0]) if self.rows else (self.version, self.position)


async def read_streams(connection: Connection, tenant: str, asked: Sequence[Asked]) -> list[Past]:
    """Streams as one statement sees them, in the order asked; a stream that is not there has no past."""
    cursor = await _ask(connection, tenant, asked)
    return _pasts(await cursor.fetchall(), len(asked))


async def _ask(
    connection: Connection, tenant: str, asked: Sequence[Asked]
) -> AsyncCursor[tuple[Any, ...]]:
    parameters = {
        "tenant": tenant,
        "names": arrays.text_array([name for name, _ in asked]),
        "fingerprints": arrays.text_array([fingerprint for _, fingerprint in asked]),
        "least": LEAST,
    }
    return await connection.execute(SQL["commands.streams"], parameters, binary=True, prepare=True)


def _pasts(rows: Iterable[tuple[Any, ...]], count: int) -> list[Past]:
    found = [Past() for _ in range(count)]
    for row in rows:
        place, version, position, state = row[_WIDTH:]
        past = found[place - 1]
        if state is not None:
            past.version, past.position, past.state = version, position, state
        if row[0] is not None:
            past.rows.append(row[:_WIDTH])
    return found


class SharedReads:
    """Streams, each in a snapshot that is taken after the call."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._shared = Shared(self._answer, at_once=_AT_ONCE, name="shared reads")

    async def past(self, name: str, tenant: str, fingerprint: str) -> Past:
        """A stream's past, for a fold."""
        return await self._shared.ask((tenant, (name, fingerprint)))

    async def close(self) -> None:
        """Ends what reads. Idempotent."""
        await self._shared.close()

    async def _answer(self, questions: Sequence[Question]) -> list[Past]:
        found: dict[Question, Past] = {}
        for tenant in sorted({tenant for tenant, _ in questions}):
            asked = sorted({asked for whose, asked in questions if whose == tenant})
            for one, past in zip(asked, await self._read(tenant, asked), strict=True):
                found[tenant, one] = past
        return [found[question] for question in questions]

    async def _read(self, tenant: str, asked: Sequence[Asked]) -> list[Past]:
        async with self._database.connection() as connection:
            # One round trip: the statements of a transaction, sent together.
            async with connection.pipeline(), connection.transaction():
                await connection.execute(SQL["commands.begin"], {"tenant": tenant}, prepare=True)
                cursor = await _ask(connection, tenant, asked)
            return _pasts(await cursor.fetchall(), len(asked))
