"""What a crash may not take back: positions that a reader was shown."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from attack import Attack, crash
from doubles import PublishesInMemory
from scene import Scene

from headwater import App, Document, Event, Settings
from headwater.log import Ticker

pytestmark = [pytest.mark.postgres, pytest.mark.adversarial]

SEED = 7
LONG_SECONDS = 20.0


async def append_softly(scene, mark, ending="COMMIT"):
    session = await scene.session()
    await session.execute("SET synchronous_commit = off")
    await scene.begin(mark, session=session)
    await session.execute(ending)


@pytest.mark.parametrize(
    ("ticker_class", "ending", "kinds"),
    [
        (Ticker, "COMMIT", set()),
        (Ticker, "ROLLBACK", set()),
        (PublishesInMemory, "COMMIT", {"missed", "invented"}),
        (PublishesInMemory, "ROLLBACK", {"missed"}),
    ],
)
async def test_a_watermark_is_published_before_it_is_shown(
    durable_log, ticker_class, ending, kinds
):
    """Else the positions that a reader is past are drawn again."""
    async with Scene(durable_log) as scene:
        walwriter = durable_log.hold_back_wal()
        await append_softly(scene, "before", ending)
        ticker = ticker_class(scene.relay)
        await scene.settle(ticker)
        await scene.read(ticker.published)
        await asyncio.to_thread(durable_log.crash, walwriter)
    await read_on_after_the_crash(durable_log, scene, kinds)


async def test_nothing_is_shown_before_it_is_durable(durable_log):
    """A sequence shows its new value at once, not at the commit that makes it durable."""
    with durable_log.admin() as admin:
        for setting in ("commit_delay = 100000", "commit_siblings = 0"):  # a slow disk
            admin.execute(f"ALTER DATABASE {durable_log.name} SET {setting}")
    async with Scene(durable_log) as scene:
        walwriter = durable_log.hold_back_wal()
        await append_softly(scene, "shown")
        publishing = asyncio.create_task(scene.settle(Ticker(scene.relay)))
        while not scene.seen:
            await scene.read()
        await asyncio.to_thread(durable_log.crash, walwriter)
        await asyncio.gather(publishing, return_exceptions=True)
    await read_on_after_the_crash(durable_log, scene, set())


async def read_on_after_the_crash(durable_log, before, kinds):
    async with Scene(durable_log) as scene:
        scene.seen, scene.cursor = before.seen, before.cursor
        await scene.commit("after")
        await scene.settle(Ticker(scene.relay))
        await scene.read()
        assert scene.verdict().kinds == kinds, scene.verdict()


async def test_what_was_prepared_before_a_crash_is_waited_for_after_it(durable_log):
    """Its lock comes back under another name than the one it had."""
    async with Scene(durable_log) as scene:
        two_phases = await scene.begin("two phases")
        await two_phases.execute("PREPARE TRANSACTION 'survivor'")
        await asyncio.to_thread(durable_log.kill_and_start)
    async with Scene(durable_log) as scene:
        ticker = Ticker(scene.relay)
        survivor = await scene.commit("fast")
        await scene.settle(ticker)
        await scene.read()
        assert scene.marks == []
        await survivor.execute("COMMIT PREPARED 'survivor'")
        await scene.settle(ticker)
        await scene.read()
        assert scene.marks == ["two phases", "fast"]
        assert not scene.verdict().kinds


async def test_readers_agree_with_the_log_through_crashes(durable_log):
    """Kills and immediate restarts, two thirds of the sessions with synchronous_commit off."""
    restarts = [durable_log.kill_and_start, lambda: durable_log.postgres.restart("immediate")]
    random = Random(SEED)
    faults = [(random.random(), crash(restarts[n % 2])) for n in range(4)]
    attack = Attack(
        SEED, durable_log.url, durable_log.admin_url, 8_000, soft_commits=True, faults=faults
    )
    verdict = await attack.run()
    assert not verdict.kinds, f"seed {SEED}:\n{verdict}"
    assert attack.ledger.acknowledged
    assert attack.ledger.told_softly


class Counted(Event, type="crash.counted", stream="crash/{name}"):
    name: str


class Count(Document):
    seen: int = 0


async def test_a_view_whose_last_batch_was_lost_applies_it_again_though_nothing_follows(
    durable_log,
):
    """Views' commits do not wait for the disk; the relay may not wait for the next event to learn what a crash took back."""
    app = App(
        "crash", events=[Counted], tenant="main", settings=Settings(database_url=durable_log.url)
    )

    @app.fold(key="name")
    def counts(state: Count, _: Counted) -> Count:
        return state.but(seen=state.seen + 1)

    async with app:
        await app.deploy()
        written = await app.append(Counted("last"))
        # The sequence is on disk as it stands: after the crash no position is left out, so nothing moves the watermark.
        walwriter = durable_log.hold_back_wal()
        async with app.relay() as relay:
            relay.leases.seconds = LONG_SECONDS  # no renewal writes what the view has done
            await counts.get("last", at_least=written.token, timeout_seconds=60)
            await asyncio.to_thread(durable_log.crash, walwriter)
            with durable_log.admin() as admin:
                (position,) = admin.execute("SELECT position FROM headwater.checkpoints").fetchone()
            assert position < written.position  # it was lost
            assert await counts.get("last", at_least=written.token, timeout_seconds=60) == Count(1)
