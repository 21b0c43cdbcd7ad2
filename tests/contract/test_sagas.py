"""Sagas on real Postgres: steps, waits, compensation, what operators do, changed code."""

from __future__ import annotations

import asyncio
import json
import os
import re
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import psycopg
import pytest
import saga_shop
from jobs_shop import until
from saga_shop import Paid, Placed, Refit, Released, Reserved, Shipped, calls, gates, jammed, make
from warm import warm

from headwater.errors import CommandDefinitionError, SagaRefused, UnknownSaga
from headwater.sagas.events import SagaStepDone

pytestmark = pytest.mark.postgres

FINISHED = ("done", "compensated", "abandoned", "stopped", "handed over", "paused")


@pytest.fixture(autouse=True)
def _fresh():
    saga_shop.clear()


@asynccontextmanager
async def running(database, **variant):
    """The shop, deployed, with a relay and workers."""
    async with make(database.url, **variant) as app:
        await app.deploy()
        async with app.relay(), app.working():
            yield app


async def state_of(app, name, *states):
    """The instance once it is in one of the states."""

    async def there():
        found = await app.sagas_now.instances(ended=True)
        return next((s for s in found if s.name == name and s.state in states), None)

    return await until(there)


async def placed(app, order, plan, *states):
    await app.append(Placed(order, plan))
    return await state_of(app, f"fulfil/{order}", *(states or FINISHED))


async def recorded(app, name):
    """What the instance's stream says, in short."""
    history = await app.sagas_now.show(name)
    return [record.type.removeprefix("saga.") for record in history.records]


async def passed(app, position):
    """Whether the view has come to a position."""
    return (await app.stored("sagas").verify()).position >= position


async def answers(app, name):
    """The positions of the events that its waits were given."""
    events = [e.event for e in await app.log.stream(f"saga/{name}", tenant="main")]
    return [e.position for e in events if isinstance(e, SagaStepDone) and e.kind == "wait"]


async def waits(app, count):
    """Whether the view holds so many waits, and they are those that the streams tell of."""
    verified = await app.stored("sagas").verify()
    return verified.equal and verified.rows == count


async def of(app, stream, *kinds):
    return [
        e.event for e in await app.log.stream(stream, tenant="main") if isinstance(e.event, kinds)
    ]


async def test_steps_waits_and_calls(database):
    """An event starts it, each step is recorded with what it did, and a wait is let go until its event comes."""
    async with running(database) as app:
        waiting = await placed(app, "1", "rcws", "waiting")
        assert waiting.detail == "step 3: wait payment.received"
        await until(lambda: waits(app, 1))
        await app.append(Paid("p0", "2"), Paid("p1", "1"))
        await state_of(app, "fulfil/1", "done")
        assert await recorded(app, "fulfil/1") == ["started", "step_done", "step_done", "waiting", "step_done", "step_done", "finished"]  # fmt: skip
        assert await of(app, "order/1", Shipped) == [Shipped("1", 1)]
        assert calls == ["charge 1 main/fulfil/1/2"]
        started = (await app.log.stream("saga/fulfil/1", tenant="main"))[0]
        assert started.metadata["cause"] == {"position": started.event.position}
        (shipped,) = [
            e for e in await app.log.stream("order/1", tenant="main") if e.type == "order.shipped"
        ]
        assert shipped.metadata["cause"] == {"saga": "saga/fulfil/1", "step": 4}
        assert shipped.metadata["correlation"] == started.metadata["correlation"]
        await until(lambda: waits(app, 0))


async def test_an_instance_is_started_once(database18):
    """The key names it: a second event starts no other. A command starts one too, once."""
    async with running(database18) as app:
        await placed(app, "1", "s", "done")
        await app.append(Placed("1", "s"))
        first = await app.do(Refit("argo", parts=2))
        again = await app.do(Refit("argo", parts=3))
        assert (first.duplicate, again.duplicate, again.positions) == (False, True, first.positions)
        await state_of(app, "refit/argo", "done")
        assert len(await of(app, "stock/part0", Reserved)) == 1
        await placed(app, "2", "s", "done")  # the second of order 1 was read before
        assert len(await of(app, "order/1", Shipped)) == 1
        assert len(await app.sagas_now.instances(ended=True)) == 3


async def test_rows_of_the_applications_own_commit_with_the_start_or_not_at_all(database18):
    async with make(database18.url) as app:
        await app.deploy()
        with database18.admin() as admin:
            admin.execute("CREATE TABLE public.refits (ship text PRIMARY KEY)")
            admin.execute("GRANT ALL ON public.refits TO PUBLIC")
            rows = "SELECT ship FROM public.refits ORDER BY 1"

            async def beside(tx, accepted, ship="argo"):
                assert accepted.positions
                await tx.connection.execute("INSERT INTO public.refits VALUES (%s)", (ship,))

            assert not (await app.do(Refit("argo", parts=2), beside=beside)).duplicate
            assert (await app.do(Refit("argo", parts=2), beside=beside)).duplicate
            with pytest.raises(psycopg.errors.UniqueViolation):
                await app.do(Refit("nina", parts=2), beside=beside)
            assert admin.execute(rows).fetchall() == [("argo",)]
        with pytest.raises(CommandDefinitionError, match="starts when it is recorded"):
            await app.do(Refit("nina", parts=2), occurred_at=datetime.now(UTC))
        assert not (await app.do(Refit("nina", parts=2))).duplicate


async def test_a_wait_meets_events_from_before_and_after(database18):
    """The first wait for a type looks back in the log, to the start; each event is given to an instance once."""
    async with make(database18.url) as app:
        await app.deploy()
        await app.append(Paid("p0", "1"))  # before it started: no answer
        await app.append(Placed("1", "zwws"))
        await app.append(Paid("p1", "1"))
        async with app.relay():
            await until(app.sagas_now.instances)
        async with app.relay(), app.working():  # the payment was read before anything waited
            first = await until(lambda: answers(app, "fulfil/1"))
            await until(lambda: waits(app, 1))
            written = await app.append(Paid("p2", "1"))
            await state_of(app, "fulfil/1", "done")
            assert await answers(app, "fulfil/1") == [*first, written.position]
        assert [
            type(e.event) for e in await app.log.read(first[0] - 1, tenant="main", max_rows=1)
        ] == [Paid]
        assert first[0] < written.position


async def test_a_wait_races_its_event(database18):
    """Events come while the instance registers its wait; none is missed, none counts twice."""
    async with running(database18) as app:
        orders = [str(n) for n in range(40)]

        async def order(n):
            await app.append(Placed(n, "ws"))
            await app.append(Paid(f"p{n}", n))

        await asyncio.gather(*[order(n) for n in orders])
        for n in orders:
            await state_of(app, f"fulfil/{n}", "done")
        assert [len(await of(app, f"order/{n}", Shipped)) for n in orders] == [1] * 40


async def test_time_passes(database18):
    """A timer and a timeout go on by themselves; a call that fails is tried again at its time."""
    async with running(database18) as app:
        await placed(app, "1", "zzs", "done")
        await placed(app, "2", "ts", "done")
        await placed(app, "3", "fs", "done")
        assert await of(app, "order/2", Shipped) == [Shipped("2", -1)]
        assert len(calls) == 3
        assert len(set(calls)) == 1  # the same idempotency key
        assert (await recorded(app, "fulfil/3"))[1:4] == ["step_failed", "step_failed", "step_done"]


async def test_parallel_steps(database18):
    """Branches run beside each other and a replay meets them in the same order."""
    async with running(database18) as app:
        await app.do(Refit("argo", parts=12))
        await placed(app, "1", "pzps", "done")
        await state_of(app, "refit/argo", "done")
        assert {len(await of(app, f"stock/part{n}", Reserved)) for n in range(12)} == {1}
        assert await of(app, "order/1", Shipped) == [Shipped("1", 1 + 1 + 2 + 2)]


async def test_compensation_in_reverse(database18):
    """What failed is undone, the last first; a command that was rejected left nothing to undo."""
    async with running(database18) as app:
        state = await placed(app, "1", "rprcx", "compensated")
        assert "There is none left" in state.detail
        records = (await app.sagas_now.show("fulfil/1")).records
        undone = [
            int(re.search(rb'"step": (\d+)', bytes(r.data))[1])
            for r in records
            if r.type == "saga.undone"
        ]
        assert undone == [5, 4, 3, 2, 1]
        assert calls == ["charge 1 main/fulfil/1/5", "refund receipt 1 main/fulfil/1/5/undo"]
        assert len(await of(app, "stock/book", Released)) == 2
        assert (await placed(app, "2", "r!", "compensated")).detail == "SagaFailed: enough"


async def test_handed_over_to_a_person(database18):
    """What cannot be undone says what a person must do; once it is done the rest is undone."""
    async with running(database18) as app:
        jammed.add("book")
        state = await placed(app, "1", "cr!", "handed over")
        assert state.todo == "Free order 1"
        assert "Release was rejected: It cannot be released." in state.detail
        assert (await recorded(app, "fulfil/1")).count("undo_failed") == 2
        await app.sagas_now.retry("fulfil/1")
        handed = await state_of(app, "fulfil/1", "handed over")

        async def twice():
            return (await recorded(app, "fulfil/1")).count("handed_over") == 2

        await until(twice)
        assert handed.todo == "Free order 1"
        assert not [c for c in calls if c.startswith("refund")]
        await app.sagas_now.resolve("fulfil/1", note="freed by ada")
        await state_of(app, "fulfil/1", "compensated")
        assert [c for c in calls if c.startswith("refund")]
        with pytest.raises(SagaRefused, match="cannot be resolved: it is compensated"):
            await app.sagas_now.resolve("fulfil/1")
        with pytest.raises(UnknownSaga):
            await app.sagas_now.pause("fulfil/9")


async def test_paused_resumed_abandoned(database18):
    """A pause lets what is under way be recorded and nothing new begin; what is abandoned is undone if so asked."""
    async with running(database18) as app:
        gates["1"] = asyncio.Event()
        await app.append(Placed("1", "cs"))
        await until(lambda: bool(calls))
        assert await app.sagas_now.pause("fulfil/1") == "paused"
        gates["1"].set()

        async def kept():
            return (await recorded(app, "fulfil/1"))[-1] == "step_done"

        await until(kept)
        assert not await of(app, "order/1", Shipped)
        await app.sagas_now.resume("fulfil/1")
        await state_of(app, "fulfil/1", "done")
        assert len(calls) == 1
        await placed(app, "2", "rw", "waiting")
        assert await app.sagas_now.abandon("fulfil/2", undo=True) == "compensating"
        await state_of(app, "fulfil/2", "compensated")
        assert len(await of(app, "stock/book", Released)) == 1
        await placed(app, "3", "rw", "waiting")
        assert await app.sagas_now.abandon("fulfil/3") == "abandoned"
        await app.append(Paid("p3", "3"))
        await placed(app, "4", "s", "done")
        assert (await recorded(app, "fulfil/3"))[-1] == "abandoned"


async def test_a_bug_stops_it_until_it_is_mended(database18):
    """Whatever the code raises that says not that the saga failed stops it, with the line; nothing is undone."""
    async with running(database18) as app:
        state = await placed(app, "1", "rb", "stopped")
        assert re.search(r"KeyError: 'a bug' at .*saga_shop.py:\d+", state.detail)
        assert not await of(app, "stock/book", Released)
        await app.sagas_now.retry("fulfil/1")

        async def again():
            return (await recorded(app, "fulfil/1")).count("stopped") == 2

        await until(again)


async def test_a_changed_function_is_refused_with_the_line(database18):
    """A replay that asks for something else stops, and goes on once the change is taken back."""
    async with running(database18) as app:
        await placed(app, "1", "rws", "waiting")
    async with running(database18, variant="changed") as app:
        await app.append(Paid("p1", "1"))
        state = await state_of(app, "fulfil/1", "stopped")
        assert re.search(r"Recorded is step 1 \(do Reserve\); now .*saga_shop.py:\d+ asks for call charge", state.detail)  # fmt: skip
    async with running(database18) as app:
        await app.sagas_now.retry("fulfil/1")
        await state_of(app, "fulfil/1", "done")


async def test_versions_side_by_side(database18):
    """Instances finish on the function they began with; one whose function is gone says so and goes on when it is back."""
    async with running(database18) as app:
        await placed(app, "1", "rws", "waiting")
        await placed(app, "2", "rws", "waiting")
    async with running(database18, version=2, variant="alone") as app:
        await app.append(Paid("p1", "1"))

        async def told():
            return (await app.sagas_now.find("fulfil/1")).detail.startswith("It is version 1 of 'fulfil'; the app 'shop' has [2]")  # fmt: skip

        await until(told)
    async with running(database18, version=2) as app:
        await app.append(Paid("p2", "2"))
        await placed(app, "3", "rs", "done")
        await state_of(app, "fulfil/1", "done")
        await state_of(app, "fulfil/2", "done")
        assert [c.split()[1] for c in calls] == ["second"]
        assert {s.id: s.version for s in await app.sagas_now.instances(ended=True)} == {
            "1": 1,
            "2": 1,
            "3": 2,
        }


async def test_the_view_parks_what_cannot_start(database18):
    """An id that names no stream is parked, and nobody else waits for it. A rebuild starts nothing again."""
    async with running(database18, variant="thanks") as app:
        await app.append(Paid("p0", "a b"), Paid("p00", "2"))
        await state_of(app, "thank/2", "done")
        await placed(app, "1", "ws", "waiting")
        view = app.stored("sagas")
        assert (await view.verify()).parked_keys == 1
        await view.rebuild()
        await app.append(Paid("p", "9"))  # a relay learns of it with the next event
        await until(lambda: waits(app, 1))
        await app.append(Paid("p1", "1"))
        await state_of(app, "fulfil/1", "done")
        assert (await recorded(app, "fulfil/1")).count("started") == 1


async def test_tenants_are_apart(database18):
    """The same key of two tenants is two instances; one's event does not wake the other."""
    async with running(database18, tenant=None) as app:
        for tenant in ("one", "two"):
            await app.append(Placed("1", "ws"), tenant=tenant)
        await until(lambda: waits(app, 2))
        await app.append(Paid("p1", "1"), tenant="one")

        async def states():
            found = await app.sagas_now.instances(ended=True)
            return {one.tenant: one.state for one in found} == {"one": "done", "two": "waiting"}

        await until(states)
        with pytest.raises(SagaRefused, match="Several tenants"):
            await app.sagas_now.show("fulfil/1")
        assert await app.sagas_now.pause("fulfil/1", tenant="two") == "paused"
        async with app.database().transaction("one") as connection:
            seen = await (
                await connection.execute("SELECT DISTINCT tenant FROM headwater.sagas")
            ).fetchall()
        assert seen == [("one",)]


async def test_the_command_line(database18):
    """Operators list, show and steer instances; a saga that is declared no more is retired."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")}
    environment["HEADWATER_DATABASE_URL"] = database18.url

    async def headwater(*arguments, exits=0):
        done = await asyncio.to_thread(warm().run, ["sagas", *arguments], env=environment)
        assert done.returncode == exits, done.stderr
        return done.stdout

    async with running(database18) as app:
        jammed.add("book")
        await placed(app, "1", "r!", "handed over")
        await placed(app, "2", "w", "waiting")
        (handed,) = json.loads(
            await headwater("list", "fulfil", "--state", "handed over", "--json")
        )
        assert (handed["saga"], handed["todo"]) == ("fulfil/1", "Free order 1")
        shown = await headwater("show", "fulfil/1")
        assert "fulfil/1, version 1: handed over" in shown
        assert "To do: Free order 1" in shown
        assert (
            await headwater("resolve", "fulfil/1", "--note", "by ada") == "fulfil/1: compensating\n"
        )
        await state_of(app, "fulfil/1", "compensated")
        await headwater("retry", "fulfil/1", exits=2)
        assert await headwater("pause", "fulfil/2") == "fulfil/2: paused\n"
        assert await headwater("resume", "fulfil/2") == "fulfil/2: running\n"
        assert await headwater("abandon", "fulfil/2") == "fulfil/2: abandoned\n"
        assert await headwater("retire", "fulfil") == "fulfil: starts no more\n"
        await headwater("retire", "fulfil", exits=2)
        written = await app.append(Placed("3", "s"))
        await until(lambda: passed(app, written.position))
        await headwater("show", "fulfil/3", exits=2)
