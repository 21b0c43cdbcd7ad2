"""The relay, in a process of its own so that it does not share a core with those who are answered.

``python -m examples.classroom.relay`` drives the views until its standard input ends: however the process ends that
started it, this one ends too. ``headwater up --no-http`` does the same for a service of your own.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from examples.classroom.app import app
from headwater.entrances.http.server import run


@asynccontextmanager
async def relay_process() -> AsyncIterator[None]:
    """The relay, until the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "examples.classroom.relay", stdin=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    try:
        yield
    finally:
        process.stdin.close()
        await process.wait()


async def main() -> None:
    """Drives all views of the app."""
    async with app, app.relay():
        await asyncio.to_thread(sys.stdin.buffer.read)


if __name__ == "__main__":
    run(main())
