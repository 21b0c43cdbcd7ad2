"""The contract that every store of feeds passes.

Subclass ``FeedStoreContract`` in a test module and give it a fixture ``ground`` that returns a
``FeedGround``. pytest and pytest-asyncio (mode ``auto``) run it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest

from headwater import App
from headwater.errors import NotCaughtUp, StoreUnavailable, ViewStale
from headwater.readers.feeds import FeedView
from headwater.testing.contract_app import Line, Placed, Removed, fed
from headwater.testing.driving import drive, publish
from headwater.testing.stores import Ground, fill, take_over
from headwater.views import Verification
from headwater.views.recomputation import Recomputes
from headwater.views.store import Store

_EASILY_LOST = (" ", " x ", "\t", "\\N", "NULL", "'q'", "'q", '"', '""', ",", "\\.", "nan")
"""Texts that a careless CSV gives back as others, or as nothing."""

_COUNTED = """
SELECT keyed, count(*) AS n, sum(total) AS total, avg(count) AS mean, max(total * count) AS most, count(DISTINCT text) AS texts
FROM contract.placed GROUP BY keyed
"""

Rows = dict[str, list[dict[str, Any]]]


class FeedGround(Ground):
    """Where the contract of feeds is tried."""

    store: Store
    points: tuple[str, ...]
    """Where a relay is killed while it writes a batch; see headwater.testing.faults."""
    earliest = date(1, 1, 1)
    """The earliest date that the store keeps."""

    @abstractmethod
    async def read(self, app: App, **options: Any) -> Rows:
        """What other programs find: each type's rows in order of position, exact numbers as text."""

    @abstractmethod
    async def tamper(self, app: App) -> None:
        """Takes a row away behind the store's back."""

    @asynccontextmanager
    async def app(self, **_: Any) -> AsyncIterator[App]:
        """The app with the feed, deployed and open."""
        async with fed(self.settings, self.store) as app:
            await app.deploy()
            yield app

    @abstractmethod
    def admin(self) -> psycopg.Connection[Any]:
        """The log's database, past all checks."""


def feed_of(app: App) -> FeedView:
    """The feed."""
    return app._feeds["orders"]  # noqa: SLF001 - feeds have no other way in yet


async def driven(app: App, fence: int) -> Verification:
    """Drives the feed to the watermark of now; it must be equal to the log then."""
    view = app.stored("orders")
    await drive(app, view, fence)
    verified = await view.verify()
    assert verified.summary == "equal", verified
    return verified


class FeedStoreContract:
    """What every store of feeds does."""

    # Exactly once ----------------------------------------------------------------------------

    async def test_a_kill_at_any_point_loses_and_doubles_nothing(self, ground: FeedGround) -> None:
        """One log, a kill at each point in turn, and a relay that goes on after each."""
        async with ground.app() as app:
            fence = 0
            for turn, point in enumerate(ground.points, start=1):
                await fill(app, 110)
                await app.append(*(Removed(n, f"k{n}") for n in range(40)))
                await publish(app)
                await ground.dies(fence + 1, point, 2)
                fence += 2
                assert (await driven(app, fence)).rows == turn * 150, point
                stored = await ground.read(app)
                numbers = [row["count"] for row in stored["contract.placed"]]
                assert numbers == list(range(110)) * turn, point
                assert len(stored["contract.removed"]) == 40 * turn, point

    async def test_order_fence_and_repetition(self, ground: FeedGround) -> None:
        async with ground.app() as stale, ground.app() as app:
            await take_over(stale, app, "orders")
            assert (await driven(app, 3)).rows == 60

    # Reading ---------------------------------------------------------------------------------

    async def test_values_survive(self, ground: FeedGround) -> None:
        placed = Placed(
            1, "k", Decimal("12345678901234567890123456789.000000001"), 'ž 🐎 "\\ \n, \t', 2**63 - 1, 0.1,
            datetime(2026, 2, 28, 23, 59, 59, 123456, tzinfo=UTC), ground.earliest, UUID(int=7),
            [Line("a", Decimal("0.10"), ["x", ""])], {"none": None, "": "empty"},
        )  # fmt: skip
        async with ground.app() as app:
            await app.append(placed, Placed(2, "", Decimal(-1), None, -(2**63)))
            await app.append(Placed(3, "k", Decimal(1), ""), tenant="its-x")
            await app.append(*(Placed(4, text, Decimal(1), text) for text in _EASILY_LOST))
            await driven(app, 1)
            first, second, third, *rest = (await ground.read(app))["contract.placed"]
        assert (Decimal(first["total"]), first["text"]) == (placed.total, placed.text)
        assert (first["count"], first["ratio"]) == (placed.count, 0.1)
        assert (first["at"], first["day"]) == (placed.at, placed.day)
        assert UUID(str(first["id"])) == placed.id
        assert msgspec.json.decode(first["lines"], type=list[Line]) == placed.lines
        assert msgspec.json.decode(first["notes"]) == placed.notes
        assert (second["keyed"], second["text"], second["at"]) == ("", None, None)
        assert second["count"] == -(2**63)
        assert [row["text"] for row in rest] == [row["keyed"] for row in rest] == list(_EASILY_LOST)
        assert (third["text"], third["tenant"], third["stream"]) == ("", "its-x", "contract/3")

    async def test_a_view_that_is_recomputed_equals_the_live_one(self, ground: FeedGround) -> None:
        """For stores that recompute SQL views: over the values that are easily lost."""
        app = fed(ground.settings, ground.store)
        app.sql("counted", sql=_COUNTED)
        async with app:
            if not isinstance(feed_of(app).storage, Recomputes):
                return
            await app.deploy()
            await app.append(
                *(Placed(n, text, Decimal(n) / 10, text, n) for n, text in enumerate(_EASILY_LOST))
            )
            await app.append(Placed(1, "k", Decimal("1" * 20 + ".000001")), tenant="its-x")
            await app.append(Removed(1, "k"))
            await driven(app, 1)
            await drive(app, app.stored("counted"), 1)
            verified = await app.verify_by("counted", "orders")
            assert (verified.summary, verified.rows) == ("equal", len(set(_EASILY_LOST)) + 1)
            await app.append(Placed(1, "k", Decimal(1)))
            await drive(app, app.stored("counted"), 2)
            with pytest.raises(NotCaughtUp):
                await app.verify_by("counted", "orders", timeout_seconds=0.1)

    async def test_no_reader_sees_half_a_batch(self, ground: FeedGround) -> None:
        """A relay writes; a reader reads all the while: what it sees always ends at a batch's end."""
        async with ground.app() as app, app.relay("orders"):
            for n in range(10):
                written = await app.append(
                    *(Placed(n, f"k{n}", Decimal(n)) for _ in range(50)), Removed(n, f"k{n}")
                )
                stored = await ground.read(app)
                placed = len(stored.get("contract.placed", []))
                assert placed == 50 * len(stored.get("contract.removed", []))
            stored = await ground.read(app, at_least=written.token, timeout_seconds=20)
            assert len(stored["contract.placed"]) == 500

    # Care ------------------------------------------------------------------------------------

    async def test_tampering_is_found(self, ground: FeedGround) -> None:
        async with ground.app() as app:
            await fill(app, 30)
            await driven(app, 1)
            await ground.tamper(app)
            assert not (await app.stored("orders").verify()).equal

    async def test_a_restored_log_is_noticed(self, ground: FeedGround) -> None:
        async with ground.app() as app:
            await fill(app, 50)
            await driven(app, 1)
            with ground.admin() as admin:
                admin.execute("UPDATE headwater.log SET epoch = epoch + 1")
            await fill(app, 50)
            assert (await driven(app, 2)).rows == 100
            with ground.admin() as admin:
                admin.execute(
                    "DELETE FROM headwater.events WHERE position > "
                    "(SELECT max(position) - 10 FROM headwater.events)"
                )
            with pytest.raises(ViewStale, match="restored"):
                await app.stored("orders").open(3)
            await app.stored("orders").close()
            await app.stored("orders").rebuild()
            assert (await driven(app, 4)).rows == 90

    # Faults ----------------------------------------------------------------------------------

    async def test_an_engine_that_is_down_delays_its_feed_and_is_caught_up(
        self, ground: FeedGround
    ) -> None:
        async with ground.app() as app, app.relay("orders") as relay:
            feed = feed_of(app)
            written = await app.append(Placed(1, "k", Decimal(1)))
            await feed.files(at_least=written.token, timeout_seconds=20)
            ground.stop()
            try:
                written = await app.append(Placed(1, "k", Decimal(1)))
                with pytest.raises(NotCaughtUp):
                    await feed.files(at_least=written.token, timeout_seconds=1)
                with pytest.raises(StoreUnavailable):
                    await feed.files()
                assert relay.standings["orders"].state == "retrying"
            finally:
                ground.start()
            files = await feed.files(at_least=written.token, timeout_seconds=30)
            assert sum(file.rows for _, file in files) == 2
