"""Answers of idempotent endpoints that tell of a person: which, and what they say once the person is forgotten."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from uuid import UUID

import msgspec
from psycopg.errors import LockNotAvailable

from headwater.log.answers import KeptAnswer
from headwater.log.database import Database
from headwater.log.statements import Statements
from headwater.personal.places import Found, Person

SQL = Statements("headwater.personal")

seen_now: ContextVar[set[UUID] | None] = ContextVar("headwater_seen_now", default=None)
"""The keys by which the request at hand has sealed or opened something, where anybody asks."""

_WHERE = "kept answers"
_REWRITTEN_BYTES = 64 * 2**20
_GONE = KeptAnswer(
    410,
    [(b"content-type", b"application/problem+json")],
    msgspec.json.encode(
        {
            "title": "The answer told of a person who has been forgotten.",
            "status": 410,
            "code": "subject_forgotten",
        }
    ),
)


@dataclass(frozen=True, slots=True)
class KeptAnswers:
    """The kept answers as a place to be purged. Who comes again under the key is told that the answer is gone."""

    operator: Database

    async def purge(self, person: Person) -> list[Found]:
        """Puts another answer in the place of those that tell of the person."""
        asked = {"key_id": person.key_id, "answer": msgspec.msgpack.encode(_GONE)}
        note = ""
        async with self.operator.connection() as connection:
            cursor = await connection.execute(SQL["answers.forget"], asked)
            (purged,) = (await cursor.fetchall())[0]
            if purged:
                try:
                    async with connection.transaction():
                        await connection.execute(SQL["answers.short_waits"])
                        cursor = await connection.execute(
                            SQL["answers.rewrite"], {"most": _REWRITTEN_BYTES}
                        )
                        (is_rewritten,) = (await cursor.fetchall())[0]
                except LockNotAvailable:
                    is_rewritten = False
                if not is_rewritten:
                    note = "In free space of headwater.idempotency, until VACUUM FULL rewrites it in a quiet hour."
        return [Found(_WHERE, purged, note=note)]

    async def look(self, person: Person) -> list[Found]:
        """How many tell of the person."""
        async with self.operator.connection() as connection:
            cursor = await connection.execute(SQL["answers.left"], {"key_id": person.key_id})
            (left,) = (await cursor.fetchall())[0]
        return [Found(_WHERE, left=left)]
