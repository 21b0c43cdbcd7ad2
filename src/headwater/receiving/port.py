"""The port of buses as a receiver sees them."""

from __future__ import annotations

from typing import Protocol

from headwater.views.messages import Channel, Kept, Progress


class Incoming(Protocol):
    """What comes by one channel from a place on, in the channel's order, without a gap."""

    async def next(self) -> list[Kept | Progress]:
        """What has come since, once there is something.

        Raises StoreUnavailable once the order can no longer be vouched for: listen anew.
        """
        ...

    async def close(self) -> None:
        """Stops. Idempotent."""
        ...


class IncomingMessages(Protocol):
    """Channels that others publish to."""

    async def listen(self, channel: Channel, after: int) -> Incoming:
        """Listens to what comes after a sequence number; waits for a channel that is not there yet."""
        ...

    async def span(self, channel: Channel) -> tuple[int, int]:
        """The first and the last sequence number; (1, 0) where there is no channel yet."""
        ...
