"""What operators do with endpoints and alerts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headwater.errors import EndpointRefused, JobRefused, UnknownAlert, UnknownEndpoint
from headwater.jobs.alerts.rule import NAME
from headwater.jobs.outgoing.addresses import target_of
from headwater.jobs.outgoing.signing import new_secret
from headwater.jobs.taken import SQL
from headwater.log.database import Database

TWO_SECRETS_SECONDS = 86_400.0


class Outgoing:
    """Endpoints and alerts of an installation, as an operator."""

    def __init__(self, operator: Database) -> None:
        self._operator = operator

    async def endpoints(self) -> list[tuple[Any, ...]]:
        """Every endpoint: name, tenant, URL, types, state, position, pending, failing since, detail."""
        return await self._rows("webhooks.list", {})

    async def add(
        self,
        endpoint: str,
        url: str,
        *,
        tenant: str,
        types: Sequence[str] | None = None,
        private: bool = False,
        after: int | None = None,
    ) -> str:
        """Registers an endpoint for events after a position, by default from now on; its secret.

        Raises EndpointRefused.
        """
        target_of(url)
        if not NAME.fullmatch(endpoint):
            raise EndpointRefused(
                f"The name {endpoint!r} is malformed.",
                hint="Use up to 63 lower-case letters, digits, _ and -, a letter first.",
            )
        secret = new_secret()
        named = None if types is None else list(types)
        parameters = {"endpoint": endpoint, "tenant": tenant, "url": url, "types": named, "secret": secret, "private": private, "after": after}  # fmt: skip
        if not await self._rows("webhooks.add", parameters):
            raise EndpointRefused(
                f"There is an endpoint {endpoint!r} already.", hint="Remove it, or rename this one."
            )
        return secret

    async def rotate(self, endpoint: str, *, seconds: float = TWO_SECRETS_SECONDS) -> str:
        """A new secret for an endpoint; the old one signs too for some seconds. Raises UnknownEndpoint."""
        secret = new_secret()
        await self._known(endpoint, "webhooks.rotate", {"secret": secret, "seconds": seconds})
        return secret

    async def remove(self, endpoint: str) -> None:
        """Forgets an endpoint and what is pending for it. Raises UnknownEndpoint."""
        await self._known(endpoint, "webhooks.remove", {})

    async def pause(self, endpoint: str) -> None:
        """Sends nothing to an endpoint until it is resumed. Raises UnknownEndpoint."""
        await self._known(endpoint, "webhooks.pause", {})

    async def resume(self, endpoint: str) -> None:
        """Lets an endpoint that is parked or paused go on with what is pending. Raises UnknownEndpoint."""
        await self._known(endpoint, "webhooks.resume", {})

    async def replay(self, endpoint: str, after: int) -> None:
        """Sends an endpoint all its events after a position again. Raises UnknownEndpoint."""
        await self._known(endpoint, "webhooks.replay", {"after": after})

    async def alerts(self) -> list[tuple[Any, ...]]:
        """Every alert: name, state, since when its condition holds, when it was raised, detail, silenced until."""
        return await self._rows("alerts.list", {})

    async def silence(self, alert: str, seconds: float) -> None:
        """Tells nobody of an alert for some seconds; 0 ends the silence. Raises UnknownAlert."""
        if not 0 <= seconds <= 366 * 86_400:
            raise JobRefused("A silence is at most a year.", hint="Pass a shorter time.")
        if not await self._rows("alerts.silence", {"alert": alert, "seconds": seconds}):
            raise UnknownAlert(f"There is no alert {alert!r}.", hint="headwater alerts lists them.")

    async def _known(self, endpoint: str, statement: str, parameters: dict[str, Any]) -> None:
        if not await self._rows(statement, parameters | {"endpoint": endpoint}):
            raise UnknownEndpoint(
                f"There is no endpoint {endpoint!r}.", hint="headwater webhooks lists them."
            )

    async def _rows(self, statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        async with self._operator.connection() as connection:
            return await (await connection.execute(SQL[statement], parameters)).fetchall()
