"""Headwater's errors as an application's answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from headwater.entrances.http.problems import response_of
from headwater.errors import HeadwaterError

Handler = Callable[[Request, Any], Awaitable[Response]]


def refusals() -> dict[type[Exception], Handler]:
    """Answers Headwater's errors with problem+json: ``FastAPI(exception_handlers=refusals())``."""
    return {HeadwaterError: _refuse}


async def _refuse(_: Request, error: HeadwaterError) -> Response:
    return response_of(error)
