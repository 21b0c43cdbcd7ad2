"""The contract that every store of folds passes.

Subclass ``FoldStoreContract`` in a test module and give it a fixture ``ground`` that returns a
``Ground``. pytest and pytest-asyncio (mode ``auto``) run it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from headwater import App, FoldView, Settings
from headwater.errors import KeyParked, LeaseLost, NotCaughtUp, StoreUnavailable
from headwater.relay import Batch
from headwater.testing.contract_app import POISON, Line, Order, Placed, Removed, make
from headwater.testing.driving import drive, publish
from headwater.testing.faults import FOLD_POINTS, REPLAY_POINTS
from headwater.views.store import Store

ODD_NAMES = ("a", "", " ", "{a}", "a:b", "it's", 'say "so"', "100%s", "a\\b", "line\nbreak", "zażółć", "日本", "🜁")  # fmt: skip


class Ground(ABC):
    """Where the contract is tried: a migrated database of the test's own and a running engine."""

    database_url: str
    reference: str
    """``module:function`` that returns the declared store, for processes of their own."""
    store: Store | None
    urls: Mapping[str, str] = {}
    """Where stores are, by name."""

    @property
    def settings(self) -> Settings:
        """For the app."""
        return Settings(database_url=self.database_url, stores=self.urls)

    @abstractmethod
    def stop(self) -> None:
        """Stops the engine; what it said was written is kept."""

    @abstractmethod
    def start(self) -> None:
        """Starts it again."""

    @asynccontextmanager
    async def app(self, **options: Any) -> AsyncIterator[App]:
        """The contract's app, deployed and open."""
        async with make(self.settings, self.store, **options) as app:
            await app.deploy()
            yield app

    async def dies(
        self, fence: int | str, point: str, at_call: int, *, view: str = "orders"
    ) -> None:
        """Drives the view in a process that must be killed at a point."""
        urls = {f"HEADWATER_STORE_{n.upper()}_URL": url for n, url in self.urls.items()}
        clean = {k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")}
        environment = clean | urls | {
            "HEADWATER_DATABASE_URL": self.database_url,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }  # fmt: skip
        arguments = [self.reference, view, str(fence), point, str(at_call)]
        assert await self.drives(arguments, environment) == -signal.SIGKILL, point

    async def drives(self, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
        """Runs ``python -m headwater.testing.driving`` in a process of its own; how it ended."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headwater.testing.driving", *arguments, env=environment
        )
        return await asyncio.wait_for(process.wait(), 60)


def orders(app: App) -> FoldView[Order]:
    """The view in the store."""
    view = app.view("orders")
    assert isinstance(view, FoldView)
    return view


async def fill(app: App, count: int, *, keys: int = 17, tenant: str = "main") -> int:
    """Appends events over some keys; the last position."""
    written = await app.append(
        *(Placed(n % keys, f"k{n % keys}", Decimal(n), count=n) for n in range(count)),
        tenant=tenant,
    )
    return int(written.position)


async def take_over(stale: App, app: App, view: str) -> None:
    """A batch again, out of order, or of a holder whose lease another took is refused; the rest goes on."""
    last = await fill(app, 60)
    await publish(app)
    old, new = stale.stored(view), app.stored(view)
    start = await old.open(1)
    await old.apply(Batch(start, last - 40))
    with pytest.raises(LeaseLost):
        await old.apply(Batch(start, last - 40))
    with pytest.raises(LeaseLost):
        await old.apply(Batch(last - 20, last))
    assert await new.open(2) == last - 40
    with pytest.raises(LeaseLost):
        await old.apply(Batch(last - 40, last - 20))
    await old.close()
    await new.apply(Batch(last - 40, last))
    await new.close()


class FoldStoreContract:
    """What every store of folds does."""

    # Exactly once ----------------------------------------------------------------------------

    @pytest.mark.parametrize("point", FOLD_POINTS)
    async def test_a_kill_at_any_point_loses_and_doubles_nothing(
        self, ground: Ground, point: str
    ) -> None:
        async with ground.app() as app:
            await fill(app, 90)
            await app.append(Placed(1, "k1", POISON))
            await fill(app, 60)
            await publish(app)
            await ground.dies(1, point, 1 if "aside" in point else 2)
            view = app.stored("orders")
            await drive(app, view, 2)
            verified = await view.verify()
            assert verified.summary == "equal except 1 parked", verified
            await drive(app, app.stored("plain"), 1)
            assert await orders(app).list() == await app.view("plain").list()

    @pytest.mark.parametrize("point", REPLAY_POINTS)
    async def test_a_replay_killed_at_any_point_applies_each_event_once(
        self, ground: Ground, point: str
    ) -> None:
        if ground.store is None and "redo" in point:
            pytest.skip("one commit: there is nothing between")
        async with ground.app() as app:
            await fill(app, 20)
            await app.append(Placed(1, "k1", POISON))
            await fill(app, 20)
            await drive(app, app.stored("orders"), 1)
            # The first call of unpark clears what an earlier replay left.
            await ground.dies("replay", point, 2 if "unpark" in point and ground.store else 1)
        async with ground.app(poisonous=False, version=1) as mended:
            view = mended.stored("orders")
            await fill(mended, 20)
            await drive(mended, view, 2)
            await view.replay()
            await drive(mended, view, 3)
            verified = await view.verify()
            assert verified.summary == "equal", verified

    async def test_a_batch_out_of_order_or_again_is_refused(self, ground: Ground) -> None:
        async with ground.app() as app:
            last = await fill(app, 60)
            first, view = last - 60, app.stored("orders")
            start = await view.open(1)
            with pytest.raises(LeaseLost):
                await view.apply(Batch(first + 20, first + 40))
            await view.close()
            assert await view.open(1) == start
            await view.apply(Batch(start, first + 20))
            with pytest.raises(LeaseLost):
                await view.apply(Batch(start, first + 20))
            await view.close()
            await drive(app, view, 2)
            assert (await view.verify()).summary == "equal"

    async def test_a_stale_holder_writes_nothing(self, ground: Ground) -> None:
        async with ground.app() as stale, ground.app() as fresh:
            last = await fill(fresh, 60)
            await publish(fresh)
            old, new = stale.stored("orders"), fresh.stored("orders")
            start = await old.open(1)
            await old.apply(Batch(start, last - 40))
            assert await new.open(2) == last - 40
            with pytest.raises(LeaseLost):
                await old.apply(Batch(last - 40, last - 20))
            await new.apply(Batch(last - 40, last))
            with pytest.raises(LeaseLost):
                await old.open(1)
            await old.close()
            await new.close()
            assert (await new.verify()).summary == "equal"

    # Reading ---------------------------------------------------------------------------------

    async def test_a_read_with_a_token_waits_and_then_fails_clearly(self, ground: Ground) -> None:
        async with ground.app() as app:
            written = await app.append(Placed(1, "k1", Decimal(1)))
            with pytest.raises(NotCaughtUp, match="did not reach"):
                await orders(app).get("k1", at_least=written.token, timeout_seconds=0.2)
            async with app.relay():
                found = await orders(app).get("k1", at_least=written.token, timeout_seconds=20)
            assert found is not None
            assert found.events == 1

    async def test_values_survive(self, ground: Ground) -> None:
        placed = Placed(
            1, "k", Decimal("12345678901234567890123456789.000000001"), "žluťoučký 🐎 \" \\ '", 2**63 - 1,
            0.1, datetime(2026, 2, 28, 23, 59, 59, 123456, tzinfo=UTC), date(1, 1, 1), UUID(int=7),
            [Line("a", Decimal("0.10"), ["x", ""]), Line("", Decimal(-1000))],
            {"none": None, "": "empty", "k é": "v"},
        )  # fmt: skip
        async with ground.app() as app:
            written = await app.append(placed)
            await drive(app, app.stored("orders"), 1)
            found = await orders(app).get("k", at_least=written.token)
            assert found is not None
            assert found == Order(
                events=1, total=found.total, exact=placed.total, text=placed.text, count=placed.count, ratio=placed.ratio,
                at=placed.at or found.at, day=placed.day, id=placed.id, lines=placed.lines,
                notes=placed.notes,
            )  # fmt: skip
            lowest = Placed(1, "k", placed.total.copy_negate(), None, -(2**63), -0.0)
            await app.append(lowest)
            await drive(app, app.stored("orders"), 2)
            found = await orders(app).get("k")
            assert found is not None
            assert (found.exact, found.text, found.count) == (
                placed.total.copy_negate(),
                None,
                -(2**63),
            )

    async def test_names_of_any_kind_are_told_apart(self, ground: Ground) -> None:
        async with ground.app() as app:
            for n, tenant in enumerate(("main", "its-x:y.z")):
                await app.append(
                    *(Placed(i, key, Decimal(n)) for i, key in enumerate(ODD_NAMES)), tenant=tenant
                )
            await drive(app, app.stored("orders"), 1)
            for n, tenant in enumerate(("main", "its-x:y.z")):
                for key in ODD_NAMES:
                    found = await orders(app).get(key, tenant=tenant)
                    assert found is not None
                    assert (found.events, found.total) == (1, Decimal(n)), key
                listed = [key for key, _ in await orders(app).list(tenant=tenant)]
                assert sorted(listed) == sorted(set(ODD_NAMES) - {""} | ({""} & set(listed)))
            assert await orders(app).get("a", tenant="nobody") is None
            assert (await app.stored("orders").verify()).summary == "equal"

    async def test_pages_and_removals(self, ground: Ground) -> None:
        async with ground.app() as app:
            await app.append(*(Placed(n, f"k{n:04}", Decimal(1)) for n in range(250)))
            await app.append(*(Removed(n, f"k{n:04}") for n in range(0, 250, 5)))
            await drive(app, app.stored("orders"), 1)
            keys: list[str] = []
            while page := await orders(app).list(after=keys[-1] if keys else "", limit=70):
                keys += [key for key, _ in page]
            assert keys == [f"k{n:04}" for n in range(250) if n % 5]
            assert await orders(app).get("k0005") is None
            assert (await app.stored("orders").verify()).rows == 200

    # Care ------------------------------------------------------------------------------------

    async def test_a_parked_key_waits_and_is_replayed(self, ground: Ground) -> None:
        async with ground.app() as app:
            await fill(app, 40)
            poison = await app.append(Placed(1, "k1", POISON))
            written = await app.append(Placed(1, "k1", Decimal(1)), Placed(2, "k2", Decimal(1)))
            view = app.stored("orders")
            await drive(app, view, 1)
            assert await orders(app).get("k2", at_least=written.token) is not None
            with pytest.raises(KeyParked):
                await orders(app).get("k1", at_least=written.token)
            before = await orders(app).get("k1")
            assert await view.replay() == 0
            assert await view.discard([poison.position]) == 1
            after = await orders(app).get("k1", at_least=written.token)
            assert before is not None
            assert after == before.but(
                events=before.events + 1, total=before.total + 1, exact=Decimal(1), count=0
            )
            await drive(app, view, 2)
            assert (await view.verify()).summary == "equal"

    async def test_a_rebuild_starts_over_by_the_definition_of_now(self, ground: Ground) -> None:
        async with ground.app() as app:
            await fill(app, 100)
            await drive(app, app.stored("orders"), 1)
        async with ground.app(version=2) as changed:
            view = changed.stored("orders")
            assert await view.status() == "stale"
            await view.rebuild()
            assert await orders(changed).list() == []
            await drive(changed, view, 2)
            assert (await view.verify()).summary == "equal"
            assert len(await orders(changed).list()) == 17

    async def test_verify_while_the_relay_goes_on(self, ground: Ground) -> None:
        async with ground.app() as app, app.relay():
            for _ in range(5):
                filling = asyncio.create_task(fill(app, 300))
                verified = await app.stored("orders").verify()
                await filling
                assert verified.summary == "equal", verified

    # Faults ----------------------------------------------------------------------------------

    async def test_an_engine_that_is_down_delays_its_own_views_only(self, ground: Ground) -> None:
        if ground.store is None:
            pytest.skip("the log is in the same server")
        async with ground.app() as app, app.relay() as relay:
            await fill(app, 30)
            ground.stop()
            try:
                written = await app.append(Placed(1, "k1", Decimal(5)))
                plain = app.view("plain")
                assert await plain.get("k1", at_least=written.token, timeout_seconds=20)
                with pytest.raises(NotCaughtUp):
                    await orders(app).get("k1", at_least=written.token, timeout_seconds=0.5)
                with pytest.raises(StoreUnavailable):
                    await orders(app).get("k1")
                standing = relay.standings["orders"]
                assert (standing.state, "StoreUnavailable" in str(standing.detail)) == (
                    "retrying",
                    True,
                )
            finally:
                ground.start()
            await orders(app).get("k1", at_least=written.token, timeout_seconds=40)
            assert (await app.stored("orders").verify()).summary == "equal"
