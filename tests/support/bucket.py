"""Buckets of a test's own, on moto's server: S3's protocol over a free port of this machine."""

from __future__ import annotations

import itertools
import logging
import threading
import urllib.request
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

_numbers = itertools.count(1)
SERVER_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")  # fmt: skip


class OneAtATime:
    """A WSGI application whose requests never overlap.

    S3 decides on `If-None-Match` and writes in one step; moto looks first and writes afterwards, so
    that two of its threads could both be the first.
    """

    def __init__(self, application: Any) -> None:
        self._application = application
        self._turn = threading.Lock()

    def __call__(self, environ: Any, start_response: Any) -> Any:
        with self._turn:
            return self._application(environ, start_response)


class BucketServer:
    """What was written is kept in this process, so a server that was stopped still has it."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._port = 0
        self._server: BaseWSGIServer | None = None
        self.start()

    @property
    def variables(self) -> dict[str, str]:
        """What a client finds in its environment."""
        said = (f"http://127.0.0.1:{self._port}", "true", "test", "test", "us-east-1")
        return dict(zip(SERVER_VARIABLES, said, strict=True))

    def bucket(self) -> str:
        """The name of a new, empty bucket."""
        name = f"lake-{next(_numbers)}"
        url = f"http://127.0.0.1:{self._port}/{name}"
        urllib.request.urlopen(urllib.request.Request(url, method="PUT")).close()
        return name

    def start(self) -> None:
        application = OneAtATime(DomainDispatcherApplication(create_backend_app))
        self._server = make_server("127.0.0.1", self._port, application, threaded=True)
        self._port = self._server.port
        self._serving = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._serving.start()

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            self._serving.join()
