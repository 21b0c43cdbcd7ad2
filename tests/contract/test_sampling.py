"""Verification by samples: slices of keys, which together are all of them."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from decimal import Decimal

import httpx
import pytest

from headwater import App, Document, Event, Settings, running
from headwater.entrances.http import listen, serving
from headwater.operations.health import examine, metrics_text
from headwater.relay import Leases
from headwater.testing.driving import drive, publish
from headwater.views.definition import Sample

pytestmark = pytest.mark.postgres


@pytest.fixture
def database(database18):
    """What is tested here does not hang on the version of Postgres."""
    return database18


class Paid(Event, type="bill.paid", stream="bill/{bill}"):
    bill: str
    amount: Decimal


class Bill(Document):
    paid: int = 0


def bills(url, **settings) -> App:
    app = App(
        "bills", events=[Paid], tenant="main", settings=Settings(database_url=url, **settings)
    )

    @app.fold(key="bill", name="bills")
    def evolve(state: Bill, event: Paid) -> Bill:
        return state.but(paid=state.paid + 1)

    app.sql("paid", sql="SELECT bill, count(*) AS events FROM bill.paid GROUP BY 1")
    app.sql("by_amount", sql="SELECT amount, count(*) AS events FROM bill.paid GROUP BY 1")
    return app


CORRUPT = {
    "bills": "UPDATE headwater_views.bills__1 SET document = '{\"paid\": 99}' WHERE key = 'b17'",
    "paid": "UPDATE headwater_views.paid__1 SET state_1 = 99 WHERE key_1 = 'b17'",
}


async def test_the_slices_are_all_keys_and_a_difference_is_in_one(database):
    async with bills(database.url) as app:
        await app.deploy()
        await app.append(
            *(
                Paid(f"b{n % 40}", Decimal(n % 9) if n % 2 else Decimal(f"{n % 9}.00"))
                for n in range(200)
            )
        )
        await publish(app)
        for fence, view in enumerate(CORRUPT, start=1):
            await drive(app, app.stored(view), fence)
            stored = app.stored(view)
            found = [await stored.verify(sample=Sample(8, number)) for number in range(8)]
            assert all(verified.equal for verified in found)
            assert sum(verified.rows for verified in found) == 40
            assert max(verified.rows for verified in found) < 20
            with database.admin() as admin:
                admin.execute(CORRUPT[view])
            found = [await stored.verify(sample=Sample(8, number)) for number in range(8)]
            (differing,) = (verified for verified in found if not verified.equal)
            assert {d.key.removeprefix("bill=") for d in differing.differences} == {"b17"}


async def test_keys_that_are_equal_are_in_one_slice(database):
    """However they are written: 1 and 1.00 are one group."""
    async with bills(database.url) as app:
        await app.deploy()
        await app.append(Paid("a", Decimal(1)), *(Paid("a", Decimal("1.00")) for _ in range(9)))
        await publish(app)
        view = app.stored("by_amount")
        await drive(app, view, 1)
        found = [await view.verify(sample=Sample(8, number)) for number in range(8)]
        assert all(verified.equal for verified in found)
        assert sum(verified.rows for verified in found) == 1


def test_a_sample_is_another_each_time():
    drawn = {Sample.of(0.01).number for _ in range(300)}
    assert Sample.of(0.01).slices == 100
    assert len(drawn) > 50
    assert drawn <= set(range(100))
    assert Sample.of(1) == Sample(1, 0)


# In the background -----------------------------------------------------------------------------------


def of_view(text, metric, view):
    """A metric's value of a view."""
    (line,) = (
        line for line in text.splitlines() if line.startswith(f'headwater_{metric}{{view="{view}"')
    )
    return float(line.rpartition(" ")[2])


@asynccontextmanager
async def service(app):
    """A client, with no relay."""
    async with (
        serving(app, listen("127.0.0.1:0")) as server,
        httpx.AsyncClient(base_url=server.url) as client,
    ):
        yield client


async def compared(sampler, times):
    return [await sampler.once() for _ in range(times)]


async def test_the_sampler_finds_a_difference_and_tells_until_it_is_mended(database):
    async with bills(database.url) as app, service(app) as client:
        await app.deploy()
        await app.append(*(Paid(f"b{n % 40}", Decimal(n)) for n in range(200)))
        await publish(app)
        views = ("bills", "paid", "by_amount")
        for fence, view in enumerate(views, start=1):
            await drive(app, app.stored(view), fence)
        operator = app.database("headwater_operator")
        sampler = app._open.sampler(views)
        assert sorted(await compared(sampler, 3)) == sorted(views)  # in turn
        await compared(sampler, 9)  # with few keys, soon all of them
        text = await metrics_text(operator)
        assert of_view(text, "verify_differing", "paid") == 0
        assert of_view(text, "verify_at_seconds", "paid") == pytest.approx(time.time(), abs=60)
        with database.admin() as admin:
            admin.execute(CORRUPT["paid"])
        await compared(sampler, 3)
        assert of_view(await metrics_text(operator), "verify_differing", "paid") > 0
        findings = [f for f in await examine(operator, app._open.stored) if f.level == "fail"]
        assert [f.check for f in findings] == ["view paid"]
        assert "b17" in findings[0].finding
        assert "differs from the log" in (await client.get("/readyz")).text
        await compared(sampler, 6)
        assert of_view(await metrics_text(operator), "verify_differing", "paid") > 0
        assert (await app.rebuilding("paid", share=1.0).run()).equal
        await compared(sampler, 3)
        assert of_view(await metrics_text(operator), "verify_differing", "paid") == 0
        assert "differs" not in (await client.get("/readyz")).text


async def test_what_takes_too_long_is_ended_and_said(database18, monkeypatch):
    """The statement ends too, and the next slices are smaller."""
    monkeypatch.setattr(running, "LONGEST_SECONDS", 0.05)
    async with bills(database18.url) as app:
        await app.deploy()
        await app.append(Paid("a", Decimal(1)))
        await publish(app)
        await drive(app, app.stored("paid"), 1)
        sampler = app._open.sampler(["paid"])
        with database18.admin() as admin:
            with admin.transaction():
                admin.execute("LOCK TABLE headwater.events IN ACCESS EXCLUSIVE MODE")
                await sampler.once()
            found = admin.execute("SELECT slices, detail, verified_at FROM headwater.sampled")
            assert found.fetchall() == [(1000, "a comparison takes longer than 10 s", None)]
        await sampler.once()
        text = await metrics_text(app.database("headwater_operator"))
        assert of_view(text, "verify_differing", "paid") == 0


async def test_one_of_two_samplers_works_at_a_time_and_then_the_other(database18):
    async with bills(database18.url) as app:
        await app.deploy()
        await app.append(Paid("a", Decimal(1)))
        await publish(app)
        await drive(app, app.stored("paid"), 1)
        samplers = [app._open.sampler(["paid"]) for _ in range(2)]
        for sampler in samplers:
            sampler.every_seconds, sampler.leases = 0.01, Leases(seconds=0.2)
            await sampler.start()
        try:
            async with asyncio.timeout(60):
                await asyncio.gather(*(sampler.compared.wait() for sampler in samplers))
        finally:
            for sampler in samplers:
                await sampler.stop()
                await sampler.database.close()


async def test_a_relay_compares_in_the_background_unless_it_is_told_not_to(database18):
    async with bills(database18.url) as app:
        assert app.settings.verify_every_seconds == 60
        async with app.relay():
            assert any(task.get_name() == "sampler" for task in asyncio.all_tasks())
    async with bills(database18.url, verify_every_seconds=0) as app, app.relay():
        assert not any(task.get_name() == "sampler" for task in asyncio.all_tasks())
