"""Reading what a caller sends: no larger, no slower and no deeper than the limits say."""

from __future__ import annotations

import asyncio
import re

from starlette.requests import ClientDisconnect, Request

from headwater.entrances.http.limits import Limits
from headwater.errors import (
    BodyTooLarge,
    BodyTooSlow,
    InvalidEvent,
    LimitExceeded,
    MediaTypeRefused,
    RequestRefused,
)

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')
_NOT_BRACKETS = bytes(n for n in range(256) if n not in b"[]{}")
_TO_SQUARE = bytes.maketrans(b"{}", b"[]")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def media_type(request: Request) -> str:
    """The body's media type, lower case and without parameters; UTF-8 is the only charset."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise MediaTypeRefused("The body is compressed.", hint="Send it as it is.")
    kind, *parameters = request.headers.get("content-type", "").split(";")
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "charset" and value.strip('" ').lower() not in {"utf-8", "us-ascii"}:
            raise MediaTypeRefused(f"The charset {value} is not taken.", hint="Send UTF-8.")
    return kind.strip().lower()


async def read(request: Request, limits: Limits) -> bytes:
    """The whole body, as UTF-8. Raises BodyTooLarge, BodyTooSlow or RequestRefused."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limits.body_bytes:
        raise _too_large(limits)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                size += len(part)
                if size > limits.body_bytes:
                    raise _too_large(limits)
                parts.append(part)
    except TimeoutError as error:
        raise BodyTooSlow(
            f"The body did not arrive within {limits.body_seconds:g} s.",
            hint="Nothing was done; send smaller batches.",
        ) from error
    except ClientDisconnect as error:
        raise RequestRefused("The body ended early; nothing was done.") from error
    body = b"".join(parts)
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise RequestRefused(
            f"The body is not UTF-8: byte {error.start}.", hint="Send UTF-8."
        ) from error
    return body


def _too_large(limits: Limits) -> BodyTooLarge:
    return BodyTooLarge(
        f"The body is larger than {limits.body_bytes:,} bytes.",
        hint="Nothing was done; split it into several requests.",
    )


def check_json(text: bytes, deepest: int, what: str) -> None:
    """Refuses JSON that nests too deep, or holds what Postgres cannot. It must be well formed."""
    if text.count(b"{") + text.count(b"[") > deepest and _depth_exceeds(text, deepest):
        raise LimitExceeded(f"{what} nests more than {deepest} levels.", hint="Flatten it.")
    if b"\\u0000" in text and _NUL.search(text):
        raise InvalidEvent(
            f"{what} holds the character NUL, which Postgres cannot store.", hint="Remove it."
        )


def _depth_exceeds(text: bytes, deepest: int) -> bool:
    """Takes off one level of brackets at a time; what is left after ``deepest`` is too deep."""
    brackets = _STRINGS.sub(b"", text).translate(_TO_SQUARE, _NOT_BRACKETS)
    for _ in range(deepest):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)
