"""Workers and relays killed by SIGKILL at every named point: each step of a saga is there once, and none is left half done."""

from __future__ import annotations

import asyncio
import random
import signal
from functools import partial

import killed
import pytest
import saga_shop
from jobs_shop import until
from saga_shop import Paid, Placed, Released, Reserved, Shipped, make

from headwater.testing.faults import SAGA_POINTS

pytestmark = pytest.mark.postgres

PLANS = {"1": "rprws", "2": "rzx", "3": "prs", "4": "rp!", "5": "trs"}
RESERVED = {"1": 4, "2": 1, "3": 3, "4": 3, "5": 1}


@pytest.fixture(autouse=True)
def _fresh():
    saga_shop.clear()


process = partial(killed.process, saga_shop)


async def begun(app):
    await app.deploy()
    for order, plan in PLANS.items():
        await app.append(Placed(order, plan))
    await app.append(Paid("p1", "1"))


async def shipped(app, order):
    found = await app.log.stream(f"order/{order}", tenant="main")
    return any(isinstance(each.event, Shipped) for each in found)


async def all_ended(app, but=""):
    async def ended():
        found = [one for one in await app.sagas_now.instances(ended=True) if one.id != but]
        return len(found) == len(PLANS) and all(one.ended_at for one in found) and found

    return {one.id: one.state for one in await until(ended, seconds=90)}


async def assert_once(app, but=""):
    """Every order reserved what its plan says, once; what failed has it all released, once."""
    states = await all_ended(app, but)
    assert states == {"1": "done", "2": "compensated", "3": "done", "4": "compensated", "5": "done"}
    reserved: dict[str, int] = dict.fromkeys(PLANS, 0)
    released: dict[str, int] = dict.fromkeys(PLANS, 0)
    for item in ("book", "pen", "ink"):
        seats = []
        for each in await app.log.stream(f"stock/{item}", tenant="main"):
            if each.event.order == but:
                continue
            if isinstance(each.event, Reserved):
                reserved[each.event.order] += 1
                seats.append(each.event.seat)
            elif isinstance(each.event, Released):
                released[each.event.order] += 1
    assert reserved == RESERVED
    assert released == {o: n if states[o] == "compensated" else 0 for o, n in RESERVED.items()}
    for order, plan in PLANS.items():
        sent = [
            e
            for e in await app.log.stream(f"order/{order}", tenant="main")
            if isinstance(e.event, Shipped)
        ]
        assert len(sent) == (plan[-1] == "s")
        done = [
            e.event
            for e in await app.log.stream(f"saga/fulfil/{order}", tenant="main")
            if e.type == "saga.step_done"
        ]
        assert len({one.step for one in done}) == len(done)
    assert (await app.stored("sagas").verify()).equal


@pytest.mark.parametrize(
    ("point", "at_call"), list(zip(SAGA_POINTS, (6, 2, 1, 6, 6, 2, 1, 1), strict=True))
)
async def test_killed_at_a_named_point(database18, point, at_call):
    """Another process goes on exactly where the first one was."""
    async with make(database18.url) as app:
        await begun(app)
        async with process(database18, point, at_call) as killed:
            assert await asyncio.wait_for(killed.wait(), 60) == -signal.SIGKILL
        async with app.relay(), app.working():
            await assert_once(app)


async def test_a_crash_that_takes_back_who_runs_an_instance_stops_it_for_nobody(database18):
    """That is committed without waiting for the disk: the job that goes on finds itself a stranger, and takes it anew."""
    async with make(database18.url) as app:
        await app.deploy()
        gate = saga_shop.gates["1"] = asyncio.Event()
        async with app.relay(), app.working():
            await app.append(Placed("1", "rcs"))

            async def charging():
                return saga_shop.calls

            await until(charging, seconds=60)
            with database18.admin() as admin:
                (taken,) = admin.execute("SELECT job FROM headwater.sagas").fetchone()
                assert taken is not None
                admin.execute("UPDATE headwater.sagas SET job = NULL, fence = 0")
            gate.set()

            async def ended():
                return [
                    one.state for one in await app.sagas_now.instances(ended=True) if one.ended_at
                ]

            assert await until(ended, seconds=60) == ["done"]
        assert {call.partition(" main/")[0] for call in saga_shop.calls} == {"charge 1"}
        assert len(set(saga_shop.calls)) == 1  # asked again under its key
        assert len(await app.log.read(tenant="main", types=["stock.reserved"])) == 1
        assert await shipped(app, "1")


async def test_cut_off_and_back(database18):
    """A worker that stands still past its lease and then goes on finds what it was at done, and does none of it again."""
    async with make(database18.url) as app:
        await begun(app)
        async with process(database18, "relays not", 0) as stopped:
            await stopped.stdout.readline()
            async with app.relay():

                async def under_way():
                    return await app.log.read(tenant="main", types=["stock.reserved"])

                await until(under_way)
                stopped.send_signal(signal.SIGSTOP)
                async with app.working():
                    await all_ended(app)
                    stopped.send_signal(signal.SIGCONT)
                    await app.append(Placed("6", "rs"))
                    await until(lambda: shipped(app, "6"))
                    await assert_once(app, but="6")


async def test_killed_again_and_again(database18):
    """A seeded schedule: whatever the moment, the next process goes on."""
    chance = random.Random(7)
    async with make(database18.url) as app:
        await begun(app)
        for _ in range(2):
            point = chance.choice(SAGA_POINTS)
            async with process(
                database18, point, chance.randint(1, 3) if "apply" not in point else 1
            ) as killed:
                ended = asyncio.create_task(killed.wait())
                done = asyncio.create_task(all_ended(app))
                await asyncio.wait({ended, done}, return_when=asyncio.FIRST_COMPLETED)
                if done.done():
                    done.result()
                done.cancel()
        async with app.relay(), app.working():
            await assert_once(app)
