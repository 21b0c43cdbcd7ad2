"""Forgetting a person: the key is destroyed, and with it whatever it sealed, wherever that was copied.

The steps come in an order in which each may be repeated: request, ledger, key, fact, certificate. Whoever is killed
between two of them is followed by the same request again.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from headwater.errors import SubjectUnknown
from headwater.events import Event
from headwater.log import Written
from headwater.log.database import Database
from headwater.log.statements import Statements
from headwater.personal.keys import whose_of
from headwater.personal.ledger import Ledger
from headwater.personal.places import Found, Person, Place
from headwater.personal.sealing import FORGOTTEN, Sealing
from headwater.personal.signing import Signer

SQL = Statements("headwater.personal")

DUE_DAYS = 30
"""Within how many days a request is due: a month, as the GDPR's article 12 has it."""
_CANARIES = 100
Asked = dict[str, str]
"""Tenant and subject, by name."""
_AT_ONCE = 1_000
_WAL = """The key, wrapped by a master key, in WAL and backups from before {before}, until they expire. A database \
restored from them destroys it again, by the ledger, before it is read."""
_DEAD_ROW = "The same in a dead row of the table of keys, until Postgres vacuums it."
_SENT = "What was published or sent to webhooks before: sealed, so that nobody opens it. It cannot be called back."
_OWN = "What your own code opened and kept, and what processes still have in memory."
_REMAINS = (_WAL, _DEAD_ROW, _SENT, _OWN)


class SubjectWasForgotten(Event, type="subject.forgotten", stream="erasure/{request}"):
    """The fact that a person was forgotten, signed by the installation."""

    request: str
    subject: str
    key: str
    at: datetime
    signature: str


class Certificate(msgspec.Struct, frozen=True):
    """What forgetting did, and what a search found afterwards.

    ``sealed_events`` hold texts that no key opens any more; ``opened`` of ``canaries`` of them could be opened, which
    is 0 where all is well. ``places`` are those where something was opened, or written beside it, with what was found
    and purged there. ``remains`` says what is left, and until when.
    """

    request: UUID
    tenant: str
    subject: str
    key_id: UUID
    requested_at: datetime
    due_at: datetime
    forgotten_at: datetime
    checked_at: datetime
    key_destroyed: bool
    in_ledger: bool
    fact_signed: bool
    sealed_events: int
    canaries: int
    opened: int
    places: tuple[Found, ...]
    remains: tuple[str, ...]
    public_key: str
    signature: str = ""

    @property
    def holds(self) -> bool:
        """Whether the person is forgotten by all that was looked at."""
        is_gone = self.key_destroyed and self.in_ledger and self.fact_signed and self.opened == 0
        return is_gone and not any(found.left for found in self.places)

    @property
    def late(self) -> bool:
        """Whether it was done after the day on which it was due."""
        return self.forgotten_at > self.due_at


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Forgets persons, as an operator. ``reads`` gives the facts of a request's stream."""

    operator: Database
    log_id: str
    sealing: Sealing
    signer: Signer
    ledger: Ledger
    append: Callable[..., Awaitable[Written]]
    reads: Callable[[str, str], Awaitable[list[Event]]]
    places: Sequence[Place] = ()

    async def forget(self, subject: str, tenant: str, reason: str | None = None) -> Certificate:
        """Forgets a person, or goes on with a request that was begun; the certificate."""
        asked = {"tenant": tenant, "subject": subject}
        request, key_id = await self._request(asked, reason)
        await self._note(key_id, request)
        key_id, at, kept = await self._destroy(asked, key_id, request)
        await self._tell(asked, request, key_id, at)
        purged = await self._purge([Person(tenant, subject, each) for each in (key_id, *kept)])
        return await self._certify(asked, request, purged)

    async def _request(self, asked: Asked, reason: str | None) -> tuple[UUID, UUID]:
        """Writes the request down, or finds it; its id, and the id of the key that is to go."""
        wanted = {**asked, "id": uuid.uuid4(), "reason": reason, "days": DUE_DAYS}
        async with self.operator.connection() as connection:
            row = await (await connection.execute(SQL["erasures.request"], wanted)).fetchone()
            found = await (await connection.execute(SQL["erasures.key"], asked)).fetchone()
        assert row is not None
        return row[0], found[0] if found else uuid.uuid4()

    async def _note(self, key_id: UUID, request: UUID) -> None:
        await asyncio.to_thread(self.ledger.add, self.log_id, key_id, request)

    async def _destroy(
        self, asked: Asked, key_id: UUID, request: UUID
    ) -> tuple[UUID, datetime, list[UUID]]:
        """Destroys the key, and those of what is kept for a time; its id, when that was, and theirs.

        Those that were made meanwhile go into the ledger too. A key that is kept for a time opens nothing without the
        person's own, which is in the ledger already.
        """
        async with self.operator.transaction() as connection:
            await connection.execute(SQL["erasures.lock"])
            cursor = await connection.execute(SQL["erasures.destroy"], {**asked, "key_id": key_id})
            row = await cursor.fetchone()
            cursor = await connection.execute(SQL["erasures.destroy_kept"], asked)
            kept = [each for (each,) in await cursor.fetchall()]
        assert row is not None
        await asyncio.to_thread(self.ledger.add_all, self.log_id, [row[0], *kept], request)
        return row[0], row[1], kept

    async def _tell(self, asked: Asked, request: UUID, key_id: UUID, at: datetime) -> None:
        """Appends the signed fact, once."""
        subject, tenant = asked["subject"], asked["tenant"]
        parts = (self.log_id, tenant, str(request), subject, str(key_id), at.isoformat())
        signature = self.signer.sign("forgotten", *parts)
        fact = SubjectWasForgotten(str(request), subject, str(key_id), at, signature)
        await self.append(fact, tenant=tenant, idempotency_key=f"forget-{request}")

    async def _purge(self, persons: Sequence[Person]) -> list[Found]:
        """Goes through all places, for each key of the person; what each had."""
        return _together([f for one in persons for p in self.places for f in await p.purge(one)])

    async def _certify(self, asked: Asked, request: UUID, purged: Sequence[Found]) -> Certificate:
        certificate = await self.verify(asked["subject"], asked["tenant"])
        left = {found.where: found.left for found in certificate.places}
        places = [
            msgspec.structs.replace(found, left=left.pop(found.where, 0)) for found in purged
        ] + [found for found in certificate.places if found.where in left]
        certificate = self._signed(msgspec.structs.replace(certificate, places=tuple(places), signature=""))  # fmt: skip
        text = msgspec.json.encode(certificate).decode()
        async with self.operator.connection() as connection:
            await connection.execute(SQL["erasures.done"], {"id": request, "certificate": text})
        return certificate

    async def verify(self, subject: str, tenant: str) -> Certificate:
        """Looks again whether a person is forgotten. Raises SubjectUnknown where nobody asked for it."""
        asked = {"tenant": tenant, "subject": subject}
        async with self.operator.connection() as connection:
            row = await (await connection.execute(SQL["erasures.found"], asked)).fetchone()
            if row is None:
                raise SubjectUnknown(
                    "There is no request to forget this subject.",
                    hint="Run headwater forget SUBJECT; name the tenant where there are several.",
                )
            request, requested_at, due_at, _, key_id, destroyed, at = row
            kept = await (await connection.execute(SQL["keys.kept_of"], asked)).fetchall()
            persons = [
                Person(tenant, subject, each) for each in (key_id, *(row[0] for row in kept))
            ]
            prefixes = [person.prefix for person in persons]
            cursor = await connection.execute(
                SQL["erasures.events"], {"tenant": tenant, "prefixes": prefixes, "most": _CANARIES}
            )
            counted = await cursor.fetchone()
        assert counted is not None
        canaries = [
            text
            for data in counted[1]
            for text in msgspec.json.decode(data).values()
            if isinstance(text, str) and text.startswith(tuple(prefixes))
        ]
        opened = await self.sealing.open(tenant, canaries)
        left = _together([f for one in persons for p in self.places for f in await p.look(one)])
        before = f"{(at or requested_at):%Y-%m-%d %H:%M} UTC"
        certificate = Certificate(
            request, tenant, subject, key_id, requested_at, due_at, at or requested_at, datetime.now(UTC), destroyed,
            any(line.key_id == key_id for line in self.ledger), await self._told(request, tenant),
            counted[0], len(canaries), sum(text != FORGOTTEN for text in opened), tuple(left),
            tuple(text.format(before=before) for text in _REMAINS), self.signer.public,
        )  # fmt: skip
        return self._signed(certificate)

    def _signed(self, certificate: Certificate) -> Certificate:
        return msgspec.structs.replace(
            certificate, signature=self.signer.sign("certificate", _unsigned(certificate))
        )

    async def _told(self, request: UUID, tenant: str) -> bool:
        """Whether the fact is in the log, and signed by us."""
        for fact in await self.reads(f"erasure/{request}", tenant):
            assert isinstance(fact, SubjectWasForgotten)
            parts = (self.log_id, tenant, fact.request, fact.subject, fact.key, fact.at.isoformat())
            if self.signer.holds(fact.signature, "forgotten", *parts):
                return True
        return False

    async def rotate(self) -> int:
        """Wraps all keys by the newest master key; how many. Interrupted, it goes on where it was."""
        done, after = 0, UUID(int=0)
        keys = self.sealing.keys
        async with self.operator.connection() as connection:
            while True:
                asked = {"newest": await keys.newest(), "after": after, "max_rows": _AT_ONCE}
                cursor = await connection.execute(SQL["keys.wrapped_otherwise"], asked)
                rows = await cursor.fetchall()
                for tenant, subject, key_id, wrapped, master in rows:
                    again = await keys.wrapped_anew(tenant, subject, wrapped, master)
                    changed = {
                        "key_id": key_id,
                        "was": wrapped,
                        "master": again[0],
                        "wrapped": again[1],
                    }
                    done += (await connection.execute(SQL["keys.rewrap"], changed)).rowcount
                if len(rows) < _AT_ONCE:
                    return done
                after = rows[-1][2]


async def destroy_again(
    operator: Database, log_id: str, ledger: Ledger, places: Sequence[Place]
) -> int:
    """Destroys again what a restored backup brought back, and purges what was opened by it; how many keys.

    It needs no master key. Killed in between, the next time goes on with what is registered under keys that are gone.
    """
    ids = [line.key_id for line in ledger if line.log == log_id]
    async with operator.transaction() as connection:
        await connection.execute(SQL["erasures.lock"])
        cursor = await connection.execute(SQL["keys.destroy"], {"ids": ids})
        again = await cursor.fetchall()
    async with operator.connection() as connection:
        opened = await (await connection.execute(SQL["keys.gone_and_opened"])).fetchall()
    for tenant, name, key_id in dict.fromkeys((*again, *opened)):
        for place in places:
            await place.purge(Person(tenant, whose_of(name), key_id))
    return len(again)


def is_genuine(certificate: Certificate, signer: Signer) -> bool:
    """Whether a certificate is as it was signed."""
    unsigned = msgspec.structs.replace(certificate, signature="")
    return signer.holds(certificate.signature, "certificate", _unsigned(unsigned))


def _unsigned(certificate: Certificate) -> str:
    return msgspec.json.encode(certificate).decode()


def _together(found: Sequence[Found]) -> list[Found]:
    """What was found of several keys, by place."""
    places: dict[str, Found] = {}
    for one in found:
        known = places.get(one.where, Found(one.where))
        note = known.note if one.note in known.note else f"{known.note} {one.note}".strip()
        places[one.where] = Found(one.where, known.purged + one.purged, known.left + one.left, note)
    return list(places.values())
