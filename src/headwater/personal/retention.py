"""Retention: what is kept of persons for a time is unreadable when its time is over, and a signed fact says so.

Fields with ``keep_days`` are sealed under a key of the person and of the week. A run destroys the keys that are due, as
forgetting does: ledger, key, what was opened, fact. It may be killed anywhere and run again.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime

import msgspec

from headwater.events import Event
from headwater.personal.forgetting import SQL, Forgetting
from headwater.personal.keys import whose_of
from headwater.personal.places import Found, Person

_AT_ONCE = 1_000


class RetentionApplied(Event, type="retention.applied", stream="retention/{run}"):
    """The fact that keys of what was kept until a day were destroyed, signed by the installation."""

    run: str
    upto: str
    keys: int
    at: datetime
    signature: str


class Retained(msgspec.Struct, frozen=True):
    """What a run did: how many keys it destroyed, by tenant, and what it purged of what they had opened."""

    run: str
    upto: date
    keys: dict[str, int]
    places: tuple[Found, ...]


@dataclass(frozen=True, slots=True)
class Retention:
    """Ends what is due, with what forgetting has."""

    forgetting: Forgetting

    async def apply(self, today: date | None = None) -> Retained:
        """Destroys the keys of what was kept until today or before, and purges what they had opened.

        Raises LedgerBroken.
        """
        upto, run = today or datetime.now(UTC).date(), str(uuid.uuid4())
        keys: Counter[str] = Counter()
        while some := await self._destroy_some(upto, run):
            keys.update(some)
        places = await self._purge()
        for tenant, count in keys.items():
            await self._tell(run, upto, tenant, count)
        return Retained(run, upto, dict(keys), tuple(places))

    async def _destroy_some(self, upto: date, run: str) -> list[str]:
        """Some keys that are due; the tenant of each."""
        forgetting = self.forgetting
        asked = {"today": str(upto), "max_rows": _AT_ONCE}
        async with forgetting.operator.connection() as connection:
            rows = await (await connection.execute(SQL["keys.due"], asked)).fetchall()
        if rows:
            ids = [row[2] for row in rows]
            await asyncio.to_thread(
                forgetting.ledger.add_all, forgetting.log_id, ids, uuid.UUID(run)
            )
            async with forgetting.operator.transaction() as connection:
                await connection.execute(SQL["erasures.lock"])
                await connection.execute(SQL["keys.destroy"], {"ids": ids})
        return [row[0] for row in rows]

    async def _purge(self) -> list[Found]:
        """What keys had opened that are gone: of this run, and of one that was killed."""
        forgetting = self.forgetting
        async with forgetting.operator.connection() as connection:
            rows = await (await connection.execute(SQL["keys.gone_and_opened"])).fetchall()
        return [
            found
            for tenant, name, key_id in rows
            for place in forgetting.places
            for found in await place.purge(Person(tenant, whose_of(name), key_id))
            if found.purged
        ]

    async def _tell(self, run: str, upto: date, tenant: str, count: int) -> None:
        forgetting, at = self.forgetting, datetime.now(UTC)
        parts = (forgetting.log_id, tenant, run, str(upto), str(count), at.isoformat())
        fact = RetentionApplied(
            run, str(upto), count, at, forgetting.signer.sign("retention", *parts)
        )
        await forgetting.append(fact, tenant=tenant, idempotency_key=f"retention-{run}")
