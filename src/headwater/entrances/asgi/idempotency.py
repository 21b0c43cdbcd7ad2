"""Endpoints that do what they are asked once, however often they are asked.

After the IETF's draft of the Idempotency-Key header (draft-ietf-httpapi-idempotency-key-header). The key,
whose it is and a hash of the request are claimed in the transaction of the facts, and the answer is kept in
the same: a crash between commit and answer loses neither.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from headwater.app import App
from headwater.commands import Accepted, Command, Rejection
from headwater.commands.deciding import Request as Asking
from headwater.commands.deciding import decide_within
from headwater.errors import IdempotencyKeyMissing, RequestRefused
from headwater.log.answers import Asked, KeptAnswer
from headwater.log.driver import (
    AsyncDriver,
    AsyncSession,
    BlockingDriver,
    BlockingSession,
    driver_of,
)
from headwater.log.tracing import span
from headwater.personal.answers import seen_now

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
_KEY = re.compile(r'"?([\x21\x23-\x7e]{1,200})"?')

Tell = Callable[[Request], str]


class _NotKept(Exception):
    """An answer without facts: the claim rolls back."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


@dataclass(frozen=True, eq=False)
class Idempotency:
    """A dependency of FastAPI, or awaited with a Starlette request: gives a ``Once``.

    ``tenant`` says whose facts they are, ``caller`` whose key it is; by default that is the Authorization
    header. Without a header the key is made from the fields of the JSON body that ``derive`` names; without
    those either, the request is refused, unless ``required`` is false.
    """

    tenant: str | Tell
    caller: Tell | None = None
    derive: Sequence[str] = ()
    required: bool = True

    async def __call__(self, request: Request) -> Once:
        """The request, known by its key. Raises IdempotencyKeyMissing and RequestRefused."""
        seen_now.set(set())
        body = await request.body()
        name = self._name(request, body)
        tenant = self.tenant if isinstance(self.tenant, str) else self.tenant(request)
        if name is None:
            return Once(None, tenant)
        caller = (
            request.headers.get("authorization", "")
            if self.caller is None
            else self.caller(request)
        )
        whose = hashlib.sha256(caller.encode()).hexdigest()[:16]
        asked = f"{request.method} {request.url.path}?{request.url.query}\n".encode() + body
        key = f"http {whose} {name}"
        return Once(Asked(tenant, key, hashlib.sha256(asked).digest(), name), tenant)

    def _name(self, request: Request, body: bytes) -> str | None:
        if (sent := request.headers.get(HEADER)) is not None:
            if (match := _KEY.fullmatch(sent.strip())) is None:
                raise RequestRefused(
                    f"The header {HEADER} is not 1 to 200 printable ASCII characters without spaces.",
                    hint="Send a UUID.",
                )
            return match[1]
        if self.derive:
            return _derived(body, self.derive, f"{request.method} {request.url.path}")
        if self.required:
            raise IdempotencyKeyMissing(
                f"The header {HEADER} is missing.",
                hint="Send a new UUID with each new request, and the same one when you try again.",
            )
        return None


@dataclass(frozen=True, slots=True)
class Once:
    """One request. Claim it first in the transaction, and settle it last, before the commit."""

    _asked: Asked | None
    tenant: str

    async def claim(self, session: AsyncSession) -> Response | None:
        """The answer that was given first; None where there is none yet, and the request is yours.

        Raises IdempotencyKeyReused for another request under this key, and RequestInFlight.
        """
        if self._asked is None:
            return None
        driver = cast("AsyncDriver", driver_of(session))
        return _replayed(self._asked.first(await driver.run(self._asked.claim)))

    async def settle(self, session: AsyncSession, answer: Any, status: int = 200) -> Response:
        """Keeps an answer with the facts; what to return. ``answer`` is a Response, or made into JSON."""
        response = _response(answer, status)
        if self._asked is not None:
            driver = cast("AsyncDriver", driver_of(session))
            await driver.run(self._asked.settle(_kept(response)))
            if seen := seen_now.get():
                await driver.run(self._asked.is_of(seen))
        return response

    async def do(
        self,
        app: App,
        command: Command,
        answer: Callable[[Accepted | Rejection | None], Any],
        *,
        status: int = 200,
        metadata: Mapping[str, Any] | None = None,
    ) -> Response:
        """Decides on a command once, and keeps the answer with its facts; again where it was overtaken.

        ``answer`` makes the answer of what came of it: Accepted, a Rejection, or None where nothing was to be
        done. What leaves no facts is not kept: it runs again.
        """
        tenant = app.tenant_of(self.tenant)
        decider = app.decider(type(command))

        async def attempt() -> Response:
            async with app.transaction(tenant) as tx:
                if (first := await self.claim(tx.connection)) is not None:
                    return first
                asked = Asking(command, tenant, metadata)
                outcome = await decide_within(tx.connection, decider, asked)
                if isinstance(outcome, Accepted):
                    return await self.settle(tx.connection, answer(outcome), status)
                raise _NotKept(_response(answer(outcome), status))

        with span(f"command {decider.name}"):
            try:
                return await app.deciding.again(attempt, decider.name)
            except _NotKept as rolled_back:
                return rolled_back.response

    def claim_blocking(self, session: BlockingSession) -> Response | None:
        """``claim`` on a blocking connection or session."""
        if self._asked is None:
            return None
        driver = cast("BlockingDriver", driver_of(session))
        return _replayed(self._asked.first(driver.run(self._asked.claim)))

    def settle_blocking(self, session: BlockingSession, answer: Any, status: int = 200) -> Response:
        """``settle`` on a blocking connection or session."""
        response = _response(answer, status)
        if self._asked is not None:
            driver = cast("BlockingDriver", driver_of(session))
            driver.run(self._asked.settle(_kept(response)))
            if seen := seen_now.get():
                driver.run(self._asked.is_of(seen))
        return response


def _derived(body: bytes, names: Sequence[str], path: str) -> str:
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestRefused("The body is not a JSON object.", hint="Send one.") from error
    if missing := [name for name in names if name not in fields]:
        raise RequestRefused(
            f"The body has no field {missing[0]!r}, which says what the request is.",
            hint=f"Send {', '.join(names)}, or the header {HEADER}.",
        )
    told = {name: fields[name] for name in names}
    chosen = msgspec.json.encode([path, told], order="deterministic")
    return f"derived-{hashlib.sha256(chosen).hexdigest()}"


def _response(answer: Any, status: int) -> Response:
    if isinstance(answer, Response):
        if not hasattr(answer, "body"):
            raise TypeError("an answer that is kept cannot be streamed")
        return answer
    body = msgspec.json.encode(answer, enc_hook=_plain)
    return Response(body, status, media_type="application/json")


def _plain(value: Any) -> Any:
    if isinstance(value, str):  # a token
        return str(value)
    if hasattr(value, "model_dump"):  # of pydantic
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _kept(response: Response) -> bytes:
    answer = KeptAnswer(response.status_code, list(response.raw_headers), bytes(response.body))
    return msgspec.msgpack.encode(answer)


def _replayed(kept: bytes | None) -> Response | None:
    if kept is None:
        return None
    answer = msgspec.msgpack.decode(kept, type=KeptAnswer)
    response = Response(answer.body, answer.status)
    response.raw_headers = [*answer.headers, (REPLAYED.lower().encode(), b"true")]
    return response
