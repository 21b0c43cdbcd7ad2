"""Where else than in the log something of a person may be, in clear or told of by others: what forgetting goes through."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import msgspec


@dataclass(frozen=True, slots=True)
class Person:
    """Who is forgotten: a tenant's subject, and the key that was theirs."""

    tenant: str
    subject: str
    key_id: UUID

    @property
    def prefix(self) -> str:
        """How each of their sealed texts begins."""
        return f"hw1.{base64.urlsafe_b64encode(self.key_id.bytes).decode().rstrip('=')}."


class Found(msgspec.Struct, frozen=True):
    """What of a person a place had, and has: rows, documents or texts.

    ``left`` is how many still hold something; ``purged`` how many no longer do. ``note`` says what stays, and until
    when.
    """

    where: str
    purged: int = 0
    left: int = 0
    note: str = ""


class Place(Protocol):
    """A room that keeps what was opened, or what people wrote beside sealed texts."""

    async def purge(self, person: Person) -> list[Found]:
        """Removes what there is, once the key is destroyed. Repeated, it removes the rest."""
        ...

    async def look(self, person: Person) -> list[Found]:
        """What is left. Changes nothing."""
        ...
