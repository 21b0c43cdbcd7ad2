"""Does the suite catch a broken protocol? Each scene is played with the real one, which passes, and
with a double that breaks one part of it, which must not."""

from __future__ import annotations

import pytest
from doubles import HoldersBeforePosition, HoldersByPid, ReadsAhead, TickerDouble, WaitsForNobody
from marked import APPEND, prepare
from scene import Scene

from headwater.log import Ticker

pytestmark = pytest.mark.postgres

SOUND: set[str] = set()
MISSED = {"missed"}


@pytest.fixture
async def scene(database18):
    await prepare(database18.url)
    async with Scene(database18) as scene:
        yield scene


@pytest.mark.parametrize(
    ("ticker_class", "kinds"), [(Ticker, SOUND), (TickerDouble, SOUND), (WaitsForNobody, MISSED)]
)
async def test_a_watermark_that_does_not_wait(scene, ticker_class, kinds):
    ticker = ticker_class(scene.relay)
    slow = await scene.begin("slow")
    await scene.commit("fast")
    await scene.settle(ticker)
    await scene.read()
    assert scene.marks == ([] if kinds == SOUND else ["fast"])
    await slow.execute("COMMIT")
    await scene.settle(ticker)
    await scene.read()
    assert scene.verdict().kinds == kinds, scene.verdict()


@pytest.mark.parametrize(
    ("ticker_class", "kinds"), [(TickerDouble, SOUND), (HoldersBeforePosition, MISSED)]
)
async def test_the_order_of_a_ticks_two_statements(scene, ticker_class, kinds):
    slow = await scene.session()

    async def append_once():
        if slow.info.transaction_status == slow.info.transaction_status.IDLE:
            await scene.begin("slow", session=slow)

    ticker = ticker_class(scene.relay, append_once)
    await ticker.tick()
    await scene.read()
    await slow.execute("COMMIT")
    await scene.settle(Ticker(scene.relay))
    await scene.read()
    assert scene.verdict().kinds == kinds, scene.verdict()


@pytest.mark.parametrize(
    ("ticker_class", "kinds"), [(Ticker, SOUND), (TickerDouble, SOUND), (HoldersByPid, MISSED)]
)
async def test_a_holder_known_by_its_pid_is_lost_when_it_prepares(scene, ticker_class, kinds):
    ticker = ticker_class(scene.relay)
    two_phases = await scene.begin("two phases")
    await ticker.tick()
    await two_phases.execute("PREPARE TRANSACTION 'two phases'")
    await scene.settle(ticker)
    await scene.read()
    await two_phases.execute("COMMIT PREPARED 'two phases'")
    await scene.settle(ticker)
    await scene.read()
    assert scene.verdict().kinds == kinds, scene.verdict()


@pytest.mark.parametrize(("ticker_class", "kinds"), [(TickerDouble, SOUND), (ReadsAhead, MISSED)])
async def test_a_position_taken_for_drawn_that_was_not(scene, ticker_class, kinds):
    ticker = ticker_class(scene.relay)
    await scene.commit("first")
    await ticker.tick()
    await scene.read()
    await scene.commit("second")
    await scene.settle(Ticker(scene.relay))
    await scene.read()
    assert scene.verdict().kinds == kinds, scene.verdict()


@pytest.mark.parametrize(("cache", "kinds"), [(1, SOUND), (20, MISSED)])
async def test_a_sequence_that_caches(scene, database18, cache, kinds):
    with database18.admin() as admin:
        admin.execute(f"ALTER SEQUENCE headwater.position_seq CACHE {cache}")
    ticker = Ticker(scene.relay)
    hoarder = await scene.commit("first of the hoard")
    await scene.commit("by another")
    await scene.settle(ticker)
    await scene.read()
    await scene.commit("second of the hoard", session=hoarder)
    await scene.settle(ticker)
    await scene.read()
    assert scene.verdict().kinds == kinds, scene.verdict()


@pytest.mark.parametrize(
    ("isolation", "kinds"), [("READ COMMITTED", SOUND), ("REPEATABLE READ", MISSED)]
)
async def test_watermark_and_rows_in_one_snapshot(scene, isolation, kinds):
    """The watermark belongs to no snapshot, so it may be newer than the rows."""
    await scene.reading.execute(f"BEGIN ISOLATION LEVEL {isolation}")
    await scene.rows(0)
    await scene.commit("after the snapshot")
    await scene.settle(Ticker(scene.relay))
    await scene.read()
    await scene.reading.execute("COMMIT")
    await scene.read()
    assert scene.verdict().kinds == kinds, scene.verdict()


@pytest.mark.parametrize(("rows_first", "kinds"), [(False, SOUND), (True, MISSED)])
async def test_rows_taken_before_the_watermark(scene, rows_first, kinds):
    """Else READ COMMITTED helps nothing."""
    upto = 2**60 if rows_first else await scene.watermark()
    rows = await scene.rows(upto)
    await scene.commit("in between")
    await scene.settle(Ticker(scene.relay))
    scene.take(rows, await scene.watermark() if rows_first else upto)
    await scene.read()
    assert scene.verdict().kinds == kinds, scene.verdict()


async def test_a_ticker_that_forgets_is_only_later(scene):
    slow = await scene.begin("slow")
    await scene.commit("fast")
    for _ in range(3):
        await Ticker(scene.relay).tick()
        await scene.read()
    assert scene.marks == []
    await slow.execute("COMMIT")
    await Ticker(scene.relay).tick()
    await scene.read()
    assert scene.marks == ["slow", "fast"]


async def test_a_rolled_back_subtransaction_still_holds_its_position(scene):
    """The first position is drawn inside a savepoint that is undone; the lock stays."""
    writer = await scene.begin()
    await writer.execute("SAVEPOINT one")
    await writer.execute(APPEND, {"line": "slow", "mark": "undone"})
    await writer.execute("ROLLBACK TO SAVEPOINT one")
    await scene.commit("fast")
    ticker = Ticker(scene.relay)
    await scene.settle(ticker)
    await scene.read()
    assert scene.marks == []
    await writer.execute("COMMIT")
    await scene.settle(ticker)
    await scene.read()
    assert scene.marks == ["fast"]
    assert scene.verdict().kinds == SOUND


async def test_two_tickers_never_lower_the_watermark(scene):
    first, second = Ticker(scene.relay), Ticker(await scene.session("headwater_relay"))
    slow = await scene.begin("slow")
    await first.tick()
    await slow.execute("COMMIT")
    await scene.commit("fast")
    await second.tick()
    high = await scene.watermark()
    await first.tick()
    assert await scene.watermark() >= high
    await scene.read()
    assert scene.marks == ["slow", "fast"]
