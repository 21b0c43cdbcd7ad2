"""Inboxes as an operator sees and changes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import psycopg

from headwater.errors import UnknownInbox
from headwater.log.database import Connection, Database
from headwater.receiving.appending import Refused, append, is_about_data
from headwater.receiving.inbox import UNKNOWN, Inbox, Place
from headwater.receiving.statements import SQL
from headwater.receiving.taking import FOLLOWS
from headwater.views.messages import Kept, Mark, Message


class InboxState(msgspec.Struct, frozen=True):
    """How an inbox stands: how far in the source's log and in the bus's stream, and who drives it."""

    inbox: str
    channel: str
    log: str | None
    epoch: int | None
    position: int
    upto: int
    sequence: int
    parked: int
    state: str | None
    driven_by: str | None
    detail: str | None
    updated_at: datetime

    @property
    def is_driven(self) -> bool:
        """Whether a relay drives it."""
        return self.driven_by is not None

    @property
    def received_at(self) -> float:
        """When something was last taken, in seconds since 1970."""
        return self.updated_at.timestamp()


class ParkedMessage(msgspec.Struct, frozen=True):
    """A message that is set aside: its position in the source's log, and why."""

    inbox: str
    position: int
    sequence: int
    tenant: str
    stream: str
    message: bytes
    reason: str
    culprit: bool
    status: str
    parked_at: datetime


class Inboxes:
    """The inboxes of an app. ``relay`` is in the relay's role, ``operator`` in the operator's."""

    def __init__(self, relay: Database, operator: Database, inboxes: Mapping[str, Inbox]) -> None:
        self._relay = relay
        self._operator = operator
        self._inboxes = inboxes

    async def states(self) -> list[InboxState]:
        """All inboxes that were ever deployed."""
        return await inbox_states(self._operator)

    async def parked(
        self,
        inbox: str | None = None,
        *,
        positions: Sequence[int] | None = None,
        limit: int = 100,
    ) -> list[ParkedMessage]:
        """Messages that are parked or were discarded, of one inbox or all, in the source's order."""
        found: list[ParkedMessage] = []
        async with self._operator.connection() as connection:
            for name in [inbox] if inbox is not None else sorted(self._inboxes):
                found += await _parked(
                    connection, name, positions, limit - len(found), ("parked", "discarded")
                )
        return found

    async def replay(self, inbox: str, positions: Sequence[int] | None = None) -> int:
        """Appends parked messages after all, in order; how many are parked no more.

        One that fails again stays, with what follows it.
        """
        declared = self._declared(inbox)
        done, waiting = 0, set[Place]()
        async with self._relay.transaction() as connection:
            await self._disturb(connection, inbox)
            for parked in await _parked(connection, inbox, positions, 1_000_000, ("parked",)):
                place = Place(parked.tenant, parked.stream)
                reason = FOLLOWS
                if place == UNKNOWN or place not in waiting:
                    reason = await _again(connection, declared, parked)
                row = {"inbox": inbox, "position": parked.position, "sequence": parked.sequence}
                if not reason:
                    await connection.execute(SQL["inboxes.unpark"], row)
                    done += 1
                    continue
                waiting.add(place)
                blame = row | {"reason": reason[:2000], "culprit": reason != FOLLOWS}
                await connection.execute(SQL["inboxes.blame"], blame)
        return done

    async def discard(self, inbox: str, positions: Sequence[int]) -> int:
        """Gives messages up for good, then appends what followed them; how many."""
        async with self._relay.transaction() as connection:
            await self._disturb(connection, inbox)
            given = {"inbox": inbox, "positions": list(positions)}
            discarded = (await connection.execute(SQL["inboxes.discard"], given)).rowcount
        await self.replay(inbox)
        return discarded

    async def accept(self, inbox: str, *, after: int | None = None) -> int:
        """Takes the source as it is now, though its history is another or has a gap; the position it goes on after."""
        self._declared(inbox)
        async with self._relay.connection() as connection:
            cursor = await connection.execute(
                SQL["inboxes.accept"], {"inbox": inbox, "after": after}
            )
            row = await cursor.fetchone()
        if row is None:
            raise self._unknown(inbox)
        position: int = row[0]
        return position

    def _declared(self, inbox: str) -> Inbox:
        if (found := self._inboxes.get(inbox)) is None:
            raise self._unknown(inbox)
        return found

    def _unknown(self, inbox: str) -> UnknownInbox:
        has = ", ".join(self._inboxes) or "none"
        return UnknownInbox(f"There is no inbox {inbox!r}.", hint=f"The app has {has}.")

    async def _disturb(self, connection: Connection, inbox: str) -> None:
        """Locks the inbox against batches, whose relay then learns anew what is parked."""
        cursor = await connection.execute(SQL["inboxes.disturb"], {"inbox": inbox})
        if cursor.rowcount != 1:
            raise self._unknown(inbox)


async def inbox_states(operator: Database) -> list[InboxState]:
    """All inboxes that were ever deployed."""
    async with operator.connection() as connection:
        rows = await (await connection.execute(SQL["inboxes.list"])).fetchall()
    return [InboxState(*row) for row in rows]


async def _parked(
    connection: Connection,
    inbox: str,
    positions: Sequence[int] | None,
    limit: int,
    statuses: Sequence[str],
) -> list[ParkedMessage]:
    wanted: dict[str, Any] = {
        "inbox": inbox,
        "positions": None if positions is None else list(positions),
        "limit": limit,
        "statuses": list(statuses),
    }
    rows = await (await connection.execute(SQL["inboxes.parked"], wanted)).fetchall()
    return [ParkedMessage(inbox, *row) for row in rows]


async def _again(connection: Connection, inbox: Inbox, parked: ParkedMessage) -> str:
    """Tries one parked message again, in a savepoint; why it stays, '' where it does not."""
    message = Message("", Mark("", 0, 0, 0, parked.position, ""), parked.message)
    try:
        told = inbox.read(message)
        if told.type not in inbox.types:
            return f"the type {told.type!r} is not received any more"
        async with connection.transaction():
            appended = await append(connection, inbox, [(Kept(parked.sequence, message), told)])
            last = {"inbox": inbox.name, "appended": appended}
            await connection.execute(SQL["inboxes.appended"], last)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        return f"it is no CloudEvent: {error}"
    except Refused as refused:
        return refused.reasons[0]
    except psycopg.Error as error:
        if not is_about_data(error):
            raise
        return error.diag.message_primary or str(error)
    return ""
