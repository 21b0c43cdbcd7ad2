"""Running commands: look, decide, append what still holds; again where it does not."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from random import SystemRandom
from typing import Any, TypeVar

import msgspec
from psycopg import Rollback
from psycopg.errors import DeadlockDetected

from headwater.commands.command import Accepted, Command, Rejection
from headwater.commands.decider import Decider
from headwater.commands.looking import Seen, Sights, look, look_at_streams
from headwater.commands.remembered import Remembered
from headwater.commands.snapshots import Snapshots
from headwater.commands.statements import SQL
from headwater.commands.streams import SharedReads
from headwater.errors import (
    AppendRefused,
    DecisionOutdated,
    IdempotencyKeyReused,
    LimitExceeded,
    VersionConflict,
)
from headwater.events import Event, EventType
from headwater.log import Database, Fact, SharedCommits, Written
from headwater.log.database import Connection
from headwater.log.failures import translated
from headwater.log.tracing import span
from headwater.log.writing import Metadata, Seal, Writer, event_of, group_of

_log = logging.getLogger("headwater.commands")
_random = SystemRandom()
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.002, 0.1

T = TypeVar("T")

Following = Callable[[Sequence[Event] | Rejection], Sequence[Fact]]
"""Facts of the caller's own that commit with what was decided, the rejection included."""

Beside = Callable[[Connection, Accepted], Awaitable[None]]
"""The application's own statements, in the transaction of the facts."""

MAX_ATTEMPTS = 20
"""How often a command is decided before its conflict is raised."""


@dataclass(frozen=True, slots=True)
class Request:
    """A command, whose it is, what its events carry, and what commits with them."""

    command: Command
    tenant: str
    metadata: Metadata | None = None
    idempotency_key: str | None = None
    occurred_at: datetime | None = None
    beside: Beside | None = None

    def hash_for(self, decider: Decider[Any]) -> bytes:
        """What tells this request from another under the same key."""
        told = msgspec.json.encode([decider.name, self.command])
        return hashlib.sha256(told).digest()


class Deciding:
    """Runs commands in the application's role."""

    def __init__(self, database: Database, commits: SharedCommits, seal: Seal) -> None:
        self._database = database
        self._commits = commits
        self._seal = seal
        self._reads = SharedReads(database)
        self._snapshots = Snapshots(database)
        self._remembered = Remembered(self._snapshots)

    async def close(self) -> None:
        """Ends what reads. Idempotent."""
        await self._reads.close()
        await self._snapshots.close()

    async def again(
        self, attempt: Callable[[], Awaitable[T]], what: str, own: str | None = None
    ) -> T:
        """Tries until nothing that was looked at has changed meanwhile, up to MAX_ATTEMPTS times.

        Raises VersionConflict or DecisionOutdated after that, at once for the caller's ``own`` stream, and whatever
        else an attempt does.
        """
        for number in range(1, MAX_ATTEMPTS + 1):
            try:
                return await attempt()
            except (VersionConflict, DecisionOutdated, DeadlockDetected) as error:
                if number == MAX_ATTEMPTS or (own and getattr(error, "stream", None) == own):
                    raise
                _log.debug("%s: attempt %d: %s", what, number, error)
            longest = min(_FIRST_PAUSE_SECONDS * 2**number, _LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(_random.uniform(0, longest))
        raise AssertionError

    async def do(self, decider: Decider[Any], request: Request) -> Accepted | Rejection:
        """Decides, and appends what was decided if nothing that it looked at has changed since.

        Where something has, it looks and decides again, up to MAX_ATTEMPTS times. Raises
        VersionConflict or DecisionOutdated after that, IdempotencyKeyReused, StateUnreadable, and what
        appending raises. What the function itself raises passes as it is.
        """
        sights = Sights.of(decider, request.command, request.tenant)
        with span(f"command {decider.name}"):
            return await self.again(lambda: self._attempt(decider, request, sights), decider.name)

    async def do_with(
        self, decider: Decider[Any], request: Request, own: str, following: Following
    ) -> Sequence[Event] | Rejection:
        """The same with facts of the caller's own stream in the same commit, also beside a rejection.

        They carry the version that they expect of it: raises VersionConflict at once where it has moved on.
        """
        sights = Sights.of(decider, request.command, request.tenant)

        async def attempt() -> Sequence[Event] | Rejection:
            seen = await self._look(sights)
            decided = decider.decided(seen.states, request.command)
            sealed = () if isinstance(decided, Rejection) else await self._sealed(request, decided)
            told = [event_of(item) for item in sealed]
            own_facts = following(decided if isinstance(decided, Rejection) else told)
            facts = _facts(sealed, seen, request) if sealed else []
            if facts is not None:
                await self._commits.append(group_of(request.tenant, [*facts, *own_facts]))
            else:
                async with self._database.transaction(request.tenant) as connection:
                    await _append(connection, request, seen, sealed, own_facts)
            return decided if isinstance(decided, Rejection) else told

        with span(f"command {decider.name}"):
            return await self.again(attempt, decider.name, own)

    async def _attempt(
        self, decider: Decider[Any], request: Request, sights: Sights
    ) -> Accepted | Rejection:
        if request.idempotency_key is not None:
            return await self._once(decider, request, sights, request.idempotency_key)
        if (accepted := await self._from_memory(decider, request, sights)) is not None:
            return accepted
        seen = await self._look(sights)
        decided = decider.decided(seen.states, request.command)
        if isinstance(decided, Rejection):
            return decided
        if not decided:
            return self._nothing(seen)
        sealed = await self._sealed(request, decided)
        facts = _facts(sealed, seen, request)
        if facts is not None and request.beside is None:
            return await self._proved(sights, seen, [event_of(item) for item in sealed], facts)
        async with self._database.transaction(request.tenant) as connection:
            return await _append(connection, request, seen, sealed)

    async def _from_memory(
        self, decider: Decider[Any], request: Request, sights: Sights
    ) -> Accepted | None:
        """What is decided on remembered states, where the append proves that they still hold; else None."""
        log = self._database.identity
        if request.beside is not None or (seen := self._remembered.seen(log, sights)) is None:
            return None
        facts = None
        # Whatever else comes of it, an error of the function's too, comes again of what is read.
        with suppress(Exception):
            decided = decider.decided(seen.states, request.command)
            if decided and not isinstance(decided, Rejection):
                sealed = await self._sealed(request, decided)
                facts = _facts(sealed, seen, request)
        if facts is not None:
            with suppress(AppendRefused):  # and nothing else: it may have been appended
                return await self._proved(sights, seen, [event_of(item) for item in sealed], facts)
        self._remembered.mistaken(log, sights)
        return None

    async def _proved(
        self, sights: Sights, seen: Seen, events: Sequence[Event], facts: Sequence[Event | Fact]
    ) -> Accepted:
        """An append that is refused where anything that was seen has changed."""
        written = await self._commits.append(group_of(sights.tenant, facts))
        self._remembered.learn(self._database.identity, sights, seen, events, written)
        return _accepted(written, events)

    async def _look(self, sights: Sights) -> Seen:
        if sights.are_streams:
            return await look_at_streams(self._reads, self._snapshots, sights)
        async with self._database.transaction(sights.tenant) as connection:
            return await look(connection, sights)

    async def _once(
        self, decider: Decider[Any], request: Request, sights: Sights, key: str
    ) -> Accepted | Rejection:
        """Under an idempotency key: claimed first, in the transaction of the facts.

        A request that comes again meanwhile waits for the first one's outcome. What leaves no facts leaves
        no key either.
        """
        async with self._database.transaction(request.tenant) as connection:
            outcome = await self._claimed(connection, decider, request, sights, key)
            if isinstance(outcome, Rejection) or not outcome.positions:
                raise Rollback
        return outcome

    async def _claimed(
        self,
        connection: Connection,
        decider: Decider[Any],
        request: Request,
        sights: Sights,
        key: str,
    ) -> Accepted | Rejection:
        asked = {"key": key, "hash": request.hash_for(decider)}
        row = await (await connection.execute(SQL["commands.claim"], asked)).fetchone()
        assert row is not None
        state, positions, versions = row
        if state == "duplicate":
            token = self._database.identity.token(positions[-1])
            return Accepted(token, (), positions, versions, duplicate=True)
        if state == "reused":
            raise IdempotencyKeyReused(
                f"The idempotency key {key!r} was used for another command.",
                hint="Use a new key for a new command.",
            )
        if state == "malformed":
            raise LimitExceeded(
                "The idempotency key is not 1 to 255 printable ASCII characters.",
                hint="Use a shorter one.",
            )
        seen = await look(connection, sights)
        decided = decider.decided(seen.states, request.command)
        if isinstance(decided, Rejection):
            return decided
        if not decided:
            return self._nothing(seen)
        sealed = await self._sealed(request, decided)
        accepted = await _append(connection, request, seen, sealed)
        result = {
            "key": key,
            "positions": list(accepted.positions),
            "versions": list(accepted.versions),
        }
        await connection.execute(SQL["commands.settle"], result)
        return accepted

    async def _sealed(self, request: Request, decided: Sequence[Event]) -> Sequence[Event | Fact]:
        return await self._seal(request.tenant, decided)

    def _nothing(self, seen: Seen) -> Accepted:
        return Accepted(self._database.identity.token(seen.position))


async def decide_within(
    connection: Connection, decider: Decider[Any], request: Request
) -> Accepted | Rejection | None:
    """Decides and appends in the caller's transaction, for its tenant; None where nothing is to be done.

    Raises DecisionOutdated where what it looked at has changed: the caller's transaction has then failed.
    """
    sights = Sights.of(decider, request.command, request.tenant)
    seen = await look(connection, sights)
    decided = decider.decided(seen.states, request.command)
    if isinstance(decided, Rejection):
        return decided
    return await _append(connection, request, seen, decided) if decided else None


def _facts(
    decided: Sequence[Event | Fact], seen: Seen, request: Request
) -> list[Event | Fact] | None:
    """The events such that the append itself checks what was seen; None where it cannot.

    It can where the decision looked at streams alone, and an event goes to each.
    """
    unchecked = seen.by("stream")
    if len(unchecked) < len(seen.versions):
        return None
    facts: list[Event | Fact] = []
    for item in decided:
        event = event_of(item)
        version = unchecked.pop(EventType.of(type(event)).stream_of(event), None)
        facts.append(
            Fact(
                event=event,
                expect=version,
                metadata=request.metadata,
                occurred_at=request.occurred_at,
                blind=item.blind if isinstance(item, Fact) else (),
            )
        )
    return None if unchecked else facts


async def _append(
    connection: Connection,
    request: Request,
    seen: Seen,
    decided: Sequence[Event | Fact],
    following: Sequence[Fact] = (),
) -> Accepted:
    required = {
        "streams": msgspec.json.encode(seen.by("stream")).decode(),
        "keys": msgspec.json.encode(seen.by("key")).decode(),
    }
    with translated():
        await connection.execute(SQL["commands.require"], required, prepare=True)
        writer = Writer(connection, request.tenant)
        written = await writer.append(
            *decided, *following, metadata=request.metadata, occurred_at=request.occurred_at
        )
    accepted = _accepted(written, decided)
    if request.beside is not None:
        await request.beside(connection, accepted)
    return accepted


def _accepted(written: Written, decided: Sequence[Event | Fact]) -> Accepted:
    return Accepted(
        written.token,
        tuple(map(event_of, decided)),
        tuple(written.positions),
        tuple(written.versions),
    )
