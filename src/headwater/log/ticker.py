"""The watermark: up to which position every transaction has ended.

A sequence's numbers are not in commit order, so a reader that trusts `position > last seen` loses
events. But `nextval` takes RowExclusiveLock on the sequence before it draws, the top-level
transaction owns that lock until it ends, and neither a rollback to a savepoint nor a two-phase
prepare gives it up. So:

1. L, the last position drawn, is read under the sequence's buffer lock: a plain `SELECT last_value`
   can see a value up to 32 ahead, which `nextval` shows for a moment while it writes its log record.
2. After that S is read, the transactions that hold the lock now. Neither goes through a snapshot, so
   one function reads both, in this order.
3. Once all of S have ended, L is decided. A commit of its own flushes the log, so that nothing at
   or below L can vanish in a crash or be drawn again; and then L is published.

A position at or below L was drawn before step 1, so its transaction held the lock then; at step 2 it
is in S, or has ended. Once every member of S has ended, every later snapshot sees the
outcome. Holders are told apart by `virtualtransaction`, since PREPARE clears the pid. The flush comes
before `publish` and not with it, because `setval` is seen by all before its transaction commits.
Each tick intersects what is pending with the
holders of now; a ticker that forgets everything starts over and is merely later. Two tickers at once
are harmless: each publishes only what is decided, and `publish` never lowers the watermark.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from headwater.log.database import SQL, Connection


@dataclass(slots=True)
class Generations:
    """Pairs of a drawn position and the holders that may still decide one at or below it. Pure."""

    max_pending: int = 64
    published: int = -1
    _pending: list[tuple[int, frozenset[str]]] = field(default_factory=list)

    @property
    def settled(self) -> bool:
        """Whether nothing waits to be published."""
        return not self._pending

    @property
    def drawn(self) -> int:
        """The newest position that is published or waits to be."""
        return self._pending[-1][0] if self._pending else self.published

    def observe(self, drawn: int, holders: frozenset[str]) -> int | None:
        """Takes in what a tick saw; the position that is decided now, if it is a newer one."""
        self._pending = [(position, waits & holders) for position, waits in self._pending]
        if drawn > self.drawn:
            if len(self._pending) >= self.max_pending:
                # Coarser is still right: the newer position waits for the older one's holders too.
                _, waits = self._pending.pop()
                holders |= waits
            self._pending.append((drawn, holders))
        decided = None
        while self._pending and not self._pending[0][1]:
            decided = self._pending.pop(0)[0]
        if decided is None or decided <= self.published:
            return None
        self.published = decided
        return decided


class Ticker:
    """Publishes the watermark by way of one connection of its own, in autocommit mode."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._generations = Generations()
        self._prepared = False

    @property
    def published(self) -> int:
        """The highest position that this ticker has published; -1 before the first."""
        return self._generations.published

    async def tick(self) -> bool:
        """One round. True where something was published or is still pending.

        Any error ends this ticker: make another on a new connection, which starts over.
        """
        if not self._prepared:
            await self._connection.execute(SQL["ticker.durable"])
            self._prepared = True
        generations = self._generations
        known = generations.published if generations.settled else -1
        cursor = await self._connection.execute(
            SQL["ticker.observe"], {"known": known}, prepare=True
        )
        row = await cursor.fetchone()
        assert row is not None
        drawn, holders = row
        if holders is None:
            return False  # nothing was drawn, so nobody's outcome is awaited
        decided = generations.observe(drawn, frozenset(holders))
        if decided is not None:
            await self._connection.execute(
                SQL["ticker.flush_and_publish"], {"decided": decided}, prepare=True
            )
        return decided is not None or not generations.settled
