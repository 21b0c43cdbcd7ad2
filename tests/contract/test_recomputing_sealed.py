"""What is sealed is recomputed as it is sealed, or not at all."""

from __future__ import annotations

import pytest
from test_opening import ADA, Signed, make
from test_recomputing import Ground

from headwater.errors import QueryRefused
from headwater.stores.lake import Lake
from headwater.testing.driving import drive, publish

pytestmark = pytest.mark.postgres


@pytest.fixture
def ground(database18, tmp_path):
    made = Ground(database18, tmp_path)
    yield made
    made.close()


async def test_personal_fields_are_compared_as_they_are_sealed(ground, tmp_path):
    app = make(ground.database, tmp_path, stores=ground.urls)
    lake = Lake("lake", every_seconds=0.01)
    app.sql("signed", sql="SELECT mail, plan, count(*) AS n FROM customer.signed GROUP BY 1, 2")
    app.feed("sealed", types=[Signed], store=lake)
    app.feed("clear", types=[Signed], store=lake, opens=["mail"])
    async with app:
        await app.deploy()
        await app.append(Signed("ada", ADA), Signed("bob", "bob@example.org"))
        await publish(app)
        for view in ("signed", "sealed", "clear"):
            await drive(app, app.stored(view), 1)
        verified = await app.verify_by("signed", "sealed")
        assert (verified.summary, verified.rows) == ("equal", 2)
        with pytest.raises(QueryRefused, match=r"holds customer.signed.mail in clear"):
            await app.verify_by("signed", "clear")
