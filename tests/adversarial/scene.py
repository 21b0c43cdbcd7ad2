"""A few transactions, a ticker and a reader, moved by hand one statement at a time."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Protocol, Self

from marked import APPEND, SAFE, SET_TENANT, committed_rows

from headwater.log import Connection
from headwater.log.database import connect
from simulation.verdict import Row, Sight, Verdict, judge

ROWS = """
SELECT position, tenant, stream, version, data->>'mark' FROM headwater.events
WHERE position > %(after)s AND position <= %(upto)s ORDER BY position
"""


class Ticks(Protocol):
    """Ticker and its doubles."""

    async def tick(self) -> object: ...


class Log(Protocol):
    """Where the scene plays."""

    @property
    def url(self) -> str: ...
    @property
    def admin_url(self) -> str: ...


class Scene:
    """``relay`` is for a ticker, ``reading`` for the reader; each writer gets a session by name."""

    relay: Connection
    reading: Connection

    def __init__(self, log: Log) -> None:
        self.log = log
        self.seen: list[Row] = []
        self.cursor = 0
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.relay = await self.session("headwater_relay")
        self.reading = await self.session("headwater_relay")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def session(self, role: str = "headwater_app") -> Connection:
        return await self._open.enter_async_context(await connect(self.log.url, role))

    async def begin(self, *marks: str, session: Connection | None = None) -> Connection:
        """A transaction that appended these and is still open."""
        session = session or await self.session()
        await session.execute("BEGIN")
        await session.execute(SET_TENANT, {"tenant": "main"})
        for mark in marks:
            await session.execute(APPEND, {"line": mark.replace(" ", "-"), "mark": mark})
        return session

    async def commit(self, *marks: str, session: Connection | None = None) -> Connection:
        session = await self.begin(*marks, session=session)
        await session.execute("COMMIT")
        return session

    async def settle(self, ticker: Ticks) -> None:
        """As many ticks as publish all that is decided."""
        for _ in range(3):
            await ticker.tick()

    async def watermark(self) -> int:
        row = await (await self.reading.execute(SAFE)).fetchone()
        assert row is not None
        return row[0]

    async def rows(self, upto: int) -> list[Row]:
        cursor = await self.reading.execute(ROWS, {"after": self.cursor, "upto": upto})
        return [Row(*row) for row in await cursor.fetchall()]

    async def read(self, upto: int | None = None) -> None:
        """The watermark in one statement, the rows in the next."""
        upto = await self.watermark() if upto is None else upto
        self.take(await self.rows(upto), upto)

    def take(self, rows: list[Row], upto: int) -> None:
        self.seen += rows
        self.cursor = max(self.cursor, upto)

    @property
    def marks(self) -> list[str]:
        return [row.mark for row in self.seen]

    def verdict(self) -> Verdict:
        return judge(committed_rows(self.log.admin_url), [Sight("the reader", self.seen)])
