"""How fast personal fields are sealed and opened, and what they cost an append."""

from __future__ import annotations

import time
from statistics import median
from typing import Annotated

from bench.appends import rate
from bench.ground import Figure, Ground, alternating
from headwater import App, Event, Settings
from headwater.events import Personal
from headwater.personal import MasterKeys

CLIENTS = 16
PEOPLE = 1_000
FIELDS = 20_000


class Plain(Event, type="bench.plain", stream="plain/{person}"):
    person: str
    mail: str
    name: str


class Sealed(Event, type="bench.sealed", stream="sealed/{person}"):
    person: str
    mail: Annotated[str, Personal("person")]
    name: Annotated[str, Personal("person")]


async def personal(ground: Ground, rounds: int) -> list[Figure]:
    """Fields a second with warm keys, in one process; and appends with two personal fields beside two plain ones."""
    async with ground.app() as (shop, _):
        settings = Settings(
            database_url=shop.settings.database_url, pool_size=40, master_key=MasterKeys.new("m")
        )
        app = App("bench", events=[Plain, Sealed], tenant="main", settings=settings)
        async with app:
            await app.deploy()
            events = [Sealed(f"p{n % PEOPLE}", f"mail{n}@example.org", f"Name {n}") for n in range(FIELDS // 2)]  # fmt: skip
            sealed = await app.seal(*events)
            sealing, opening = [], []
            for _ in range(rounds):
                began = time.perf_counter()
                await app.seal(*events)
                middle = time.perf_counter()
                await app.open_sealed(sealed)
                sealing.append(FIELDS / (middle - began))
                opening.append(FIELDS / (time.perf_counter() - middle))

            async def append_sealed(number: int, turn: int) -> None:
                await app.append(Sealed(f"p{(number + CLIENTS * turn) % PEOPLE}", "mail@example.org", "A Name"))  # fmt: skip

            async def append_plain(number: int, turn: int) -> None:
                await app.append(Plain(f"p{(number + CLIENTS * turn) % PEOPLE}", "mail@example.org", "A Name"))  # fmt: skip

            done, limit = await alternating(
                rounds, lambda: rate(append_sealed, CLIENTS), lambda: rate(append_plain, CLIENTS)
            )
    return [
        Figure("personal fields sealed, warm keys", median(sealing), "fields/s", None, "100,000", median(sealing) >= 100_000),
        Figure("personal fields opened, warm keys", median(opening), "fields/s", None, "100,000", median(opening) >= 100_000),
        Figure("append with two personal fields, beside two plain ones", done, "events/s", limit, "0.7", done >= 0.7 * limit),
    ]  # fmt: skip
