"""Verification by samples: slices of keys, which together are all of them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from headwater import App, Document, Event, Settings
from headwater.testing.driving import drive, publish
from headwater.views.definition import Sample

pytestmark = pytest.mark.postgres


class Paid(Event, type="bill.paid", stream="bill/{bill}"):
    bill: str
    amount: Decimal


class Bill(Document):
    paid: int = 0


def bills(url) -> App:
    app = App("bills", events=[Paid], tenant="main", settings=Settings(database_url=url))

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
