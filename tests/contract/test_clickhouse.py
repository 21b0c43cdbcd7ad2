"""ClickHouse: the contracts of feeds and SQL views, and what is its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import asynccontextmanager, nullcontext
from datetime import date
from decimal import Decimal

import psutil
import pytest

from headwater import App, Settings
from headwater.errors import (
    DefinitionError,
    LeaseLost,
    QueryRefused,
    SettingError,
    StoreRefused,
    StoreUnavailable,
    ViewDefinitionError,
    ViewStale,
)
from headwater.stores.clickhouse import ClickHouse
from headwater.stores.clickhouse.engine import refuse
from headwater.stores.clickhouse.placement import Placement
from headwater.testing.contract_app import Order, Placed, Removed, make, totalled
from headwater.testing.driving import drive, publish
from headwater.testing.feeds import FeedGround, FeedStoreContract, driven, feed_of
from headwater.testing.stores import fill
from headwater.testing.tables import SqlStoreContract, TablesGround, totals
from headwater.views.feed import Feed
from headwater.views.storage import Place

pytestmark = pytest.mark.postgres


def clickhouse_store():
    return ClickHouse("analytics", every_seconds=0.05, idle_seconds=20)


class Embedded:
    reference = f"{__name__}:clickhouse_store"
    store = clickhouse_store()
    points = ("after plan", "before put", "after put", "before advance", "after advance", "after move")  # fmt: skip

    def __init__(self, database, folder):
        self.database = database
        self.database_url = database.url
        self.folder = folder
        self.urls = {"analytics": f"chdb://{folder}"}

    @property
    def owner(self):
        """The pid of the process that owns the engine."""
        return owner_of(self.folder)

    def stop(self):
        kill_owner(self.folder)
        self.folder.rename(f"{self.folder}.away")
        self.folder.write_text("in the way")

    def start(self):
        self.folder.unlink()
        self.folder.with_name(f"{self.folder.name}.away").rename(self.folder)

    def close(self):
        kill_owner(self.folder)
        shutil.rmtree(Placement.of(self.folder).socket.parent, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)


class ClickHouseGround(Embedded, FeedGround):
    earliest = date(1900, 1, 1)

    async def read(self, app, **options):
        tables = {}
        for where, file in await feed_of(app).files(**options):
            engine = app._open.engines["analytics"]
            names = [row[0] for row in await engine.query(f"DESCRIBE TABLE {where}")]
            # The range that the file names: the tables are read one after the other, as a relay goes on.
            rows = await engine.query(
                f"SELECT * FROM {where} WHERE position > {file.after} AND position <= {file.upto} "
                "ORDER BY position"
            )
            tables.setdefault(file.type, []).extend(
                dict(zip(names, row, strict=True)) for row in rows
            )
        return tables

    async def tamper(self, app):
        engine = app._open.engines["analytics"]
        ((name,),) = await engine.query(
            "SELECT name FROM system.tables WHERE database = 'headwater' AND endsWith(name, '/orders/1/contract.placed')"
        )
        await engine.run(
            f"ALTER TABLE headwater.`{name}` DELETE WHERE count = 7 SETTINGS mutations_sync = 2"
        )

    def admin(self):
        return self.database.admin()


def owner_of(folder):
    """The pid of a folder's owner, or None."""
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "headwater.stores.clickhouse.owner" in command and str(folder) in command:
            return process.pid
    return None


def kill_owner(folder):
    if (pid := owner_of(folder)) is not None:
        process = psutil.Process(pid)
        process.kill()
        process.wait(10)


class ClickHouseTablesGround(Embedded, TablesGround):
    def disturb(self, point):
        if point in {"after put", "before advance"}:
            kill_owner(self.folder)


class PostgresTablesGround(TablesGround):
    reference = f"{__name__}:no_store"
    store = None
    points = ("after move",)

    def __init__(self, database_url):
        self.database_url = database_url

    def stop(self):
        raise NotImplementedError

    def start(self):
        raise NotImplementedError


def no_store():
    return None


@pytest.fixture
def feeds(database18, tmp_path):
    ground = ClickHouseGround(database18, tmp_path / "clickhouse")
    yield ground
    ground.close()


@pytest.fixture
def tables(database18, tmp_path):
    ground = ClickHouseTablesGround(database18, tmp_path / "clickhouse")
    yield ground
    ground.close()


class TestClickHouseFeeds(FeedStoreContract):
    @pytest.fixture
    def ground(self, feeds):
        return feeds


class TestClickHouseTables(SqlStoreContract):
    @pytest.fixture
    def ground(self, tables):
        return tables


class TestPostgresTables(SqlStoreContract):
    @pytest.fixture
    def ground(self, database18):
        return PostgresTablesGround(database18.url)


async def test_a_batch_beyond_the_window_is_not_doubled(tables):
    """The table recognises the last block only; what keeps a repeated batch out is the data."""
    async with tables.app() as app:
        await fill(app, 110)
        await publish(app)
        await tables.dies(1, "after put", 2, view="totals")
        engine = app._open.engines["analytics"]
        found = await engine.query(
            "SELECT name FROM system.tables WHERE database = 'headwater' AND endsWith(name, '/groups')"
        )
        for (name,) in found:
            await engine.run(
                f"ALTER TABLE headwater.`{name}` MODIFY SETTING non_replicated_deduplication_window = 0"
            )
        view = app.stored("totals")
        await drive(app, view, 2)
        assert (await view.verify()).summary == "equal"
        assert sum(row.events for row in await totals(app).list()) == 110


async def test_an_insert_of_an_overtaken_holder_writes_nothing(feeds):
    """Its relay was stopped between reading the batch and writing it, past its lease."""
    async with feeds.app() as stale, feeds.app() as app:
        await fill(app, 60)
        last = await publish(app)
        old, new = stale.stored("orders"), app.stored("orders")
        start = await old.open(1)
        step = await old._step(start, last)
        await new.open(2)
        with pytest.raises(LeaseLost):
            await old.record.plan(start, last)
        with pytest.raises(LeaseLost):
            await old.batches.put(old._hold, step, step.parts[0])
        with pytest.raises(LeaseLost):
            await old.batches.advance(old._hold, step)
        await old.close()
        await new.close()
        assert (await app.stored("orders").verify()).rows == 0
        assert (await driven(app, 3)).rows == 60


async def test_what_a_lost_history_left_is_removed_or_refused(feeds, database18):
    """The log went back to before a batch that was being written: other events take its positions."""
    async with feeds.app() as app:
        await fill(app, 30)
        await driven(app, 1)
        await fill(app, 60)
        last = await publish(app)
        await feeds.dies(2, "after put", 1)
        with database18.admin() as admin:
            admin.execute("DELETE FROM headwater.planned")
            admin.execute("DELETE FROM headwater.events WHERE position > %s", [last - 60])
        await fill(app, 10)
        assert (await driven(app, 3)).rows == 40
    async with totals_in(feeds) as app:
        await fill(app, 20)
        view = app.stored("totals")
        await drive(app, view, 1)
        await fill(app, 60)
        last = await publish(app)
        await feeds.dies(2, "after put", 1, view="totals")
        with database18.admin() as admin:
            admin.execute("DELETE FROM headwater.planned")
            admin.execute("DELETE FROM headwater.events WHERE position > %s", [last - 60])
        with pytest.raises(ViewStale, match="restored"):
            await view.open(3)
        await view.close()
        await view.rebuild()
        await drive(app, view, 4)
        assert (await view.verify()).summary == "equal"


@asynccontextmanager
async def totals_in(ground):
    async with totalled(ground.settings, ground.store) as app:
        await app.deploy()
        yield app


async def test_a_value_that_would_not_fit_is_parked(feeds):
    async with feeds.app() as app, app.transaction() as tx:
        await tx.connection.execute(
            "SELECT headwater.append('contract/1', 'contract.placed', "
            """('{"order": 1, "keyed": "k", "total": "0.' || repeat('0', 38) || '1"}')::jsonb)"""
        )
    async with feeds.app() as app:
        await fill(app, 20)
        view = app.stored("orders")
        await drive(app, view, 1)
        verified = await view.verify()
        assert (verified.summary, verified.rows) == ("equal except 1 parked", 20)


def test_one_owner_serves_all_and_a_killed_one_is_replaced(tmp_path):
    folder = tmp_path / "shared"
    ask = (
        "import asyncio, sys\n"
        "from headwater.stores.clickhouse import ClickHouse\n"
        "async def main():\n"
        "    engine = ClickHouse('analytics', idle_seconds=20).engine(sys.argv[1])\n"
        "    await engine.run('CREATE TABLE IF NOT EXISTS headwater.t (n Int64) ENGINE = MergeTree ORDER BY n')\n"
        "    await engine.run('INSERT INTO headwater.t SELECT 1')\n"
        "    print(await engine.query('SELECT count() FROM headwater.t'))\n"
        "asyncio.run(main())"
    )
    command = [sys.executable, "-c", ask, f"chdb://{folder}"]
    try:
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        answers = sorted(process.communicate(timeout=60)[0].strip() for process in both)
        assert answers[-1] == "[(3,)]"
        first = owner_of(folder)
        kill_owner(folder)
        assert subprocess.check_output(command, text=True).strip() == "[(4,)]"
        assert owner_of(folder) not in {None, first}
    finally:
        kill_owner(folder)


async def test_an_owner_that_nobody_asks_ends(tmp_path):
    engine = ClickHouse("analytics", idle_seconds=1).engine(f"chdb://{tmp_path}/idle")
    assert await engine.query("SELECT 1") == [(1,)]
    owner = psutil.Process(owner_of(tmp_path / "idle"))
    owner.wait(20)
    assert await engine.query("SELECT 2") == [(2,)]
    kill_owner(tmp_path / "idle")


def test_a_cluster_is_declared_in_every_statement():
    """Text only: no cluster was there to try it on."""
    store = ClickHouse("analytics", cluster="main", order_by=("keyed",), keep_months=13)
    engine = store.engine("http://me:secret@localhost:8123/facts")
    place = Place("log", "orders", 1)
    feed = Feed("orders", (Placed,), "clickhouse/analytics")
    text = engine.rows.table_statement(place, "contract.placed", feed.columns["contract.placed"])
    assert "ON CLUSTER `main`" in text
    assert "ENGINE = ReplicatedMergeTree()" in text
    assert "ORDER BY (`tenant`, `keyed`, position)" in text
    assert "replicated_deduplication_window" in text
    assert "TTL addMonths" in text
    assert "insert_quorum = 'auto'" in engine.inserting("token")
    assert "select_sequential_consistency" in engine.reading


@pytest.mark.parametrize(
    ("sql", "match"),
    [
        (
            "SELECT keyed, max(text) AS most FROM contract.placed GROUP BY keyed",
            "does not order text",
        ),
        (
            "SELECT ratio AS keyed, count(*) AS n FROM contract.placed GROUP BY ratio",
            "does not group by",
        ),
        (
            "SELECT keyed, sum(total)::bigint AS n FROM contract.placed GROUP BY keyed",
            "is cast from",
        ),
        (
            "SELECT keyed, count(DISTINCT ratio) AS n FROM contract.placed GROUP BY keyed",
            "tell values",
        ),
    ],
)
async def test_what_would_mean_something_else_is_refused(tables, sql, match):
    with pytest.raises(ViewDefinitionError, match=match):
        async with totalled(tables.settings, tables.store, sql=sql) as app:
            await app.deploy()


async def test_sql_of_ones_own_over_views_and_events(tables):
    """One SELECT over a SQL view and a feed: one tenant's rows, no older than the token."""
    async with totalled(tables.settings, tables.store) as app:
        events = app.feed("events", types=[Placed, Removed], store=tables.store)
    async with app:
        await app.deploy()
        await app.append(Placed(1, "secret", Decimal(5)), tenant="other")
        async with app.relay():
            for n in range(3):
                both = Placed(n, f"k{n}", Decimal(n), count=n), Removed(n, f"k{n}")
                token = (await app.append(*both)).token
                found = await app.query(
                    "-- how many\nWITH {least:Int64} AS least SELECT t.keyed AS keyed, t.events AS events, count(e.count) AS n "
                    "FROM totals AS t JOIN events.contract.placed AS e ON e.keyed = t.keyed "
                    "WHERE e.count >= least GROUP BY ALL ORDER BY keyed",
                    {"least": 0}, views=[totals(app), events], at_least=token, timeout_seconds=30,
                )  # fmt: skip
                assert found == [{"keyed": f"k{m}", "events": 1, "n": 1} for m in range(n + 1)]
            counted = "SELECT type, count() AS n FROM events GROUP BY type ORDER BY type"
            assert await app.query(counted, views=[events]) == [
                {"type": "contract.placed", "n": 3},
                {"type": "contract.removed", "n": 3},
            ]
            assert await app.query(counted, views=[events], tenant="nobody") == []
            shared = await app.query("SELECT * FROM events LIMIT 1", views=[events])
            assert {"order", "keyed", "position", "occurred_at"} <= shared[0].keys()
            assert "total" not in shared[0]
            engine = app._open.engines["analytics"]
            named = await engine.query("SELECT count() FROM headwater.events")
            assert named == [(7,)]  # the name that other programs read shows all tenants
            for refused in ("DROP TABLE totals", "INSERT INTO totals SELECT 1", "WITH RECURSIVE a AS (SELECT 1) SELECT 1", ""):  # fmt: skip
                with pytest.raises(QueryRefused):
                    await app.query(refused, views=[events])
            with pytest.raises(DefinitionError, match="another store"):
                await app.query(counted, views=[events, app.view("plain")])


def test_what_is_not_offered_is_refused_when_the_app_is_built():
    with pytest.raises(ViewDefinitionError, match="does not run a fold"):
        make(Settings(), clickhouse_store())
    app = App("shop", events=[Placed], tenant="main")

    @app.fold(key="keyed")
    def orders(state: Order, event: Placed) -> Order | None:
        return state

    with pytest.raises(ViewDefinitionError, match="only a view in Postgres"):
        app.sql("sales", key=(), sql="SELECT count(*) AS n FROM orders", store=clickhouse_store())
    for url in ("", "chdb://", "redis://x", "http://localhost:8123"):
        with pytest.raises(SettingError, match="HEADWATER_STORE_ANALYTICS_URL"):
            clickhouse_store().engine(url)


@pytest.mark.parametrize(
    ("package", "extra"), [("clickhouse_connect", "clickhouse"), ("chdb", "chdb")]
)
def test_a_missing_extra_is_named(package, extra, tmp_path):
    code = (
        f"import sys; sys.modules['{package}'] = None\n"
        "from headwater.stores.clickhouse import ClickHouse\n"
        "from headwater.errors import ExtraMissing\n"
        f"try: ClickHouse('analytics').engine('chdb://{tmp_path}')\n"
        "except ExtraMissing as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"pip install 'headwater[{extra}]'" in said.stdout


@pytest.mark.parametrize(
    ("version", "refused"), [("24.3.1.5", True), ("25.8.1", False), ("26.9.2.1", False)]
)
def test_a_server_that_is_too_old_is_refused(version, refused):
    with pytest.raises(StoreRefused, match=r"25\.8") if refused else nullcontext():
        refuse("analytics", version)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("Code: 516. DB::Exception: Authentication failed", StoreRefused),
        ("Code: 243. DB::Exception: Cannot reserve 1.00 MiB, not enough space", StoreUnavailable),
        ("Connection refused", StoreUnavailable),
        ("Code: 395. DB::Exception: headwater: the lease is lost", LeaseLost),
    ],
)
def test_what_the_engine_says_has_a_defined_outcome(said, error):
    engine = clickhouse_store().engine("http://localhost:1/facts")
    assert isinstance(engine._translated(said), error)


async def test_a_server_that_does_not_answer_is_unavailable():
    engine = clickhouse_store().engine("http://localhost:1/facts")
    with pytest.raises(StoreUnavailable):
        await engine.query("SELECT 1")
