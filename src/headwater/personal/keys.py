"""The keys of persons: made when first needed, read when something is opened, gone when one is forgotten."""

from __future__ import annotations

import base64
import hmac
import os
import uuid
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from headwater.errors import SubjectForgotten
from headwater.log.database import Connection, Database
from headwater.log.statements import Statements
from headwater.personal.master import KEY_BYTES, KeyService, cipher

SQL = Statements("headwater.personal")
_CACHED = 10_000


@dataclass(frozen=True, slots=True)
class Key:
    """One person's key, unwrapped: for sealing, and for the nonces."""

    key_id: UUID
    cipher: Any
    nonces: bytes
    context: bytes
    """What every text under it is bound to: tenant and key."""
    prefix: str
    """How every text under it begins."""

    @staticmethod
    def of(tenant: str, key_id: UUID, root: bytes) -> Key:
        """The key of a root key: two keys that follow from it."""
        context = f"headwater text\0{tenant}\0{key_id}".encode()
        encoded = base64.urlsafe_b64encode(key_id.bytes).decode().rstrip("=")
        seals, nonces = _derived(root, b"seal"), _derived(root, b"nonce")
        return Key(key_id, cipher(seals), nonces, context, f"hw1.{encoded}.")


def _derived(root: bytes, purpose: bytes) -> bytes:
    return hmac.digest(root, b"headwater " + purpose, "sha256")


def context_of(tenant: str, subject: str) -> bytes:
    """What a wrapped key is bound to: it opens nobody else's."""
    return f"headwater key\0{tenant}\0{subject}".encode()


class SubjectKeys:
    """The keys of one log's persons, unwrapped ones kept in memory.

    A key that seals may be used a moment after it was destroyed: what it seals is never opened. Before anything is
    opened the database is asked whether the key still exists.
    """

    def __init__(self, database: Database, service: KeyService) -> None:
        self._database = database
        self._service = service
        self._by_subject: OrderedDict[tuple[str, str], Key] = OrderedDict()
        self._by_id: OrderedDict[UUID, Key] = OrderedDict()

    async def for_sealing(self, tenant: str, subjects: Collection[str]) -> dict[str, Key]:
        """The keys of subjects; makes those that there are not. Raises SubjectForgotten, KeyUnavailable."""
        found = {s: k for s in subjects if (k := self._by_subject.get((tenant, s))) is not None}
        if missing := sorted(set(subjects) - set(found)):
            fresh = {subject: os.urandom(KEY_BYTES) for subject in missing}
            offered = [
                (s, uuid.uuid4(), *await self._service.wrap(root, context_of(tenant, s)))
                for s, root in fresh.items()
            ]
            columns = [list(column) for column in zip(*offered, strict=True)]
            names = ("subjects", "ids", "masters", "wrapped")
            async with self._database.transaction(tenant) as connection:
                asked = {"tenant": tenant, **dict(zip(names, columns, strict=True))}
                await connection.execute(SQL["keys.make"], asked)
                rows = await self._read(connection, "keys.of_subjects", {"tenant": tenant, "subjects": missing})  # fmt: skip
            for subject, key_id, wrapped, master in rows:
                if wrapped is None:
                    raise SubjectForgotten(
                        "The person whom this is of has been forgotten.",
                        hint="Nothing can be sealed for them again. Use another subject for a person who is back.",
                    )
                found[subject] = await self._unwrapped(tenant, subject, key_id, wrapped, master)
                _keep(self._by_subject, (tenant, subject), found[subject])
        return found

    async def for_opening(self, tenant: str, key_ids: Collection[UUID]) -> dict[UUID, Key | None]:
        """Keys by id, as they are now: None for those that are gone or of another tenant. Raises KeyUnavailable."""
        async with self._database.transaction(tenant) as connection:
            rows = await self._read(connection, "keys.of_ids", {"tenant": tenant, "ids": list(key_ids)})  # fmt: skip
        found: dict[UUID, Key | None] = dict.fromkeys(key_ids)
        for subject, key_id, wrapped, master in rows:
            if wrapped is not None:
                found[key_id] = await self._unwrapped(tenant, subject, key_id, wrapped, master)
        return found

    async def newest(self) -> str:
        """The name of the master key that wraps now."""
        return (await self._service.wrap(b"", b""))[0]

    async def wrapped_anew(
        self, tenant: str, subject: str, wrapped: bytes, master: str
    ) -> tuple[str, bytes]:
        """A wrapped key, wrapped by the newest master key. Raises KeyUnavailable."""
        context = context_of(tenant, subject)
        return await self._service.wrap(
            await self._service.unwrap(master, wrapped, context), context
        )

    async def _read(self, connection: Connection, name: str, asked: dict[str, Any]) -> list[tuple[str, UUID, bytes | None, str]]:  # fmt: skip
        return await (await connection.execute(SQL[name], asked)).fetchall()

    async def _unwrapped(
        self, tenant: str, subject: str, key_id: UUID, wrapped: bytes, master: str
    ) -> Key:
        if (known := self._by_id.get(key_id)) is None:
            root = await self._service.unwrap(master, wrapped, context_of(tenant, subject))
            known = Key.of(tenant, key_id, root)
            _keep(self._by_id, key_id, known)
        return known


def _keep(cache: OrderedDict[Any, Key], name: Any, key: Key) -> None:
    cache[name] = key
    if len(cache) > _CACHED:
        cache.popitem(last=False)
