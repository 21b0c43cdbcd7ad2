"""Who is calling: access tokens, the process's own local token, and tickets for browsers."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass, field

from headwater.entrances.http.limits import Limits
from headwater.errors import Forbidden, RateExceeded, Unauthenticated
from headwater.log.database import Database
from headwater.log.failures import translated
from headwater.log.statements import Statements
from headwater.operations.access import Scope, Secret
from headwater.rates.rate import Rate

SQL = Statements("headwater.entrances.http")
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose data a request may see, and what it may do. ``tenant`` is None for operators."""

    id: str
    tenant: str | None
    scopes: frozenset[str]

    def may(self, scope: Scope) -> None:
        """Raises Forbidden where the scope is not among the caller's."""
        if scope not in self.scopes:
            raise Forbidden(
                f"This access token has not the scope {scope!r}.",
                hint=f"It has {', '.join(sorted(self.scopes))}; headwater token create makes another.",
            )

    @property
    def whose(self) -> str:
        """The tenant. Raises Forbidden where there is none."""
        if self.tenant is None:
            raise Forbidden(
                "This access token opens no tenant.", hint="Use a token that names the tenant."
            )
        return self.tenant


@dataclass(slots=True)
class _Known:
    caller: Caller
    hash: bytes
    refusal: str | None
    until: float


@dataclass(slots=True)
class Gate:
    """Lets callers in. What the database said of a token is trusted for a few seconds."""

    database: Database
    limits: Limits
    _known: dict[str, _Known] = field(default_factory=dict)
    _local: tuple[Secret, Caller] | None = None
    _requests: Rate = field(init=False)
    _lookups: Rate = field(init=False)

    def __post_init__(self) -> None:
        self._requests = Rate(self.limits.requests_per_second, self.limits.request_burst)
        lookups = self.limits.unknown_tokens_per_second
        self._lookups = Rate(lookups, max(int(lookups), 1))

    def local(self, tenant: str | None) -> str:
        """A token that lives as long as this process and is stored nowhere.

        It may do everything for the tenant, and see operational pages.
        """
        token = Secret.new()
        scopes = {"operate"} | ({"append", "read"} if tenant is not None else set())
        self._local = token, Caller(token.id, tenant, frozenset(scopes))
        return token.text

    async def caller(self, authorization: str | None) -> Caller:
        """The caller of an Authorization header. Raises Unauthenticated or RateExceeded."""
        if authorization is None:
            raise Unauthenticated(
                "The request carries no access token.",
                hint="Send Authorization: Bearer hw_...; headwater token create makes one.",
            )
        kind, _, text = authorization.partition(" ")
        if kind.lower() != "bearer":
            raise Unauthenticated(
                "The Authorization header is not of the kind Bearer.",
                hint="Send Authorization: Bearer hw_....",
            )
        return await self.bearer(text.strip())

    async def bearer(self, text: str) -> Caller:
        """The caller of a token. Raises Unauthenticated or RateExceeded."""
        token = Secret.parse(text)
        if token is None:
            raise Unauthenticated(
                "That is not an access token.",
                hint="Pass it exactly as it was shown: hw_ID_SECRET.",
            )
        if self._local is not None and token.id == self._local[0].id:
            known = _Known(self._local[1], self._local[0].hash, None, 0)
        else:
            known = await self._look_up(token.id)
        if not hmac.compare_digest(known.hash, token.hash):
            raise _unknown()
        if known.refusal is not None:
            raise Unauthenticated(
                f"The access token {token.id} {known.refusal}.",
                hint="headwater token create or rotate makes a new one.",
            )
        return known.caller

    def admit(self, caller: Caller) -> None:
        """Counts a request. Raises RateExceeded."""
        wait = self._requests.take(caller.id, time.monotonic())
        if wait > 0:
            raise RateExceeded(
                f"This access token made more than {self.limits.requests_per_second:g} requests a second.",
                hint="Slow down; put several events into one request.",
                retry_seconds=wait,
            )

    def rate_headers(self, caller: Caller) -> dict[str, str]:
        """What is left of the rate (draft-ietf-httpapi-ratelimit-headers)."""
        left = self._requests.left(caller.id, time.monotonic())
        return {"RateLimit": f'"requests";r={left};t=1'}

    @property
    def rate_policy(self) -> str:
        """The rate as a header's value."""
        return f'"requests";q={self.limits.request_burst};w={max(round(self.limits.request_burst / self.limits.requests_per_second), 1)}'

    async def _look_up(self, token_id: str) -> _Known:
        now = time.monotonic()
        known = self._known.get(token_id)
        if known is not None and now < known.until:
            return known
        if known is None and (wait := self._lookups.take("unknown", now)) > 0:
            raise RateExceeded(
                "Too many unknown access tokens are being tried.",
                hint="Try again in a moment.",
                retry_seconds=wait,
            )
        async with self.database.connection() as connection:
            with translated():
                cursor = await connection.execute(
                    SQL["http.access_token"], {"id": token_id}, prepare=True
                )
                row = await cursor.fetchone()
        if row is None:
            self._known.pop(token_id, None)
            raise _unknown()
        tenant, scopes, digest, expired, revoked = row
        refusal = "is revoked" if revoked else "has expired" if expired else None
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        known = _Known(
            Caller(token_id, tenant, frozenset(scopes)),
            digest,
            refusal,
            now + self.limits.token_cache_seconds,
        )
        self._known[token_id] = known
        return known

    # Tickets -------------------------------------------------------------------------------------

    async def issue_ticket(self, tenant: str, channel: str | None = None) -> str:
        """A text that opens one live channel of the tenant, once and soon; where one is named, that one alone.

        The channel is part of what is hashed: under another name the ticket is not known.
        """
        ticket = secrets.token_urlsafe()
        digest = _digest(ticket if channel is None else f"{ticket} {channel}")
        async with self.database.connection() as connection:
            await connection.execute(
                SQL["http.issue_ticket"],
                {"hash": digest, "tenant": tenant, "seconds": self.limits.ticket_seconds},
            )
        return ticket

    async def redeem_ticket(self, ticket: str, channel: str) -> Caller:
        """Who a ticket was issued to. Raises Unauthenticated; a ticket opens once."""
        wait = self._requests.take("tickets", time.monotonic())
        if wait > 0:
            raise RateExceeded("Too many tickets are being used.", retry_seconds=wait)
        tenant = None
        async with self.database.connection() as connection:
            for text in (ticket, f"{ticket} {channel}"):
                asked = {"hash": _digest(text)}
                row = await (await connection.execute(SQL["http.redeem_ticket"], asked)).fetchone()
                tenant = tenant or (None if row is None else row[0])
        if tenant is None:
            raise Unauthenticated(
                "The ticket is unknown, used, too old or for another channel.",
                hint="POST /v1/tickets for a new one.",
            )
        return Caller(f"ticket of {tenant}", tenant, frozenset({"read"}))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _unknown() -> Unauthenticated:
    return Unauthenticated(
        "The access token is not known here.", hint="headwater token list shows which are valid."
    )
