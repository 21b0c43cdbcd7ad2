"""The page's files, read once, and the headers that keep anything else out of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

# Nothing from elsewhere, nothing inline, and no text that becomes markup: events hold what anybody wrote.
_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}

HEADERS = {
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""What every file is served with."""


def page_routes() -> list[BaseRoute]:
    """The page at ``/``, its files under ``/console/``. It needs no token and shows nothing without one."""
    folder = files("headwater.entrances.console").joinpath("static")
    routes: list[BaseRoute] = []
    for path, file in _below(folder):
        where = "/" if path == "index.html" else f"/console/{path}"
        suffix = path[path.rindex(".") :]
        routes.append(
            Route(where, _File(file.read_bytes(), _TYPES[suffix]).respond, methods=["GET"])
        )
    return routes


def _below(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.is_dir():
            yield from _below(file, f"{prefix}{file.name}/")
        else:
            yield prefix + file.name, file


class _File:
    """One file, under a tag that changes when it does."""

    def __init__(self, body: bytes, media_type: str) -> None:
        self._body, self._media_type = body, media_type
        self._headers = HEADERS | {"ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"'}

    async def respond(self, request: Request) -> Response:
        if request.headers.get("if-none-match") == self._headers["ETag"]:
            return Response(None, 304, self._headers)
        return Response(self._body, 200, self._headers, self._media_type)
