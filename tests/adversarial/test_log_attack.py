"""Promise 2, prefix-complete order, under everything at once.

HEADWATER_ATTACK_EVENTS makes the attack longer, HEADWATER_ATTACK_SEED makes it another.
"""

from __future__ import annotations

import os

import pytest
from attack import Attack, attach_block, enter_block, kill_connections, kill_tickers
from doubles import WaitsForNobody

pytestmark = [pytest.mark.postgres, pytest.mark.adversarial]

EVENTS = int(os.environ.get("HEADWATER_ATTACK_EVENTS", "50000"))
SEED = int(os.environ.get("HEADWATER_ATTACK_SEED", "1"))
GIANT = 100_000


def faults():
    kills = [(share / 20, kill_connections(3)) for share in range(1, 20)]
    return [
        *kills,
        (0.5, kill_tickers),
        (0.01, attach_block(5)),
        (0.05, enter_block(1)),
        (0.3, enter_block(5)),
    ]


async def attack(database, *, events, giant, seed=SEED):
    """The attack, beside a write transaction that appends nothing and stays open all the while."""
    with database.admin() as unrelated:
        unrelated.execute("CREATE TABLE unrelated (n int)")
        unrelated.execute("BEGIN")
        unrelated.execute("INSERT INTO unrelated VALUES (1)")
        run = Attack(seed, database.url, database.admin_url, events, giant=giant, faults=faults())
        verdict = await run.run()
        unrelated.execute("COMMIT")
    assert not verdict.kinds, f"seed {seed}:\n{verdict}"
    assert len(run.committed) >= events
    assert min(run.ledger.deeds.values()) > 0
    assert run.ticker_starts > run.tickers
    assert {"p0", "p1"} <= {row.mark.partition("-")[0] for row in run.committed}
    return run


async def test_every_reader_sees_every_event_once_in_order(database18):
    run = await attack(database18, events=EVENTS + GIANT, giant=GIANT)
    blocks = {row.position >> 40 for row in run.committed}
    assert len(blocks) > 1


async def test_so_on_every_supported_postgres(database):
    await attack(database, events=5_000, giant=1_000, seed=SEED + 1)


async def test_the_attack_catches_a_ticker_that_waits_for_nobody(database18):
    run = Attack(
        SEED,
        database18.url,
        database18.admin_url,
        3_000,
        ticker_class=WaitsForNobody,
        patience_seconds=5,  # the tail may have missed the event that it ends at
    )
    verdict = await run.run()
    assert "missed" in verdict.kinds
    assert len(verdict.problems["missed"]) > 100
