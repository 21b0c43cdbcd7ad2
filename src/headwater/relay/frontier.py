"""How far the log may be read, as one process knows it."""

from __future__ import annotations

import asyncio


class Frontier:
    """The highest watermark seen. Whoever learns of a newer one says so; views wait for it here."""

    def __init__(self) -> None:
        self.position = -1
        self._moved = asyncio.Event()

    def advance(self, position: int) -> None:
        """Tells of a watermark; a lower one changes nothing."""
        if position > self.position:
            self.position = position
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()

    def reset(self, position: int) -> None:
        """Sets the position, lower too: of a view that may start over, or a log that lost its end."""
        self.position = min(self.position, position)
        self.advance(position)

    async def beyond(self, position: int) -> int:
        """The watermark, once it is beyond a position."""
        while self.position <= position:
            await self._moved.wait()
        return self.position
