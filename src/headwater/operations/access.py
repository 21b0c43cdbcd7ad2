"""Access tokens: what opens the HTTP entrance, for one tenant and some scopes.

A token is ``hw_ID_SECRET``. The secret has 256 random bits and is shown once; the database holds its
SHA-256. A rotated token stays valid for an overlap, so that callers can change over.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from headwater.errors import AccessTokenUnknown, DefinitionError
from headwater.log.database import Database
from headwater.log.failures import translated
from headwater.log.statements import Statements

SQL = Statements("headwater.operations")

Scope = Literal["append", "read", "operate"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_ALPHABET = string.digits + string.ascii_lowercase
_TOKEN = re.compile(r"hw_([0-9a-z]{12})_([A-Za-z0-9_-]{43})")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")


@dataclass(frozen=True, slots=True)
class Secret:
    """A token as its owner holds it."""

    id: str
    secret: str

    @staticmethod
    def new() -> Secret:
        """A token that nobody can guess."""
        return Secret(
            "".join(secrets.choice(_ALPHABET) for _ in range(12)), secrets.token_urlsafe()
        )

    @staticmethod
    def parse(text: str) -> Secret | None:
        """The token in a text, or None where it is none."""
        match = _TOKEN.fullmatch(text)
        return None if match is None else Secret(match[1], match[2])

    @property
    def text(self) -> str:
        """The token as callers send it."""
        return f"hw_{self.id}_{self.secret}"

    @property
    def hash(self) -> bytes:
        """What the database holds of the secret."""
        return hashlib.sha256(self.secret.encode()).digest()

    def __repr__(self) -> str:
        return f"Secret({self.id})"


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token as operators see it."""

    id: str
    name: str
    tenant: str | None
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    status: Literal["valid", "expired", "revoked"]


async def create_token(
    operator: Database,
    *,
    name: str,
    tenant: str | None,
    scopes: Sequence[Scope],
    seconds: float | None = None,
) -> Secret:
    """Creates a token; what it returns is shown once and stored nowhere.

    ``tenant`` is None for the scope ``operate``, which stands alone. Raises DefinitionError.
    """
    _check(name, tenant, scopes)
    token = Secret.new()
    async with operator.connection() as connection:
        await connection.execute(
            SQL["access.create"],
            {
                "id": token.id,
                "tenant": tenant,
                "scopes": sorted(set(scopes)),
                "hash": token.hash,
                "name": name,
                "seconds": seconds,
            },
        )
    return token


def _check(name: str, tenant: str | None, scopes: Sequence[Scope]) -> None:
    if not scopes or not set(scopes) <= set(SCOPES):
        raise DefinitionError(
            f"The scopes {', '.join(scopes) or '(none)'} are not known.",
            hint=f"The scopes are {', '.join(SCOPES)}.",
        )
    if "operate" in scopes and (tenant is not None or len(set(scopes)) > 1):
        raise DefinitionError(
            "A token of the scope operate sees operational pages only, and no tenant's data.",
            hint="Create it alone and without a tenant; make another token for data.",
        )
    if "operate" not in scopes and (tenant is None or not _TENANT.fullmatch(tenant)):
        raise DefinitionError(
            f"The tenant {tenant!r} is missing or malformed.",
            hint="Name one tenant: up to 100 letters, digits, and _ . : -.",
        )
    if not name or len(name) > 100 or not name.isprintable():
        raise DefinitionError(
            "The token's name is empty, too long or not printable.",
            hint="Use up to 100 characters.",
        )


async def list_tokens(operator: Database, *, tenant: str | None = None) -> list[TokenRow]:
    """All tokens, or a tenant's, oldest first."""
    async with operator.connection() as connection:
        cursor = await connection.execute(SQL["access.list"], {"tenant": tenant})
        return [
            TokenRow(row[0], row[1], row[2], tuple(row[3]), *row[4:])
            for row in await cursor.fetchall()
        ]


async def rotate_token(
    operator: Database, token_id: str, *, overlap_seconds: float, seconds: float | None = None
) -> Secret:
    """A new token in place of another, which stays valid for the overlap.

    Raises AccessTokenUnknown where there is no valid token of that id.
    """
    fresh = Secret.new()
    async with operator.transaction() as connection:
        with translated():
            parameters = {"id": token_id, "overlap_seconds": overlap_seconds}
            cursor = await connection.execute(SQL["access.rotate"], parameters)
            row = await cursor.fetchone()
        if row is None:
            raise _unknown(token_id)
        tenant, scopes, name = row
        await connection.execute(
            SQL["access.create"],
            {
                "id": fresh.id,
                "tenant": tenant,
                "scopes": scopes,
                "hash": fresh.hash,
                "name": name,
                "seconds": seconds,
            },
        )
    return fresh


async def revoke_token(operator: Database, token_id: str) -> None:
    """Ends a token. Processes that have just seen it learn so within seconds.

    Raises AccessTokenUnknown where there is none of that id, or it is revoked already.
    """
    async with operator.connection() as connection:
        cursor = await connection.execute(SQL["access.revoke"], {"id": token_id})
        if await cursor.fetchone() is None:
            raise _unknown(token_id)


def _unknown(token_id: str) -> AccessTokenUnknown:
    return AccessTokenUnknown(
        f"There is no valid access token {token_id!r}.", hint="headwater token list shows them."
    )
