"""Answers that are given once: claimed and settled in the transaction of the facts.

A request is known by a key and a hash of what it asks for. Whoever claims it first goes on, and settles
its answer in the same transaction; whoever comes later is given that answer. What rolls back was never
claimed.
"""

from __future__ import annotations

import base64
from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

import msgspec

from headwater import errors
from headwater.log.driver import Call, Rows

MAX_ANSWER_BYTES = 256 * 1024


class KeptAnswer(msgspec.Struct, array_like=True):
    """An answer over HTTP as it is kept, in MessagePack."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the log knows it. ``name`` is the key as its caller wrote it, for messages."""

    tenant: str
    key: str
    request_hash: bytes
    name: str

    @property
    def claim(self) -> Call:
        """Asks for the first answer, or takes the request over."""
        parameters: dict[str, str | None] = {
            "tenant": self.tenant,
            "key": self.key,
            "request_hash": self.request_hash.hex(),
        }
        return Call("claim", parameters)

    def settle(self, answer: bytes) -> Call:
        """Keeps the answer. Raises LimitExceeded."""
        if len(answer) > MAX_ANSWER_BYTES:
            raise errors.LimitExceeded(
                f"The answer has {len(answer):,} bytes; {MAX_ANSWER_BYTES:,} are kept at most.",
                hint="Answer with a reference to what is large.",
            )
        parameters: dict[str, str | None] = {
            "tenant": self.tenant,
            "key": self.key,
            "answer": base64.b64encode(answer).decode(),
        }
        return Call("settle", parameters)

    def is_of(self, key_ids: Collection[UUID]) -> Call:
        """Says under which keys what the answer tells is sealed."""
        ids = "{" + ",".join(map(str, key_ids)) + "}"
        return Call("answer_is_of", {"tenant": self.tenant, "key": self.key, "key_ids": ids})

    def first(self, rows: Rows) -> bytes | None:
        """The first answer, or None where this is the first request.

        Raises IdempotencyKeyReused, RequestInFlight and LimitExceeded.
        """
        state, answer = rows[0]
        if state == "new":
            return None
        if state == "in_flight":
            raise errors.RequestInFlight(
                f"A request with the idempotency key {self.name!r} is under way.",
                hint="Try again in a moment: you will be given its answer.",
            )
        if state == "malformed":
            raise errors.LimitExceeded(
                "The idempotency key is not printable ASCII characters.", hint="Use a UUID."
            )
        if state == "reused" or answer is None:
            raise errors.IdempotencyKeyReused(
                f"The idempotency key {self.name!r} was used for another request.",
                hint="Use a new key for a new request; send the same request to get its first answer.",
            )
        return base64.b64decode(answer)
