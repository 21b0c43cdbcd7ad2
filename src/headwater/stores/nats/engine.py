"""One connection to NATS, the requests on it, and what its errors mean here.

The only module that imports the package ``nats``, and only when an app that uses the bus is opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from headwater.errors import ExtraMissing, LeaseLost, StoreRefused, StoreUnavailable

if TYPE_CHECKING:
    from headwater.stores.nats.messages import NatsMessages

_TIMEOUT_SECONDS = 5.0
_ASKING_SECONDS = 2.0
"""For questions: a stream without a leader answers nothing, and the question may be asked again."""
_CONNECT_SECONDS = 3.0
_NOT_FOUND = 404
_NOT_THERE_ANY_MORE = frozenset({10070, 10071, 10176, 10201})
"""JetStream's codes: another last id or sequence; a batch of which a part is missing, or holds an id that is known."""


class Answer(msgspec.Struct):
    """What JetStream answers, as far as it says whether it did what was asked."""

    error: Any = None
    seq: int = 0


class NatsEngine:
    """One NATS, shared by the publications on it. Connects when first used, and again once it was cut off."""

    def __init__(self, name: str, servers: Sequence[str], limits: Mapping[str, int]) -> None:
        try:
            import nats
        except ImportError as error:
            raise ExtraMissing(
                f"The store {name!r} needs the package nats-py.",
                hint="pip install 'headwater[nats]'",
            ) from error
        self.name = name
        self.limits = limits
        self._servers = list(servers)
        self._nats: Any = nats
        self._client: Any = None
        self._cut: asyncio.Event = asyncio.Event()
        self._connecting = asyncio.Lock()

    @cached_property
    def messages(self) -> NatsMessages:
        """Where publications' messages go."""
        from headwater.stores.nats.messages import NatsMessages

        return NatsMessages(self)

    async def close(self) -> None:
        """Closes the connection. Idempotent."""
        client, self._client = self._client, None
        if client is not None and not client.is_closed:
            with suppress(self._nats.errors.Error, OSError, asyncio.TimeoutError):
                await client.close()

    async def max_payload(self) -> int:
        """How many bytes a message may have."""
        client = await self._connected()
        return int(client.max_payload)

    async def api(self, subject: str, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """An answer of JetStream's API; None where what it names is not there."""
        data = await self.request(
            f"$JS.API.{subject}", msgspec.json.encode(request), {}, _ASKING_SECONDS
        )
        answer: dict[str, Any] = msgspec.json.decode(data)
        error = answer.get("error")
        if error is None:
            return answer
        if error.get("code") == _NOT_FOUND:
            return None
        raise self.fault(error)

    async def new_inbox(self) -> tuple[str, asyncio.Event]:
        """A subject to be answered on, and what is set once the connection that it is of is cut."""
        client = await self._connected()
        return str(client.new_inbox()), self._cut

    async def subscribe(self, subject: str, heard: Callable[[Any], Awaitable[None]]) -> Any:
        """Hears what comes on a subject; ``unsubscribe()`` ends it. Raises StoreUnavailable."""
        client = await self._connected()
        try:
            return await client.subscribe(subject, cb=heard)
        except (self._nats.errors.Error, OSError) as error:
            raise self._unreachable(error) from error

    async def send(
        self, subject: str, body: bytes, headers: dict[str, str], *, reply: str = ""
    ) -> None:
        """A message that nobody answers, or someone on ``reply``. Raises StoreUnavailable."""
        client = await self._connected()
        try:
            await client.publish(subject, body, reply=reply, headers=headers or None)
        except (self._nats.errors.Error, OSError) as error:
            raise self._unreachable(error) from error

    async def request(
        self,
        subject: str,
        body: bytes,
        headers: dict[str, str],
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> bytes:
        """The answer to a message. Raises StoreUnavailable, also where it may have been taken."""
        (answer,) = await self.requests([(subject, body, headers)], timeout_seconds)
        return answer

    async def requests(
        self,
        messages: Sequence[tuple[str, bytes, dict[str, str]]],
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> list[bytes]:
        """The answers to messages (subject, body, headers), which are all sent before the first is awaited.

        Raises StoreUnavailable, also where some may have been taken.
        """
        client, cut = await self._connected(), self._cut
        asking: asyncio.Future[list[Any]] = asyncio.gather(
            *(
                client.request(subject, body, timeout=timeout_seconds, headers=headers or None)
                for subject, body, headers in messages
            )
        )
        losing: asyncio.Future[Any] = asyncio.create_task(cut.wait())
        try:
            await asyncio.wait({asking, losing}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise StoreUnavailable(
                    f"The store {self.name!r} has closed the connection.",
                    hint="Its views go on by themselves once it can be reached.",
                )
            return [bytes(answer.data) for answer in await asking]
        except (TimeoutError, self._nats.errors.Error, OSError) as error:
            raise self._unreachable(error) from error
        finally:
            for task in (asking, losing):
                task.cancel()
            await asyncio.gather(asking, losing, return_exceptions=True)

    def fault(self, error: Mapping[str, Any]) -> Exception:
        """What an error of JetStream's means here."""
        text, number = error.get("description", "no reason given"), error.get("err_code")
        if number in _NOT_THERE_ANY_MORE:
            return LeaseLost(f"Another relay has published to {self.name!r}: {text}.")
        if error.get("code", 0) >= 500:
            return StoreUnavailable(
                f"The store {self.name!r} cannot take messages now: {text}.",
                hint="Its views go on by themselves once it can.",
            )
        return StoreRefused(
            f"The store {self.name!r} refuses: {text}.",
            hint="The login needs $JS.API.>, _INBOX.> and the subjects headwater.>; see the store's page.",
        )

    async def _connected(self) -> Any:
        async with self._connecting:
            if self._client is not None and not self._client.is_closed:
                return self._client
            cut = asyncio.Event()

            async def closed() -> None:
                cut.set()

            async def heard(_: Exception) -> None:
                """What fails is raised where it was asked for."""

            try:
                # No reconnecting below us: what was in flight is asked about by reading the stream's end.
                connecting = self._nats.connect(
                    servers=self._servers,
                    name="headwater",
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0.05,
                    connect_timeout=1,
                    closed_cb=closed,
                    disconnected_cb=closed,
                    error_cb=heard,
                )
                self._client = await asyncio.wait_for(connecting, _CONNECT_SECONDS)
            except (TimeoutError, self._nats.errors.Error, OSError) as error:
                raise self._unreachable(error) from error
            self._cut = cut
            return self._client

    def _unreachable(self, error: Exception) -> StoreUnavailable:
        reason = str(error) or type(error).__name__
        return StoreUnavailable(
            f"The store {self.name!r} cannot be reached: {reason}.",
            hint="Its views go on by themselves once it can.",
        )
