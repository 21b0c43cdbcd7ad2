"""Blind indexes: keyed hashes of personal text, by which events are found and constrained though the text is sealed.

A tenant has one key for them, kept as persons' keys are. Whoever has the log and not that key learns which events have the
same text, and nothing of what it says. Differences of case, of spaces around it and of Unicode's forms do not count.
"""

from __future__ import annotations

import base64
import hmac
import unicodedata
from dataclasses import dataclass

from headwater.log.database import Database
from headwater.log.statements import Statements
from headwater.personal.keys import Key, SubjectKeys
from headwater.personal.places import Found, Person

SQL = Statements("headwater.personal")

SUBJECT = "headwater blind index"
"""Under which name a tenant's key for blind indexes is kept."""
_HASH_BYTES = 16
_WHERE = "blind indexes"


async def index_key(keys: SubjectKeys, tenant: str) -> Key:
    """The tenant's key for blind indexes; makes it where there is none. Raises KeyUnavailable."""
    return (await keys.for_sealing(tenant, {SUBJECT}))[SUBJECT]


def blind(key: Key, name: str, text: str) -> str:
    """What a text is found by in the index of that name: a key that events carry."""
    plain = unicodedata.normalize("NFKC", text).strip().casefold()
    digest = hmac.digest(key.nonces, f"blind\0{name}\0{plain}".encode(), "sha256")[:_HASH_BYTES]
    return f"blind:{name}:{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


@dataclass(frozen=True, slots=True)
class BlindIndexes:
    """The blind indexes as a place to be purged: the hashes are taken out of the person's events."""

    operator: Database

    async def purge(self, person: Person) -> list[Found]:
        """Takes the hashes out."""
        return [Found(_WHERE, purged=await self._ask("blind.forget", person))]

    async def look(self, person: Person) -> list[Found]:
        """How many events have some."""
        return [Found(_WHERE, left=await self._ask("blind.left", person))]

    async def _ask(self, statement: str, person: Person) -> int:
        asked = {"tenant": person.tenant, "prefix": person.prefix}
        async with self.operator.connection() as connection:
            row = await (await connection.execute(SQL[statement], asked)).fetchone()
        assert row is not None
        count: int = row[0]
        return count
