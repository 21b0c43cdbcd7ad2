"""How fast commands are decided, beside appending without a decision."""

from __future__ import annotations

import time
from decimal import Decimal

from bench.appends import rate
from bench.ground import Figure, Ground, alternating
from bench.shop import Place, Placed

CLIENTS = 16
STREAMS = 100_000


async def commands(ground: Ground, rounds: int) -> list[Figure]:
    """Commands on short streams by 16 clients, beside appends of the same events."""
    async with ground.app() as (app, _):
        base = time.time_ns()

        def order(number: int, turn: int) -> str:
            return f"o{(base + number + CLIENTS * turn) % STREAMS}"

        async def decided(number: int, turn: int) -> None:
            await app.do(Place(order(number, turn), Decimal(turn)))

        async def appended(number: int, turn: int) -> None:
            await app.append(Placed(order(number, turn), "c0", Decimal(turn), 0))

        await rate(appended, CLIENTS)  # the first streams
        done, limit = await alternating(
            rounds, lambda: rate(decided, CLIENTS), lambda: rate(appended, CLIENTS)
        )
    return [
        Figure(f"commands on short streams, {CLIENTS} clients, beside append", done, "commands/s", limit, "0.5", done >= 0.5 * limit),
    ]  # fmt: skip
