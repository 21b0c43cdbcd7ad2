"""The process that owns an embedded engine: chDB behind the part of ClickHouse's HTTP that we use.

``python -m headwater.stores.clickhouse.owner FOLDER IDLE_SECONDS``. chDB allows one process for a folder.
Whoever needs the engine starts an owner; the one that gets the folder's lock serves all, on a private unix
socket, and ends by itself when nobody has asked for a while. The lock is the kernel's, so a kill frees it.
The only module that imports ``chdb``.
"""

from __future__ import annotations

import os
import re
import socketserver
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from headwater.stores.clickhouse.placement import Placement

_NOT_SETTINGS = frozenset({
    "query", "database", "session_id", "session_timeout", "session_check", "query_id", "quota_key",
    "wait_end_of_query", "client_protocol_version", "role", "compress", "decompress", "user", "password",
    "default_format", "buffer_size", "http_headers_progress_interval_ms", "send_progress_in_http_headers",
    "cancel_http_readonly_queries_on_client_close", "enable_http_compression",
})  # fmt: skip
_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_INPUT = re.compile(r"\binput\(", re.IGNORECASE)
_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*\Z", re.IGNORECASE)
_CODE = re.compile(r"Code: (\d+)")


class Refused(Exception):
    """What the engine says against a statement."""


class Engine:
    """chDB, one statement at a time."""

    def __init__(self, placement: Placement) -> None:
        from chdb.session import Session

        placement.data.mkdir(mode=0o700, exist_ok=True)
        self._body = placement.socket.parent / "body"
        self._turn = threading.Lock()
        opened: Any = Session
        self._session: Any = opened(str(placement.data))

    def close(self) -> None:
        """Lets go of the data."""
        with self._turn:
            self._session.close()

    def run(self, parameters: Mapping[str, str], body: bytes) -> bytes:
        """The answer to a request, as ClickHouse's HTTP interface would give it. Raises Refused."""
        statement = parameters.get("query", "")
        if not statement:
            statement, body = body.decode(), b""
        bound = {k[6:]: v for k, v in parameters.items() if k.startswith("param_")}
        settings = {
            name: value
            for name, value in parameters.items()
            if name not in _NOT_SETTINGS and not name.startswith("param_")
        }
        with self._turn, self._set(settings), self._inserted(statement, body) as whole:
            return self._query(whole, parameters.get("default_format", "TabSeparated"), bound)

    def _query(self, statement: str, form: str, bound: Mapping[str, str]) -> bytes:
        try:
            answer: bytes = self._session.query(statement, form, params=dict(bound)).bytes()
        except Exception as error:  # chDB has several, some of them RuntimeError
            raise Refused(str(error)) from error
        return answer

    @contextmanager
    def _set(self, settings: Mapping[str, str]) -> Iterator[None]:
        """Settings for one statement."""
        for name, value in settings.items():
            if not _NAME.match(name):
                raise Refused(f"Code: 115. {name!r} is not a setting.")
            quoted = value.replace("\\", "\\\\").replace("'", "\\'")
            self._query(f"SET {name} = '{quoted}'", "Null", {})
        try:
            yield
        finally:
            for name in settings:
                self._query(f"SET {name} = DEFAULT", "Null", {})

    @contextmanager
    def _inserted(self, statement: str, body: bytes) -> Iterator[str]:
        """A statement that reads its request's body.

        chDB has no body: the statement's ``input(...)`` becomes the same rows in a file beside the socket.
        """
        if not body:
            yield statement
            return
        form = _FORMAT.search(statement)
        called = _INPUT.search(statement)
        if form is None or called is None:
            raise Refused(
                "Code: 62. Data comes with INSERT ... SELECT ... FROM input(...) FORMAT only."
            )
        try:
            self._body.write_bytes(body)
            source = f"file('{self._body}', '{form[1]}', "
            yield statement[: called.start()] + source + statement[called.end() : form.start()]
        finally:
            self._body.unlink(missing_ok=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.client_address = ("local", 0)

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self._read()
        parts = urlsplit(self.path)
        if parts.path in {"/ping", "/"} and not parts.query and not body:
            self._answer(200, b"Ok.\n")
            return
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
        try:
            with self.server.working():
                answer = self.server.engine.run(parameters, body)
        except Refused as error:
            self._refuse(str(error))
        else:
            self._answer(200, answer)

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            blocks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                blocks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(blocks)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _refuse(self, reason: str) -> None:
        found = _CODE.search(reason)
        code = found[1] if found else "1000"
        self._answer(500, reason.encode(), {"X-ClickHouse-Exception-Code": code})

    def _answer(self, status: int, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-ClickHouse-Timezone", "UTC")
        self.send_header("X-ClickHouse-Summary", "{}")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Says nothing of each request."""


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, placement: Placement, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self._asked = time.monotonic()
        self._at_work = 0
        self._count = threading.Lock()
        self._ended = threading.Event()
        self.engine = Engine(placement)
        self._path = placement.socket
        self._path.unlink(missing_ok=True)
        super().__init__(str(placement.socket), _Handler)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Counts a request, so that the owner does not end below it. Raises Refused once it ends."""
        with self._count:
            if self._ended.is_set():
                raise Refused("Code: 209. The owner of the engine has ended; ask again.")
            self._at_work += 1
        try:
            yield
        finally:
            with self._count:
                self._at_work -= 1
                self._asked = time.monotonic()

    def service_actions(self) -> None:
        """Ends once nobody has asked for a while; whoever came in before the socket went is served."""
        with self._count:
            idle = self._at_work == 0 and time.monotonic() - self._asked > self._idle_seconds
            if idle and not self._path.exists() and not self._ended.is_set():
                self._ended.set()
                threading.Thread(target=self.shutdown, daemon=True).start()
        if idle:
            self._path.unlink(missing_ok=True)  # others start the next owner; look once more

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of ours."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def own(folder: str, idle_seconds: float) -> None:
    """Serves a folder until nobody asks; returns at once where another owner answers."""
    placement = Placement.of(folder)
    placement.make()
    while (lock := placement.take()) is None:
        if placement.answers():
            return
        time.sleep(0.02)
    server = _Server(placement, idle_seconds)
    try:
        server.serve_forever(poll_interval=0.2)
    finally:
        # In this order: nobody new comes in, the data is whole, the next owner may begin.
        server.server_close()
        server.engine.close()
        os.close(lock)


if __name__ == "__main__":
    own(sys.argv[1], float(sys.argv[2]))
    # chDB's threads may outlive its session; what they held is closed.
    os._exit(0)
