"""The log on a real Postgres: appending, refusing, reading."""

from __future__ import annotations

import asyncio
from datetime import datetime
from decimal import Decimal

import psycopg
import pytest

from headwater import errors
from headwater.events import Event, EventTypes
from headwater.log import Database, LogReader, SharedCommits, Ticker, Writer
from headwater.log.database import connect
from headwater.log.registry import register
from headwater.log.writing import group_of

pytestmark = pytest.mark.postgres


class Placed(Event, type="order.placed", stream="order/{order}"):
    order: str
    total: Decimal
    at: datetime | None = None


class Sent(Event, type="order.sent", stream="order/{order}", keys=("sent:{order}",)):
    order: str


class Voided(Event, type="order.voided", stream="order/{order}", keys=("sent:{order}",)):
    order: str


TYPES = EventTypes([Placed])


@pytest.fixture
async def app(database):
    operator = Database(database.url, "headwater_operator")
    await operator.open()
    await register(operator, TYPES)
    await operator.close()
    app = Database(database.url, "headwater_app")
    await app.open()
    yield app
    await app.close()


async def publish(url):
    async with await connect(url, "headwater_relay") as connection:
        ticker = Ticker(connection)
        while await ticker.tick():
            pass


async def test_a_fact_commits_with_the_applications_change_or_not_at_all(database, app):
    """Promise 1, one commit."""
    async with app.transaction("main") as connection:
        await connection.execute("CREATE SCHEMA shop; CREATE TABLE shop.orders (id text)")
    with pytest.raises(ZeroDivisionError):
        async with app.transaction("main") as connection:
            await connection.execute("INSERT INTO shop.orders VALUES ('1')")
            await Writer(connection, "main").append(Placed("1", Decimal(5)))
            raise ZeroDivisionError
    async with app.transaction("main") as connection:
        await connection.execute("INSERT INTO shop.orders VALUES ('2')")
        written = await Writer(connection, "main").append(Placed("2", Decimal(5)))
    await publish(database.url)
    events = await LogReader(app, TYPES).read(tenant="main")
    assert [(e.position, e.stream) for e in events] == [(written.position, "order/2")]
    async with app.connection() as connection:
        rows = await (await connection.execute("SELECT id FROM shop.orders")).fetchall()
    assert rows == [("2",)]


async def test_readers_pass_by_what_their_app_does_not_declare(app, database):
    operator = Database(database.url, "headwater_operator")
    await register(operator, EventTypes([Sent, Voided]))
    await operator.close()
    async with app.transaction("main") as connection:
        await Writer(connection, "main").append(Sent("1"), Voided("1"), Sent("1"))
    await publish(database.url)
    older = LogReader(app, EventTypes([Sent]))
    assert [e.version for e in await older.read(tenant="main")] == [1, 3]
    assert [e.version for e in await older.stream("order/1", tenant="main", max_rows=2)] == [1, 3]
    assert [e.version for e in await older.with_key("sent:1", tenant="main")] == [1, 3]
    tail = older.tail(tenant="main", max_rows=1)
    assert [(await anext(tail)).version for _ in range(2)] == [1, 3]
    with pytest.raises(errors.UnknownEventType, match=r"order\.voided"):
        await older.read(types=["order.voided"], tenant="main")


@pytest.mark.parametrize("total", ["-0.000000001", "1E+3", "0E-10", "1E-300"])
async def test_a_decimal_is_what_it_is_however_python_writes_it(app, total):
    async with app.transaction("main") as connection:
        await Writer(connection, "main").append(Placed("1", Decimal(total)))
    (event,) = await LogReader(app, TYPES).stream("order/1", tenant="main")
    assert event.event.total == Decimal(total)


async def test_versions_are_dense_and_checked(app):
    async with app.transaction() as connection:
        writer = Writer(connection, "main")
        first = await writer.append(Placed("1", Decimal(1)), Placed("1", Decimal(2)), expect=0)
        second = await writer.append(Placed("1", Decimal(3)), expect=2)
    assert (first.versions, second.version) == ([1, 2], 3)
    with pytest.raises(errors.VersionConflict) as conflict:
        async with app.transaction() as connection:
            await Writer(connection, "main").append(Placed("1", Decimal(4)), expect=2)
    assert (conflict.value.stream, conflict.value.actual, conflict.value.expected) == (
        "order/1",
        3,
        2,
    )


async def test_one_callers_conflict_never_fails_another(app):
    from headwater.log.writing import group_of

    shared = SharedCommits(app, writers=1)
    await shared.start()
    try:
        answers = await asyncio.gather(
            *(
                shared.append(
                    group_of(
                        "main", [Placed(str(n % 10), Decimal(n))], expect=n // 10 if n % 3 else 99
                    )
                )
                for n in range(100)
            ),
            return_exceptions=True,
        )
    finally:
        await shared.stop()
    refused = [a for a in answers if isinstance(a, errors.VersionConflict)]
    written = [a for a in answers if not isinstance(a, Exception)]
    assert len(refused) + len(written) == 100
    assert len(refused) >= 34
    reader = LogReader(app, TYPES)
    for n in range(10):
        versions = [e.version for e in await reader.stream(f"order/{n}", tenant="main")]
        assert versions == list(range(1, len(versions) + 1))


async def test_a_key_returns_the_first_result_and_refuses_another_request(app):
    async def append(total, key="k", orders=("1",)):
        async with app.transaction() as connection:
            events = [Placed(order, Decimal(total)) for order in orders]
            return await Writer(connection, "main").append(*events, idempotency_key=key)

    first = await append(1)
    again = await append(1)
    assert (again.duplicate, again.position, again.token) == (True, first.position, first.token)
    with pytest.raises(errors.IdempotencyKeyReused):
        await append(2)
    shared = SharedCommits(app)  # whichever way the request comes, it is the same request
    await shared.start()
    by_another_way = group_of("main", [Placed("1", Decimal(1))], idempotency_key="k")
    assert (await shared.append(by_another_way)).position == first.position
    await shared.stop()
    several = await append(1, "many", ("1", "2", "1"))
    repeated = await append(1, "many", ("1", "2", "1"))
    assert repeated.duplicate
    assert (list(repeated.positions), list(repeated.versions)) == (
        list(several.positions),
        list(several.versions),
    )


@pytest.mark.parametrize(
    ("statement", "state", "words"),
    [
        ("SELECT headwater.append('order/1', 'order.gone', '{}')", "HW003", "not registered"),
        ("SELECT headwater.append('order/1', 'order.placed', '{}')", "HW004", "order is missing"),
        (
            """SELECT headwater.append('order/1', 'order.placed', '{"order": 1, "total": 1}')""",
            "HW004",
            "order",
        ),
        (
            """SELECT headwater.append('order/1', 'order.placed', '{"order": "1", "total": "x"}')""",
            "HW004",
            "total",
        ),
        (
            """SELECT headwater.append('order/1', 'order.placed', '{"order": "1", "total": 1, "z": 1}')""",
            "HW004",
            "z",
        ),
        (
            """SELECT headwater.append('order/1', 'order.placed', '{"order": "1", "total": 1, "at": "2026-02-30T00:00:00Z"}')""",
            "HW004",
            "at",
        ),
        (
            """SELECT headwater.append('order 1', 'order.placed', '{"order": "1", "total": 1}')""",
            "HW005",
            "malformed",
        ),
        (
            """SELECT headwater.append('order/2', 'order.placed', '{"order": "1", "total": 1}')""",
            "HW004",
            "order/{order}",
        ),
        (
            """SELECT headwater.append('order/1', 'order.placed', '{"order": "1", "total": 1}', tenant => 'other')""",
            "HW006",
            "other",
        ),
        (
            """SELECT headwater.append('order/1', 'order.placed', '{"order": "1", "total": 1}', 7)""",
            "HW001",
            "version 0, not 7",
        ),
        ("INSERT INTO headwater.events (position) VALUES (1)", "42501", "permission denied"),
        ("SELECT nextval('headwater.position_seq')", "42501", "permission denied"),
        ("UPDATE headwater.streams SET version = 9", "42501", "permission denied"),
    ],
)
async def test_plain_sql_is_refused_what_python_is_and_leaves_nothing(app, statement, state, words):
    """Promise 7, bad input leaves no trace."""
    with pytest.raises(Exception) as refused:
        async with app.transaction("main") as connection:
            await connection.execute(statement)
    cause = refused.value if isinstance(refused.value, psycopg.Error) else refused.value.__cause__
    assert cause.sqlstate == state
    assert words in str(cause)
    if state.startswith("HW"):
        assert cause.diag.message_hint
    async with app.transaction("main") as connection:
        for table in ("events", "streams"):
            rows = await (
                await connection.execute(f"SELECT count(*) FROM headwater.{table}")
            ).fetchone()
            assert rows == (0,)


async def test_no_tenant_sees_anothers_events(database, app):
    """Promise 7, isolation of tenants."""
    for tenant in ("a", "b"):
        async with app.transaction() as connection:
            await Writer(connection, tenant).append(Placed("1", Decimal(1)))
    async with app.transaction("a") as connection:
        rows = await (
            await connection.execute("SELECT DISTINCT tenant FROM headwater.events")
        ).fetchall()
    assert rows == [("a",)]
    async with app.connection() as connection:
        rows = await (await connection.execute("SELECT count(*) FROM headwater.events")).fetchall()
    assert rows == [(0,)]


async def test_a_superuser_is_refused_with_the_way_out(database):
    with pytest.raises(errors.RoleBypassesSecurity, match="headwater init --login"):
        await Database(database.admin_url, "headwater_app").open()


async def test_reading_under_another_isolation_is_refused(app):
    with pytest.raises(errors.IsolationRefused):
        async with app.connection() as connection:
            await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            try:
                await connection.execute("SELECT * FROM headwater.read(0)")
            finally:
                await connection.execute("ROLLBACK")


async def test_dates_are_checked_alike_everywhere(database, app):
    good = ["2026-02-28T23:59:59Z", "2024-02-29T00:00:00.123456+05:30", "1999-12-31T12:00:00+00:00"]
    bad = ["2026-02-30T00:00:00Z", "2026-01-01", "2026-01-01T24:00:00Z", "2026-01-01T00:00:00", "now",
           "2026-01-01T00:00:60Z", "0000-01-01T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00+0530"]  # fmt: skip
    with database.admin() as admin:
        for text in good + bad:
            (accepted,) = admin.execute(
                "SELECT coalesce(headwater.is_date_time(%s), false)", [text]
            ).fetchone()
            assert accepted == (text in good), text
    for text in good:
        EventTypes([Placed]).named("order.placed").decode(
            f'{{"order":"1","total":1,"at":"{text}"}}'
        )


@pytest.mark.parametrize(
    "statement",
    [
        """SELECT headwater.append('order/1', 'order.placed', '{"order": "1", "total": 1}')""",
        """SELECT headwater.append_many('[{"stream": "order/1", "type": "order.placed", "data": {"order": "1", "total": 1}}]')""",
    ],
)
async def test_a_malformed_tenant_of_the_session_is_refused(app, statement):
    for tenant in ("a b", "x" * 101, "-", "a\nb"):
        with pytest.raises(errors.TenantMissing, match="malformed"):
            async with app.transaction(tenant) as connection:
                await connection.execute(statement)


async def test_an_append_behind_many_that_gave_up_is_written(app):
    commits = SharedCommits(app, writers=1)

    def asked(order):
        return asyncio.create_task(commits.append(group_of("main", [Placed(order, Decimal(1))])))

    gave_up = [asked(f"{number}") for number in range(600)]  # more than one commit takes
    await asyncio.sleep(0)
    for task in gave_up:
        task.cancel()
    await asyncio.gather(*gave_up, return_exceptions=True)
    behind = asked("behind")
    await asyncio.sleep(0)
    await commits.start()
    async with asyncio.timeout(60):
        assert (await behind).version == 1
    await commits.stop()
