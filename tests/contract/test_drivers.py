"""Promise 1, one commit, with every driver that an application may bring."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal

import asyncpg
import psycopg
import pytest
import sqlalchemy
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from headwater import App, Fact, Settings, errors
from headwater.blocking import BlockingApp
from headwater.log.driver import BlockingWriter
from headwater.operations.migrate import admit_application
from support.shop import Order, Placed, Total

pytestmark = pytest.mark.postgres


@pytest.fixture
async def app(database18):
    app = App("drivers", events=[Placed], tenant="main", settings=Settings(database_url=database18.url))  # fmt: skip
    with database18.admin() as admin:
        admin.execute("CREATE TABLE orders (id text PRIMARY KEY)")
        if not admin.execute("SELECT FROM pg_roles WHERE rolname = 'shop'").fetchall():
            admin.execute("CREATE ROLE shop LOGIN")
        admin.execute("GRANT ALL ON orders TO shop")
    await admit_application(database18.admin_url, "shop")
    async with app:
        await app.deploy()
        yield app


@pytest.fixture
def url(database18):
    """The application's own login, as its own connections use it."""
    return database18.server.postgres.url(database18.name, user="shop")


class Rollback(Exception):
    """The application changes its mind."""


def alchemy(url, driver):
    return url.replace("postgresql://", f"postgresql+{driver}://")


@asynccontextmanager
async def asyncpg_connection(url):
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("INSERT INTO orders VALUES ('1')")
            yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def asyncpg_pool(url):
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool, pool.acquire() as connection, connection.transaction():  # fmt: skip
        await connection.execute("INSERT INTO orders VALUES ('1')")
        yield connection


@asynccontextmanager
async def psycopg_async(url):
    async with await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as connection:
        await connection.execute("INSERT INTO orders VALUES ('1')")
        yield connection


@asynccontextmanager
async def alchemy_session(url, driver):
    engine = create_async_engine(alchemy(url, driver))
    try:
        async with AsyncSession(engine) as session, session.begin():
            await session.execute(sqlalchemy.text("INSERT INTO orders VALUES ('1')"))
            yield session
    finally:
        await engine.dispose()


@asynccontextmanager
async def alchemy_fact_first(url):
    """The append is the session's first statement, so it has to begin the transaction."""
    engine = create_async_engine(alchemy(url, "asyncpg"))
    try:
        async with AsyncSession(engine) as session, session.begin():
            yield session
            await session.execute(sqlalchemy.text("INSERT INTO orders VALUES ('1')"))
    finally:
        await engine.dispose()


@contextmanager
def alchemy_blocking(url):
    engine = sqlalchemy.create_engine(alchemy(url, "psycopg"))
    with Session(engine) as session, session.begin():
        session.execute(sqlalchemy.text("INSERT INTO orders VALUES ('1')"))
        yield session
    engine.dispose()


@contextmanager
def psycopg_blocking(url):
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO orders VALUES ('1')")
        yield connection


@contextmanager
def django_atomic(url):
    import django
    from django.conf import settings
    from django.db import connections, transaction

    told = psycopg.conninfo.conninfo_to_dict(url)
    if not settings.configured:
        settings.configure(DATABASES={})
        django.setup()
    alias = f"shop_{told['dbname']}"
    connections.databases[alias] = connections.configure_settings(
        {
            "default": {},
            alias: {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": told["dbname"],
                "USER": told["user"],
                "HOST": told["host"],
                "PORT": told.get("port", ""),
            },
        }
    )[alias]
    try:
        with transaction.atomic(using=alias):
            with connections[alias].cursor() as cursor:
                cursor.execute("INSERT INTO orders VALUES ('1')")
            yield connections[alias]
    finally:
        connections[alias].close()


DRIVERS = {
    "psycopg": psycopg_async,
    "psycopg, blocking": psycopg_blocking,
    "asyncpg": asyncpg_connection,
    "asyncpg pool": asyncpg_pool,
    "SQLAlchemy on asyncpg": lambda url: alchemy_session(url, "asyncpg"),
    "SQLAlchemy on psycopg": lambda url: alchemy_session(url, "psycopg"),
    "SQLAlchemy, the fact first": alchemy_fact_first,
    "SQLAlchemy, blocking": alchemy_blocking,
    "Django": django_atomic,
}


async def appended(app, connect, url, *events, after=None, **options):
    """Changes the table and appends in one transaction of the driver's."""
    manager = connect(url)
    if not hasattr(manager, "__aenter__"):
        return await asyncio.to_thread(_blocking, app, manager, events, after, options)
    async with manager as session:
        written = await app.on(session).append(*events, **options)
        if after is not None:
            raise after
        return written


def _blocking(app, manager, events, after, options):
    with manager as session:
        writer = app.on(session)
        assert isinstance(writer, BlockingWriter)
        written = writer.append(*events, **options)
        if after is not None:
            raise after
        return written


def found(database):
    with database.admin() as admin:
        return admin.execute(
            "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM headwater.events)"
        ).fetchone()


@pytest.mark.parametrize("driver", DRIVERS)
async def test_change_and_fact_commit_together(app, database18, url, driver):
    facts = [Placed("1", Decimal("1.50")), Fact(event=Placed("1", Decimal(2)), expect=1, metadata={"n": 1}, keys=["a"])]  # fmt: skip
    written = await appended(app, DRIVERS[driver], url, *facts, expect=0, idempotency_key="k1")
    assert (found(database18), tuple(written.versions), written.duplicate) == (
        (1, 2),
        (1, 2),
        False,
    )
    read = await app.log.stream("order/1", tenant="main")
    assert [(e.event, e.metadata, e.keys) for e in read] == [
        (Placed("1", Decimal("1.50")), {}, ()),
        (Placed("1", Decimal(2)), {"n": 1}, ("a",)),
    ]
    assert written.token.endswith(f".{written.position}")


@pytest.mark.parametrize("driver", DRIVERS)
async def test_neither_change_nor_fact_survives_a_rollback(app, database18, url, driver):
    with pytest.raises(Rollback):
        await appended(app, DRIVERS[driver], url, Placed("1", Decimal(1)), after=Rollback())
    assert found(database18) == (0, 0)


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_refusal_is_headwaters_and_takes_the_change_with_it(app, database18, url, driver):
    with pytest.raises(errors.VersionConflict) as raised:
        await appended(app, DRIVERS[driver], url, Placed("1", Decimal(1)), expect=7)
    assert (raised.value.stream, raised.value.expected, raised.value.actual) == ("order/1", 7, 0)
    assert found(database18) == (0, 0)


async def test_without_a_transaction_nothing_is_appended(app, database18, url):
    connection = await asyncpg.connect(url)
    with pytest.raises(errors.TransactionMissing):
        await app.on(connection).append(Placed("1", Decimal(1)))
    await connection.close()
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as own:
        with pytest.raises(errors.TransactionMissing):
            await app.on(own).append(Placed("1", Decimal(1)))
    with psycopg.connect(url, autocommit=True) as own, pytest.raises(errors.TransactionMissing):  # fmt: skip
        app.on(own).append(Placed("1", Decimal(1)))
    assert found(database18) == (0, 0)


def test_a_connection_of_an_unknown_kind_is_refused(database18):
    app = App("drivers", events=[Placed], tenant="main")
    with pytest.raises(errors.SettingError, match=r"builtins\.object"):
        app.on(object())


def test_blocking_code_appends_and_reads_its_own_writes(database18):
    shop = App("blocking", events=[Placed], tenant="main", settings=Settings(database_url=database18.url))  # fmt: skip

    @shop.fold(key="order")
    def orders(state: Order, event: Placed) -> Order | None:
        return state.but(total=state.total + event.total, events=state.events + 1)

    counts = shop.sql(
        "counts", row=Total, key=(), sql="SELECT count(*) AS orders FROM order.placed"
    )

    async def driven(stop):
        relayed = App("relay", events=[Placed], tenant="main", settings=shop.settings)
        relayed.fold(key="order", name="orders")(orders.fold.evolve)
        relayed.sql("counts", row=Total, key=(), sql=counts.view.text)
        async with relayed:
            await relayed.deploy()
            async with relayed.relay():
                ready.set()
                await asyncio.to_thread(stop.wait)

    stop, ready = threading.Event(), threading.Event()
    relay = threading.Thread(target=lambda: asyncio.run(driven(stop)))
    relay.start()
    assert ready.wait(30)
    try:
        with BlockingApp(shop) as app:
            written = [app.append(Placed("1", Decimal(n))) for n in range(5)]
            token = written[-1].token
            assert app.get(orders, "1", at_least=token) == Order(total=Decimal(10), events=5)
            assert app.row(counts, at_least=token) == Total(orders=5)
            assert app.query(
                "SELECT orders FROM headwater_views.counts", views=[counts], at_least=token
            ) == [{"orders": 5}]
            with pytest.raises(errors.VersionConflict):
                app.append(Placed("1", Decimal(1)), expect=1)
        app.append(Placed("1", Decimal(1)))  # opens again
        app.close()
    finally:
        stop.set()
        relay.join()


def test_an_app_opened_before_a_fork_says_so(database18):
    shop = App("forked", events=[Placed], tenant="main", settings=Settings(database_url=database18.url))  # fmt: skip
    with BlockingApp(shop) as app:
        app._process -= 1  # as a child sees it
        with pytest.raises(errors.SettingError, match="forked"):
            app.append(Placed("1", Decimal(1)))
        app._process += 1
