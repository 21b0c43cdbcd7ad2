"""The relay as a process of its own: drives the views until its standard input ends.

Whoever starts it holds the other end. However that process ends, the relay ends with it.
"""

from __future__ import annotations

import asyncio
import sys

from examples.airport import elsewhere
from examples.airport.app import app


async def main() -> None:
    """Drives all views of the app."""
    elsewhere.declare()
    async with app, app.relay():
        await asyncio.to_thread(sys.stdin.buffer.read)


if __name__ == "__main__":
    asyncio.run(main())
