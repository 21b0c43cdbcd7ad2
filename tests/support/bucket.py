"""Buckets of a test's own, on moto's server: S3's protocol over a free port of this machine."""

from __future__ import annotations

import itertools
import logging
import urllib.request

from moto.server import ThreadedMotoServer

_numbers = itertools.count(1)
SERVER_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")  # fmt: skip


class BucketServer:
    """What was written is kept in this process, so a server that was stopped still has it."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._port = 0
        self._server: ThreadedMotoServer | None = None
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
        self._server = ThreadedMotoServer("127.0.0.1", self._port, verbose=False)
        self._server.start()
        self._port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.stop()
