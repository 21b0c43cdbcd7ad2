"""The keys of persons: made when first needed, read when something is opened, gone when one is forgotten."""

from __future__ import annotations

import base64
import hmac
import os
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from headwater.errors import InvalidEvent, SubjectForgotten
from headwater.events.personal import WEEK_DAYS
from headwater.log.database import Database
from headwater.log.statements import Statements
from headwater.personal.master import KEY_BYTES, KeyService, cipher

SQL = Statements("headwater.personal")
_CACHED = 10_000
_UNTIL = "\x1f"
"""What parts a subject from the day until which something of them is kept."""
_FRESH_SECONDS = 30.0
KeyRow = tuple[str, UUID, bytes | None, str]
"""Subject, id, wrapped key, the master key's name."""


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


def key_name(subject: str, keep_days: int | None) -> str:
    """Under which name the key is kept: the subject's, or that of what is kept of them until a day."""
    if _UNTIL in subject:
        raise InvalidEvent("A subject's name holds a control character.", hint="Use an identifier.")
    if keep_days is None:
        return subject
    today = datetime.now(UTC).date()
    week = today - timedelta(days=today.toordinal() % WEEK_DAYS)
    return f"{subject}{_UNTIL}{week + timedelta(days=keep_days)}"


def whose_of(name: str) -> str:
    """The subject of a key's name."""
    return name.partition(_UNTIL)[0]


def _derived(root: bytes, purpose: bytes) -> bytes:
    return hmac.digest(root, b"headwater " + purpose, "sha256")


def context_of(tenant: str, subject: str) -> bytes:
    """What a wrapped key is bound to: it opens nobody else's."""
    return f"headwater key\0{tenant}\0{subject}".encode()


class SubjectKeys:
    """The keys of one log's persons, unwrapped ones kept in memory.

    A key that seals may be up to 30 s old: what a destroyed one seals is never opened. Before anything is opened
    the database is asked whether the key still exists, and the ledger whether it should.
    """

    def __init__(
        self,
        database: Database,
        service: KeyService,
        gone: Callable[[], Collection[UUID]] = tuple,
    ) -> None:
        self._database = database
        self._service = service
        self._gone = gone
        self._by_subject: OrderedDict[tuple[str, str], tuple[float, Key]] = OrderedDict()
        self._by_id: OrderedDict[UUID, Key] = OrderedDict()

    async def for_sealing(self, tenant: str, subjects: Collection[str]) -> dict[str, Key]:
        """The keys of subjects; makes those that there are not. Raises SubjectForgotten, KeyUnavailable."""
        since = time.monotonic() - _FRESH_SECONDS
        found = {}
        for subject in subjects:
            known = self._by_subject.get((tenant, subject))
            if known is not None and known[0] > since:
                found[subject] = known[1]
        if wanted := sorted(set(subjects) - set(found)):
            rows = await self._of_subjects(tenant, wanted)
            if missing := sorted(set(wanted) - {row[0] for row in rows}):
                await self._make(tenant, missing)
                rows += await self._of_subjects(tenant, missing)
            for row in rows:
                key = await self._live(tenant, *row)
                if key is None:
                    raise SubjectForgotten(
                        "The person whom this is of has been forgotten.",
                        hint="Nothing can be sealed for them again. Use another subject for a person who is back.",
                    )
                found[row[0]] = key
                _keep(self._by_subject, (tenant, row[0]), (time.monotonic(), key))
        return found

    async def for_opening(self, tenant: str, key_ids: Collection[UUID]) -> dict[UUID, Key | None]:
        """Keys by id, as they are now: None for those that are gone or of another tenant. Raises KeyUnavailable."""
        rows = await self._read("keys.of_ids", tenant, {"ids": list(key_ids)})
        found: dict[UUID, Key | None] = dict.fromkeys(key_ids)
        for row in rows:
            found[row[1]] = await self._live(tenant, *row)
        return found

    async def _make(self, tenant: str, subjects: Sequence[str]) -> None:
        """Makes keys, unless others have meanwhile; in a commit of its own, so that none is used that is not kept."""
        roots = {subject: os.urandom(KEY_BYTES) for subject in subjects}
        offered = [
            (s, uuid.uuid4(), *await self._service.wrap(root, context_of(tenant, s)))
            for s, root in roots.items()
        ]
        names = ("subjects", "ids", "masters", "wrapped")
        columns = (list(column) for column in zip(*offered, strict=True))
        async with self._database.transaction(tenant) as connection:
            await connection.execute(
                SQL["keys.make"], {"tenant": tenant, **dict(zip(names, columns, strict=True))}
            )

    async def _of_subjects(self, tenant: str, subjects: Sequence[str]) -> list[KeyRow]:
        return await self._read("keys.of_subjects", tenant, {"subjects": list(subjects)})

    async def _live(
        self, tenant: str, subject: str, key_id: UUID, wrapped: bytes | None, master: str
    ) -> Key | None:
        """A key that is neither destroyed nor in the ledger of those that are."""
        if wrapped is None or key_id in self._gone():
            return None
        return await self._unwrapped(tenant, subject, key_id, wrapped, master)

    async def newest(self) -> str:
        """The name of the master key that wraps now."""
        return (await self._service.wrap(os.urandom(KEY_BYTES), b"which wraps"))[0]

    async def wrapped_anew(
        self, tenant: str, subject: str, wrapped: bytes, master: str
    ) -> tuple[str, bytes]:
        """A wrapped key, wrapped by the newest master key. Raises KeyUnavailable."""
        context = context_of(tenant, subject)
        return await self._service.wrap(
            await self._service.unwrap(master, wrapped, context), context
        )

    async def _read(self, name: str, tenant: str, asked: dict[str, Any]) -> list[KeyRow]:
        async with self._database.transaction(tenant) as connection:
            cursor = await connection.execute(SQL[name], {"tenant": tenant} | asked)
            rows: list[KeyRow] = await cursor.fetchall()
        return rows

    async def _unwrapped(
        self, tenant: str, subject: str, key_id: UUID, wrapped: bytes, master: str
    ) -> Key:
        if (known := self._by_id.get(key_id)) is None:
            root = await self._service.unwrap(master, wrapped, context_of(tenant, subject))
            known = Key.of(tenant, key_id, root)
            _keep(self._by_id, key_id, known)
        return known


def _keep(cache: OrderedDict[Any, Any], name: Any, key: Any) -> None:
    cache[name] = key
    if len(cache) > _CACHED:
        cache.popitem(last=False)
