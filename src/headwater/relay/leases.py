"""Who drives what: leases with fencing tokens, in the log's database.

A lease runs out by the database's clock unless its holder renews it, and at once when the session that
took or renewed it last is gone: a process that was killed is not waited for. Taking one raises its fence; every write carries the fence, so a holder that was paused past its lease and goes on
finds its writes refused. Correctness lies in the fence; the time only decides how soon another takes
over.
"""

from __future__ import annotations

import math
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from headwater.log.database import Connection
from headwater.log.statements import Statements

SQL = Statements("headwater.relay")


@dataclass(slots=True)
class Standing:
    """What a holder says of itself when it renews: running, retrying, stopped or stale, and why."""

    state: str = "running"
    detail: str | None = None


@dataclass(slots=True)
class Leases:
    """The leases that one relay holds. ``holder`` names the relay, its host and process."""

    seconds: float = 5.0
    holder: str = field(
        default_factory=lambda: f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
    )

    async def acquire(self, connection: Connection, name: str) -> int | None:
        """Takes a lease that is free; its fence, or None while another holds it."""
        cursor = await connection.execute(
            SQL["relay.acquire"], {"name": name, "holder": self.holder, "seconds": self.seconds}
        )
        row = await cursor.fetchone()
        return None if row is None else row[0]

    async def renew(self, connection: Connection, held: Mapping[str, Standing]) -> set[str]:
        """Renews leases; those that are still ours."""
        if not held:
            return set()
        cursor = await connection.execute(
            SQL["relay.renew"],
            {
                "names": list(held),
                "states": [standing.state for standing in held.values()],
                "details": [standing.detail for standing in held.values()],
                "holder": self.holder,
                "seconds": self.seconds,
            },
        )
        return {row[0] for row in await cursor.fetchall()}

    async def release(
        self, connection: Connection, name: str, standing: Standing | None = None
    ) -> None:
        """Gives a lease back, so that another need not wait for its end; says why."""
        said = standing or Standing("released")
        await connection.execute(
            SQL["relay.release"],
            {"name": name, "holder": self.holder, "state": said.state, "detail": said.detail},
        )

    async def share(self, connection: Connection, views: Sequence[str]) -> int:
        """How many of its views this relay may hold, so that all relays alive hold about as many.

        Each relay says in its own lease which views it drives; a view that several drive counts for
        each of them by its part.
        """
        await connection.execute(SQL["relay.forget_relays"])
        cursor = await connection.execute(SQL["relay.live_relays"])
        alive = [set((detail or "").split()) for (detail,) in await cursor.fetchall()]
        parts = (Fraction(1, max(1, sum(view in driven for driven in alive))) for view in views)
        return math.ceil(sum(parts, start=Fraction(0)))
