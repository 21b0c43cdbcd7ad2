"""The referee's side: a command is decided by the rules; its rows and its facts commit together."""

from __future__ import annotations

from datetime import UTC, datetime

from examples.football.app import DAY_SECONDS, Football
from examples.football.books import note
from examples.football.domain import Ended
from headwater import Accepted, Command, Rejection, Transaction


async def decide(
    football: Football,
    command: Command,
    *,
    at: datetime | None = None,
    request: str | None = None,
    on_air_seconds: float = DAY_SECONDS,
) -> Accepted | Rejection:
    """What the rules make of a command. ``request`` tells one that comes again, on a bad line, from another one."""

    async def beside(tx: Transaction, accepted: Accepted) -> None:
        await note(tx, accepted.events)
        for event in accepted.events:
            if isinstance(event, Ended):
                await tx.enqueue(football.go_off_air(event.match), delay_seconds=on_air_seconds)

    return await football.app.do(
        command, occurred_at=at or datetime.now(UTC), idempotency_key=request, beside=beside
    )
