"""The protocol with one part broken: tickers and readers that the suite must catch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from marked import HEAD

from headwater.log import Connection, Generations

Between = Callable[[], Awaitable[None]]

HOLDERS = """
SELECT virtualtransaction, pid::text FROM pg_locks
WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND relation = 'headwater.position_seq'::regclass
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
PUBLISH = "SELECT headwater.publish(%s)"
MOST_LOGGED_AHEAD = 32  # SEQ_LOG_VALS of Postgres


async def nothing() -> None:
    """Nothing happens between two statements."""


class TickerDouble:
    """The ticker's protocol once more, in parts that can be broken one at a time.

    ``between`` happens between a tick's two statements.
    """

    def __init__(self, connection: Connection, between: Between = nothing) -> None:
        self.connection = connection
        self.between = between
        self.generations = Generations()
        self.published = -1

    async def tick(self) -> None:
        drawn = await self.drawn()
        await self.between()
        await self.decide(drawn, await self.holders())

    async def decide(self, drawn: int, holders: frozenset[str]) -> None:
        decided = self.generations.observe(drawn, holders)
        if decided is not None:
            await self.publish(decided)

    async def drawn(self) -> int:
        row = await (await self.connection.execute(HEAD)).fetchone()
        assert row is not None
        return row[0]

    async def holders(self) -> frozenset[str]:
        cursor = await self.connection.execute(HOLDERS)
        return frozenset(virtual for virtual, _ in await cursor.fetchall())

    async def publish(self, decided: int) -> None:
        await self.connection.execute(PUBLISH, [decided])
        self.published = decided


class WaitsForNobody(TickerDouble):
    async def holders(self) -> frozenset[str]:
        return frozenset()


class HoldersBeforePosition(TickerDouble):
    async def tick(self) -> None:
        holders = await self.holders()
        await self.between()
        await self.decide(await self.drawn(), holders)


class HoldersByPid(TickerDouble):
    """PREPARE TRANSACTION clears the pid."""

    async def holders(self) -> frozenset[str]:
        cursor = await self.connection.execute(HOLDERS)
        return frozenset(pid for _, pid in await cursor.fetchall() if pid is not None)


class ReadsAhead(TickerDouble):
    """What a glance at the sequence without its lock may show: the last position logged ahead."""

    async def drawn(self) -> int:
        return await super().drawn() + MOST_LOGGED_AHEAD


class PublishesInMemory(TickerDouble):
    """Readers in the same process learn the watermark, and the database does not."""

    async def publish(self, decided: int) -> None:
        self.published = decided


BROKEN_TICKERS = (
    WaitsForNobody,
    HoldersBeforePosition,
    HoldersByPid,
    ReadsAhead,
    PublishesInMemory,
)
