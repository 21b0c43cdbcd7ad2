"""Promise 7: what cannot be done gets a clear error that says what to do, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import threading
from decimal import Decimal

import pytest

from headwater import App, Document, Event, Settings, errors
from headwater.events import EventTypes
from headwater.log import Database, Ticker
from headwater.log.database import connect
from headwater.operations.health import examine, metrics_text

pytestmark = pytest.mark.postgres


class Placed(Event, type="order.placed", stream="order/{order}"):
    order: str
    total: Decimal


class Order(Document):
    total: Decimal = Decimal(0)


def shop(url, hold: threading.Event | None = None):
    app = App("shop", events=[Placed], tenant="main", settings=Settings(database_url=url))

    @app.fold(key="order")
    def orders(state: Order, event: Placed) -> Order | None:
        return state.but(total=state.total + event.total)

    @app.fold(key="order")
    def slow(state: Order, event: Placed) -> Order | None:
        if hold is not None:
            hold.wait(60)
        return state.but(total=state.total + event.total)

    return app, orders, slow


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda token: "nonsense", errors.InvalidToken),
        (lambda token: "00000000" + token[8:], errors.ForeignToken),
        (lambda token: token.replace(".1.", ".7."), errors.StaleToken),
    ],
)
async def test_a_token_that_means_nothing_here_is_refused(database18, change, error):
    app, orders, _ = shop(database18.url)
    async with app:
        await app.deploy()
        written = await app.append(Placed("1", Decimal(1)))
        with pytest.raises(error) as refused:
            await orders.get("1", at_least=change(written.token))
        assert refused.value.hint


async def test_an_open_app_notices_a_new_epoch(database18):
    """Promise 5 across a restore: new tokens count, old ones are refused."""
    app, orders, _ = shop(database18.url)
    async with app:
        await app.deploy()
        async with app.relay():
            old = await app.append(Placed("1", Decimal(1)))
            assert (await orders.get("1", at_least=old.token)).total == 1
            with database18.admin() as admin:
                admin.execute("UPDATE headwater.log SET epoch = epoch + 1")
            with pytest.raises(errors.StaleToken):
                await orders.get("1", at_least=old.token)
            new = await app.append(Placed("1", Decimal(1)))
            assert (await orders.get("1", at_least=new.token)).total == 2
            with pytest.raises(errors.StaleToken):
                await orders.get("1", at_least=old.token)


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (Placed("1", Decimal("NaN")), errors.InvalidEvent),
        (Placed("1\x00", Decimal(1)), errors.InvalidEvent),
        (Placed(1, Decimal(1)), errors.InvalidEvent),
        (Placed("a b", Decimal(1)), errors.InvalidStreamName),
        (Placed("x" * 300, Decimal(1)), errors.InvalidStreamName),
    ],
)
async def test_python_is_refused_what_sql_is(database18, event, error):
    app, *_ = shop(database18.url)
    async with app:
        await app.deploy()
        with pytest.raises(error) as refused:
            await app.append(event)
        assert refused.value.hint
        with pytest.raises(error):
            async with app.transaction() as tx:
                await tx.append(event)
    with database18.admin() as admin:
        assert admin.execute("SELECT count(*) FROM headwater.events").fetchone() == (0,)
        assert admin.execute("SELECT count(*) FROM headwater.streams").fetchone() == (0,)


async def test_an_undeclared_type_names_the_way_out(database18):
    undeclared = App(
        "shop", events=[Placed], tenant="main", settings=Settings(database_url=database18.url)
    )
    async with undeclared:
        with pytest.raises(errors.UnknownEventType, match="headwater init"):
            await undeclared.append(Placed("1", Decimal(1)))


async def test_too_many_connections_is_said_so(database18):
    database = Database(database18.url, "headwater_app", max_size=1, wait_seconds=0.2)
    await database.open()
    try:
        async with database.connection():
            with pytest.raises(errors.TooManyConnections) as refused:
                async with database.connection():
                    pass
        assert "pool" in refused.value.hint
    finally:
        await database.close()


async def test_a_lost_database_is_said_so():
    database = Database("postgresql:///x?host=/nonexistent", "headwater_app")
    with pytest.raises(errors.DatabaseUnavailable, match="HEADWATER_DATABASE_URL"):
        await database.open()


async def test_a_database_without_a_log_names_the_way_out(server18):
    url = server18.postgres.url("postgres", user="headwater_login")
    with pytest.raises(errors.NotInitialized, match="headwater init"):
        await Database(url, "headwater_app").open()


async def test_a_changed_schema_needs_a_new_version(database18):
    class Changed(Event, type="order.placed", stream="order/{order}"):
        order: str
        total: Decimal
        note: str

    app, *_ = shop(database18.url)
    async with app:
        await app.deploy()
    changed = App(
        "shop", events=[Changed], tenant="main", settings=Settings(database_url=database18.url)
    )
    async with changed:
        with pytest.raises(errors.SchemaChanged, match="next version"):
            await changed.deploy()
    assert EventTypes([Changed]).named("order.placed").schema_version == 1


async def test_a_slow_view_delays_no_other(database18):
    """Promise 6: isolation."""
    hold = threading.Event()
    app, orders, slow = shop(database18.url, hold)
    async with app:
        await app.deploy()
        async with app.relay():
            try:
                written = await app.append(*(Placed(str(n), Decimal(n)) for n in range(100)))
                assert (await orders.get("7", at_least=written.token)).total == 7
                assert await slow.get("7") is None
            finally:
                hold.set()
            assert (await slow.get("7", at_least=written.token)).total == 7


async def test_a_locked_view_delays_no_other_view_and_no_writer(database18):
    """Promise 6, in the database."""
    app, orders, slow = shop(database18.url)
    async with app:
        await app.deploy()
        async with app.relay():
            with database18.admin() as admin:
                admin.execute("BEGIN; LOCK TABLE headwater_views.slow__1")
                written = await app.append(Placed("1", Decimal(1)))
                assert (await orders.get("1", at_least=written.token)).total == 1
                admin.execute("ROLLBACK")
            assert (await slow.get("1", at_least=written.token, timeout_seconds=60)).total == 1


async def test_doctor_and_metrics_name_who_holds_readers_back(database18):
    app, *_ = shop(database18.url)
    async with app:
        await app.deploy()
        operator = app.database("headwater_operator")
        async with app.transaction() as tx:
            await tx.append(Placed("1", Decimal(1)))
            pid = tx.connection.info.backend_pid
            with database18.admin() as admin:
                admin.execute("UPDATE headwater.log SET idle_append_seconds = 1")
            findings = {f.check: f for f in await examine(operator, {})}
            assert f"process {pid}" in findings["appenders"].finding
            assert f'pid="{pid}"' in await metrics_text(operator)
        findings = {f.check: f for f in await examine(operator, {})}
        assert findings["appenders"].level == "ok"
        assert findings["security"].level == "ok"
        assert findings["relays"].level == "warn"
        with database18.admin() as admin:
            admin.execute("ALTER SEQUENCE headwater.position_seq CACHE 20")
            admin.execute("ALTER TABLE headwater.streams NO FORCE ROW LEVEL SECURITY")
        findings = {f.check: f for f in await examine(operator, {})}
        assert (findings["order"].level, findings["security"].level) == ("fail", "fail")


async def test_two_apps_may_publish_at_once(database18):
    """Two tickers are harmless: the watermark only rises."""
    app, *_ = shop(database18.url)
    async with app:
        await app.deploy()
        async with (
            await connect(database18.url, "headwater_relay") as one,
            await connect(database18.url, "headwater_relay") as other,
        ):
            tickers = Ticker(one), Ticker(other)
            seen = []
            for n in range(50):
                await app.append(Placed(str(n), Decimal(n)))
                await asyncio.gather(*(ticker.tick() for ticker in tickers))
                seen.append(await app.log.safe())
        assert seen == sorted(seen)
