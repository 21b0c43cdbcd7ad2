"""Middleware that limits how often callers may come.

The headers are those of the IETF's draft (draft-ietf-httpapi-ratelimit-headers): ``RateLimit-Policy`` says
what a caller may do, ``RateLimit`` what is left of it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Literal

import psycopg
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headwater.entrances.http.problems import response_of
from headwater.errors import HeadwaterError, RateExceeded, StoreUnavailable
from headwater.rates import Decision, Limiter, Plan

_log = logging.getLogger("headwater.rates")

Who = Callable[[HTTPConnection], tuple[str, Plan] | None]


class RateLimits:
    """``api.add_middleware(RateLimits, limiter=Limiter(PostgresCounters(app)), who=who)``.

    ``who`` tells a request's caller and plan, or None for one that is not limited. Where the counters cannot
    be reached, requests go on without a limit, and the log says so; ``without_counters="refuse"`` answers
    503 instead.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limiter: Limiter,
        who: Who,
        without_counters: Literal["allow", "refuse"] = "allow",
    ) -> None:
        self._app, self._limiter, self._who = app, limiter, who
        self._refuses = without_counters == "refuse"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Counts a request, then hands it on or answers 429."""
        if scope["type"] != "http" or (told := self._who(HTTPConnection(scope))) is None:
            await self._app(scope, receive, send)
            return
        caller, plan = told
        try:
            decision = await self._limiter.take(caller, plan)
        except (HeadwaterError, psycopg.Error) as error:
            _log.warning("rates cannot be counted: %s", error)
            if self._refuses:
                refusal = StoreUnavailable(
                    "Requests cannot be counted now.", hint="Try again soon."
                )
                await response_of(refusal)(scope, receive, send)
            else:
                await self._app(scope, receive, send)
            return
        if not decision.allowed:
            refused = response_of(_refusal(plan, decision))
            refused.headers.update(headers_of(plan, decision))
            await refused(scope, receive, send)
            return
        headers = headers_of(plan, decision)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        await self._app(scope, receive, with_headers)


def headers_of(plan: Plan, decision: Decision) -> dict[str, str]:
    """The headers that tell a caller of its limit; times in whole seconds, rounded up."""
    window = math.ceil(plan.every_seconds * plan.at_once)
    return {
        "RateLimit-Policy": f'"{plan.name}";q={plan.at_once};w={window}',
        "RateLimit": f'"{plan.name}";r={decision.remaining};t={math.ceil(decision.reset_seconds)}',
    }


def _refusal(plan: Plan, decision: Decision) -> RateExceeded:
    return RateExceeded(
        f"The plan {plan.name!r} allows {plan.requests} requests in {plan.per_seconds:g} s.",
        hint="Come again when Retry-After says.",
        retry_seconds=decision.retry_seconds,
    )
