"""Serving the API with uvicorn: on one address, within the limits, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import logging
import resource
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from headwater.app import App
from headwater.entrances.http.asgi import router
from headwater.entrances.http.limits import Limits
from headwater.entrances.http.service import Service
from headwater.errors import SettingError

DEFAULT_ADDRESS = "127.0.0.1:8470"
_BACKLOG = 2048
_OTHER_FILES = 512
"""Open files of a process that are no connections of clients: pools, stores, logs."""

_log = logging.getLogger("headwater.http")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that runs: where, and the token that lives as long as it does."""

    url: str
    local_token: str | None = field(repr=False)
    service: Service


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine as asyncio.run does, on uvloop: about a third less CPU for each request.

    What the process has made by then stays, so the garbage collector does not stop it for some 30 ms to look it through.
    """
    gc.freeze()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def listen(address: str) -> socket.socket:
    """A socket bound to ``HOST:PORT``; port 0 lets the system choose. Raises SettingError."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or int(port) > 65535:
        raise SettingError(
            f"{address!r} is no address to listen on.",
            hint="Write HOST:PORT, such as 127.0.0.1:8470.",
        )
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(where)
        bound.listen(_BACKLOG)  # at once: two that are only bound do not see each other
    except OSError as error:
        raise SettingError(
            f"Nothing can listen on {address}: {error.strerror or error}.",
            hint="Choose another address with --http HOST:PORT.",
        ) from error
    bound.setblocking(False)
    return bound


def is_loopback(bound: socket.socket) -> bool:
    """Whether only this machine can reach the socket."""
    return ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback


@asynccontextmanager
async def serving(
    app: App, bound: socket.socket, *, limits: Limits | None = None
) -> AsyncIterator[Serving]:
    """Serves an open app until the end of the block.

    On loopback it makes a local token: for the app's only tenant, where it has one, and for
    operational pages. It lives as long as the server and is stored nowhere.
    """
    limits = limits or Limits()
    _allow_open_files(limits.connections)
    service = Service(app, limits)
    host, port = bound.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    local = service.gate.local(app.tenant) if is_loopback(bound) else None
    server = _Server(_config(service, limits))
    task = asyncio.create_task(server.serve(sockets=[bound]), name="http")
    try:
        yield Serving(url, local, service)
    finally:
        server.should_exit = True
        await service.close()
        await asyncio.gather(task, return_exceptions=True)
        bound.close()


def _allow_open_files(connections: int) -> None:
    """Lets the process hold that many connections, where the account may.

    Accounts begin with 1,024 open files on most systems, and may raise that themselves to a hard limit.
    """
    wanted = connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
    if allowed < wanted:
        _log.warning(
            "this process may open %d files, so fewer than %d connections: raise `ulimit -Hn` to %d",
            allowed, connections, wanted,
        )  # fmt: skip


def _config(service: Service, limits: Limits) -> uvicorn.Config:
    bounded = type(
        "Bounded", (_BoundedHttp,),
        {"header_bytes": limits.header_bytes, "header_seconds": limits.header_seconds},
    )  # fmt: skip
    return uvicorn.Config(
        router(service),
        http=bounded,
        ws="websockets-sansio",
        ws_max_size=limits.message_bytes,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,  # it would hold tickets
        server_header=False,
        proxy_headers=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=limits.keep_alive_seconds,
        timeout_graceful_shutdown=limits.drain_seconds,
    )


class _Server(uvicorn.Server):
    """Leaves signals to the command that runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _BoundedHttp(HttpToolsProtocol):
    """Ends a connection whose request line and headers are too large or come too slowly."""

    header_bytes: int
    header_seconds: float
    _seen = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._timer is not None:
            self._seen += len(data)
        super().data_received(data)
        if self._timer is not None and self._seen > self.header_bytes:
            self.transport.close()

    def on_message_begin(self) -> None:
        self._await_headers()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._headers_came()
        super().on_headers_complete()

    def _await_headers(self) -> None:
        if self._timer is None:
            self._seen = 0
            self._timer = self.loop.call_later(self.header_seconds, self._too_slow)

    def _headers_came(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        self.transport.close()
