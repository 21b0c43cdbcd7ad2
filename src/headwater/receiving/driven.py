"""Drives an inbox: takes what comes by the bus, in order, and appends it in the commit that says how far it is.

The place in the stream, the history of the source and the last position taken stand in one row of the log's database,
which moves with the events or not at all. What comes twice is at or below that position, and is passed by. Nothing
rests on what the bus remembers of its readers.
"""

from __future__ import annotations

import asyncio
import logging

import psycopg

from headwater.errors import HeadwaterError, LeaseLost, SourceChanged
from headwater.log.database import Connection, Database, connect
from headwater.log.tasks import ended
from headwater.receiving.appending import Refused, append, blamed, grouped, is_about_data, receive
from headwater.receiving.inbox import Inbox, Place
from headwater.receiving.port import Incoming, IncomingMessages
from headwater.receiving.statements import SQL
from headwater.receiving.taking import Standpoint, Taking
from headwater.relay import Batch, OnFailure
from headwater.relay.frontier import Frontier
from headwater.views.messages import Kept, Progress

_log = logging.getLogger("headwater.relay")

Arrival = Kept | Progress | HeadwaterError


class DrivenInbox:
    """An inbox as the relay drives it: its positions count what has arrived in this process. See Target.

    ``database`` is in the relay's role.
    """

    on_failure: OnFailure = "park"
    max_batch = 2_000
    pause_seconds = 0.0
    rewrites = False
    follows = None

    def __init__(self, database: Database, inbox: Inbox, messages: IncomingMessages) -> None:
        self.inbox = inbox
        self.frontier: Frontier | None = Frontier()
        self._database = database
        self._messages = messages
        self._connection: Connection | None = None
        self._listening: asyncio.Task[None] | None = None
        self._arrived: list[Arrival] = []
        self._numbered = 0
        self._taking: Taking | None = None
        self._fence = 0
        self._revision = 0

    @property
    def name(self) -> str:
        """The inbox's name, and its lease's."""
        return self.inbox.name

    async def deploy(self) -> None:
        """Creates the row, at the beginning of the channel; another channel begins at its beginning."""
        parameters = {
            "inbox": self.name,
            "source": self.inbox.source,
            "channel": self.inbox.channel.stream,
        }
        async with self._database.connection() as connection:
            await connection.execute(SQL["inboxes.create"], parameters)

    async def fits(self, connection: Connection) -> bool:
        """Whether the row is of the channel that this process knows."""
        cursor = await connection.execute(SQL["inboxes.channel"], {"inbox": self.name})
        row = await cursor.fetchone()
        return row is not None and row[0] == self.inbox.channel.stream

    async def first_after(self, after: int, upto: int) -> int | None:
        """What has arrived has no gaps."""
        return after + 1 if after < upto else None

    # Driving -------------------------------------------------------------------------------------

    async def open(self, fence: int) -> int:
        """Takes the inbox over under a fence, and listens from where it is. See Target."""
        await self.close()
        self._connection = connection = await connect(
            self._database.url, "headwater_relay", name=f"headwater {self.name}"
        )
        await connection.execute(SQL["inboxes.lazy_commit"])
        cursor = await connection.execute(
            SQL["inboxes.take_over"], {"inbox": self.name, "fence": fence}
        )
        row = await cursor.fetchone()
        if row is None:
            if not await self.fits(connection):
                raise SourceChanged(
                    f"The inbox {self.name!r} is not deployed.", hint="Run headwater up or init."
                )
            raise LeaseLost(f"Another relay drives {self.name!r}.")
        if row[0] != self.inbox.channel.stream:
            raise SourceChanged(
                f"The inbox {self.name!r} is at another edition, by another version of the app.",
                hint="Run headwater up or init with the newer one.",
            )
        self._fence, self._revision = fence, row[6]
        at = Standpoint(*row[1:6])
        _, last = await self._messages.span(self.inbox.channel)
        if (
            last < at.sequence
        ):  # the stream was made anew, or lost its end: positions tell what is known
            at = Standpoint(at.log, at.epoch, at.position, at.upto, 0)
        cursor = await connection.execute(SQL["inboxes.waiting"], {"inbox": self.name})
        waiting = {Place(*pair) for pair in await cursor.fetchall()}
        self._taking = Taking(self.inbox, row[7], at, waiting)
        self._listening = asyncio.create_task(self._listen(at.sequence), name=self.name)
        return self._numbered

    async def _listen(self, after: int) -> None:
        """Numbers what arrives, for the relay to take; a fault is the last of it."""
        incoming: Incoming | None = None
        try:
            incoming = await self._messages.listen(self.inbox.channel, after)
            while True:
                self._arrive(*await incoming.next())
                while len(self._arrived) > self.max_batch:
                    await asyncio.sleep(0.005)
        except (HeadwaterError, OSError) as error:
            self._arrive(error if isinstance(error, HeadwaterError) else HeadwaterError(str(error)))
        finally:
            if incoming is not None:
                await incoming.close()

    def _arrive(self, *arrivals: Arrival) -> None:
        self._arrived += arrivals
        if self.frontier is not None:
            self.frontier.advance(self._numbered + len(self._arrived))

    async def apply(self, batch: Batch) -> None:
        """Takes what has arrived; appends it and moves on in one commit, or parks it. See Target."""
        taking, count = self._taking, batch.upto - batch.after
        if taking is None or batch.after != self._numbered:
            raise LeaseLost(f"The inbox {self.name!r} is not open.")
        arrivals = self._arrived[:count]
        coming = [one for one in arrivals if not isinstance(one, HeadwaterError)]
        before = taking.at
        taking.take(coming)
        if taking.at != before or taking.parked:
            await self._write(taking)
        taking.due, taking.parked = [], []
        self._numbered += count
        del self._arrived[:count]
        if taking.change is not None:
            raise taking.change
        for fault in arrivals:
            if isinstance(fault, HeadwaterError):
                raise fault

    async def _write(self, taking: Taking) -> None:
        """Appends and moves on; what is refused is parked, and the rest tried again."""
        assert self._connection is not None
        while True:
            try:
                await self._commit(self._connection, taking)
            except Refused as refused:
                taking.refuse(refused.reasons)
            except psycopg.Error as error:
                if not taking.due or not is_about_data(error):
                    raise
                if not (reasons := await blamed(self._connection, self.inbox, taking.due)):
                    raise
                taking.refuse(reasons)
            else:
                return

    async def _commit(self, connection: Connection, taking: Taking) -> None:
        if not taking.parked:
            by_tenant = grouped(self.inbox, taking.due)
            if len(by_tenant) == 1:
                ((tenant, numbered),) = by_tenant.items()
                return await receive(connection, tenant, numbered, self._move(taking.at))
            if not by_tenant:
                return await self._moved(connection, self._move(taking.at))
        return await self._commit_several(connection, taking)

    async def _commit_several(self, connection: Connection, taking: Taking) -> None:
        """The same of several tenants, or with messages to park."""
        async with connection.transaction():
            appended = await append(connection, self.inbox, taking.due) if taking.due else 0
            for parking in taking.parked:
                _log.warning("%s: parked: %s", self.name, parking.reason)
                mark = parking.kept.message.mark
                row = {
                    "inbox": self.name,
                    "sequence": parking.kept.sequence,
                    "position": mark.position,
                    "tenant": parking.place.tenant,
                    "stream": parking.place.stream,
                    "message": parking.kept.message.body,
                    "reason": parking.reason.replace("\0", "")[:2000],
                    "culprit": parking.culprit,
                }
                await connection.execute(SQL["inboxes.park"], row)
            await self._moved(connection, self._move(taking.at, appended))

    def _move(self, at: Standpoint, appended: int = 0) -> dict[str, object]:
        return {
            "inbox": self.name,
            "fence": self._fence,
            "revision": self._revision,
            "log": at.log,
            "epoch": at.epoch,
            "position": at.position,
            "upto": at.upto,
            "sequence": at.sequence,
            "appended": appended,
        }

    async def _moved(self, connection: Connection, move: dict[str, object]) -> None:
        cursor = await connection.execute(SQL["inboxes.move"], move, prepare=True)
        if cursor.rowcount != 1:
            raise LeaseLost(f"Another relay drives {self.name!r}, or it was changed meanwhile.")

    async def close(self) -> None:
        """Gives back what driving holds. Idempotent."""
        listening, self._listening = self._listening, None
        if listening is not None:
            await ended([listening])
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
        self._numbered += len(self._arrived)  # what was not taken is heard again
        self._arrived = []
        self._taking = None
