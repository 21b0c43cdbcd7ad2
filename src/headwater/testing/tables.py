"""The contract that every store of SQL views passes.

Subclass ``SqlStoreContract`` in a test module and give it a fixture ``ground`` that returns a
``TablesGround``. pytest and pytest-asyncio (mode ``auto``) run it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Any

import pytest

from headwater import App
from headwater.errors import NotCaughtUp, StoreUnavailable
from headwater.readers.handles import RowsView
from headwater.testing.contract_app import POISON, TOTALS, Placed, totalled
from headwater.testing.driving import drive, publish
from headwater.testing.stores import ODD_NAMES, Ground, fill, take_over

_DIGITS = Context(prec=15)
"""How many digits of an average every store gives."""


class TablesGround(Ground):
    """Where the contract of SQL views is tried."""

    points: tuple[str, ...]
    """Where a relay is killed while it writes a batch; see headwater.testing.faults."""

    @asynccontextmanager
    async def app(self, *, sql: str = TOTALS, **_: Any) -> AsyncIterator[App]:
        """The app with the view, deployed and open."""
        async with totalled(self.settings, self.store, sql=sql) as app:
            await app.deploy()
            yield app

    def disturb(self, point: str) -> None:
        """Kills what holds the engine, where it can, after a relay was killed at a point."""


def totals(app: App, name: str = "totals") -> RowsView[Any]:
    """The view."""
    view = app.view(name)
    assert isinstance(view, RowsView)
    return view


async def rows(app: App, name: str = "totals") -> dict[Any, tuple[Any, ...]]:
    """The rows by key; averages to the digits that every store gives."""
    found = {}
    for row in await totals(app, name).list():
        found[row.keyed] = (
            row.events, row.total, _DIGITS.create_decimal(row.mean), row.least, row.latest,
            row.texts, row.large, getattr(row, "poisonable", None),
        )  # fmt: skip
    return found


async def same(app: App, fence: int) -> None:
    """Drives both views; the one in the store must equal the one in Postgres, and the log."""
    await drive(app, app.stored("totals"), fence)
    await drive(app, app.stored("plain"), fence)
    verified = await app.stored("totals").verify()
    assert verified.equal, verified
    assert await rows(app) == await rows(app, "plain")


class SqlStoreContract:
    """What every store of SQL views does."""

    # Exactly once ----------------------------------------------------------------------------

    async def test_a_kill_at_any_point_loses_and_doubles_nothing(
        self, ground: TablesGround
    ) -> None:
        """One log, a kill at each point in turn, and a relay that goes on after each."""
        async with ground.app() as app:
            fence = 0
            for turn, point in enumerate(ground.points, start=1):
                await fill(app, 110, keys=7 + turn)
                await publish(app)
                await ground.dies(fence + 1, point, 2, view="totals")
                ground.disturb(point)
                fence += 2
                await same(app, fence)
                assert sum(row[0] for row in (await rows(app)).values()) == turn * 110, point

    async def test_order_fence_and_repetition(self, ground: TablesGround) -> None:
        async with ground.app() as stale, ground.app() as app:
            await take_over(stale, app, "totals")
            await same(app, 3)

    # Reading ---------------------------------------------------------------------------------

    async def test_a_read_with_a_token_waits_and_then_fails_clearly(
        self, ground: TablesGround
    ) -> None:
        async with ground.app() as app:
            written = await app.append(Placed(1, "k1", Decimal(1)))
            with pytest.raises(NotCaughtUp, match="did not reach"):
                await totals(app).get("k1", at_least=written.token, timeout_seconds=0.2)
            async with app.relay("totals"):
                found: Any = await totals(app).get("k1", at_least=written.token, timeout_seconds=30)
            assert (found.events, found.total) == (1, 1)

    async def test_values_are_exact(self, ground: TablesGround) -> None:
        at = datetime(2026, 2, 28, 23, 59, 59, 123456, tzinfo=UTC)
        exact = TOTALS.replace(", sum(1 / (total - 666)) AS poisonable", "")
        async with ground.app(sql=exact) as app:
            large = Decimal("12345678901234567890123456789.000000001")
            await app.append(
                Placed(1, "k", large, "ž", 2**63 - 1, at=at),
                Placed(1, "k", large, "", -(2**63)),
                Placed(1, "k", Decimal("0.1"), None, 2**63 - 1),
                Placed(1, "nothing", Decimal(0)),
            )
            await app.append(*(Placed(1, name, Decimal(n)) for n, name in enumerate(ODD_NAMES)))
            await app.append(Placed(1, "k", Decimal(7)), tenant="its-x")
            await same(app, 1)
            found: Any = await totals(app).get("k")
            assert (found.events, found.total) == (
                3,
                Decimal("24691357802469135780246913578.100000002"),
            )
            assert (found.least, found.latest, found.texts) == (-(2**63), at, 2)
            assert found.large == -1
            assert (found.newest, found.about) == ("", 2)
            nothing: Any = await totals(app).get("nothing")
            assert nothing.latest is None
            other: Any = await totals(app).get("k", tenant="its-x")
            assert other.total == 7
            assert await totals(app).get("k", tenant="nobody") is None
            for n, name in enumerate(ODD_NAMES):
                odd: Any = await totals(app).get(name)
                assert odd.total == n, name

    # Care ------------------------------------------------------------------------------------

    async def test_an_event_that_fails_is_parked_and_the_rest_goes_on(
        self, ground: TablesGround
    ) -> None:
        async with ground.app() as app:
            await fill(app, 50)
            await app.append(Placed(1, "k1", POISON))
            await fill(app, 50)
            await same(app, 1)
            verified = await app.stored("totals").verify()
            assert verified.summary == "equal except 1 parked", verified
            assert sum(row[0] for row in (await rows(app)).values()) == 100

    async def test_a_rebuild_starts_over_by_the_definition_of_now(
        self, ground: TablesGround
    ) -> None:
        async with ground.app() as app:
            await fill(app, 60)
            await same(app, 1)
        changed = TOTALS.replace("FROM contract.placed", "FROM contract.placed WHERE count < 30")
        async with ground.app(sql=changed) as app:
            assert await app.stored("totals").status() == "stale"
            await app.stored("totals").rebuild()
            await app.stored("plain").rebuild()
            await same(app, 2)
            assert sum(row[0] for row in (await rows(app)).values()) == 30

    async def test_verify_while_the_relay_goes_on(self, ground: TablesGround) -> None:
        async with ground.app() as app, app.relay("totals"):
            for _ in range(4):
                await fill(app, 200)
                verified = await app.stored("totals").verify()
                assert verified.summary == "equal", verified

    # Faults ----------------------------------------------------------------------------------

    async def test_an_engine_that_is_down_delays_its_own_views_only(
        self, ground: TablesGround
    ) -> None:
        if ground.store is None:
            pytest.skip("the log is in the same server")
        async with ground.app() as app, app.relay() as relay:
            written = await app.append(Placed(1, "k1", Decimal(5)))
            await totals(app).get("k1", at_least=written.token, timeout_seconds=30)
            ground.stop()
            try:
                written = await app.append(Placed(1, "k1", Decimal(5)))
                assert await totals(app, "plain").get(
                    "k1", at_least=written.token, timeout_seconds=20
                )
                with pytest.raises(NotCaughtUp):
                    await totals(app).get("k1", at_least=written.token, timeout_seconds=0.5)
                with pytest.raises(StoreUnavailable):
                    await totals(app).get("k1")
                assert relay.standings["totals"].state == "retrying"
            finally:
                ground.start()
            found: Any = await totals(app).get("k1", at_least=written.token, timeout_seconds=40)
            assert found.total == 10
