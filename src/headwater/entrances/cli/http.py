"""How ``headwater up`` serves HTTP, where the extra is installed."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from headwater.app import App
from headwater.entrances.cli import output
from headwater.errors import SettingError

DEFAULT_ADDRESS = "127.0.0.1:8470"


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Runs a command on the loop that serves HTTP best, where the extra is installed."""
    if importlib.util.find_spec("uvloop") is None:
        return asyncio.run(main)
    from headwater.entrances import http

    return http.run(main)


@asynccontextmanager
async def serving_http(app: App, address: str | None, *, off: bool) -> AsyncIterator[None]:
    """Serves the app until the end of the block, and says where.

    An address that was asked for must be free. The default one is given up with a note, since another
    process on this machine may serve it.
    """
    if off or (address is None and importlib.util.find_spec("uvicorn") is None):
        if not off:
            output.note("no HTTP: run pip install 'headwater[http]' for it")
        yield
        return
    from headwater.entrances import http

    try:
        bound = http.listen(address or DEFAULT_ADDRESS)
    except SettingError as error:
        if address is not None:
            raise
        output.note(f"no HTTP: {error.message}")
        yield
        return
    async with http.serving(app, bound) as server:
        output.say(f"serving {server.url}; the API is described at {server.url}/openapi.json")
        if server.local_token is not None:
            whose = f"tenant {app.tenant}" if app.tenant is not None else "operational pages only"
            output.say(f"local token, until this process ends ({whose}): {server.local_token}")
            output.say(f"look at it: {server.url}/#token={server.local_token}")
        else:
            output.say(f"look at it: {server.url}/, with a token of headwater token create")
        yield
