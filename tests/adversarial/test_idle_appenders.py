"""A transaction that appended and then idles holds back readers: it is named, and ended."""

from __future__ import annotations

import psycopg
import pytest
from marked import APPEND, prepare
from scene import Scene

from headwater.log import Ticker

pytestmark = pytest.mark.postgres

APPENDERS = "SELECT pid, gid, state, age_seconds, idle_seconds, login FROM headwater.appenders()"
END_IDLE = "SELECT pid, idle_seconds FROM headwater.end_idle_appenders()"
OVERDUE = "SELECT clock_timestamp() - state_change > interval '1.1 s' FROM pg_stat_activity WHERE pid = %s"
PAUSE = "SELECT pg_sleep(0.2)"


@pytest.fixture
async def scene(database):
    await prepare(database.url)
    async with Scene(database) as scene:
        yield scene


async def fetch(connection, statement):
    return await (await connection.execute(statement)).fetchall()


def make_overdue(database, pid):
    """Waits until the session has idled past the limit of one second, as the server counts it."""
    with database.admin() as admin:
        admin.execute("UPDATE headwater.log SET idle_append_seconds = 1")
        while not admin.execute(OVERDUE, [pid]).fetchone()[0]:
            admin.execute(PAUSE)


async def test_nobody_holds_readers_back(scene):
    await scene.commit("one")
    assert await fetch(scene.relay, APPENDERS) == []
    assert await fetch(scene.relay, END_IDLE) == []


async def test_an_open_appender_is_named_with_its_age(scene):
    idle = await scene.begin("idle")
    await scene.relay.execute(PAUSE)
    [(pid, gid, state, age_seconds, idle_seconds, login)] = await fetch(scene.relay, APPENDERS)
    assert (pid, gid, state) == (idle.info.backend_pid, None, "idle in transaction")
    assert 60 > age_seconds >= idle_seconds >= 0.2
    assert login == "headwater_login"


async def test_the_oldest_comes_first_and_a_reader_not_at_all(scene):
    first = await scene.begin("first")
    second = await scene.begin("second")
    await scene.reading.execute("BEGIN")
    await scene.read()
    pids = [row[0] for row in await fetch(scene.relay, APPENDERS)]
    assert pids == [first.info.backend_pid, second.info.backend_pid]


async def test_a_prepared_appender_is_named_by_its_gid(scene):
    two_phases = await scene.begin("two phases")
    await two_phases.execute("PREPARE TRANSACTION 'a transfer'")
    try:
        await scene.relay.execute(PAUSE)
        [(pid, gid, state, age_seconds, _, login)] = await fetch(scene.relay, APPENDERS)
        assert (pid, gid, state) == (None, "a transfer", "prepared")
        assert 60 > age_seconds >= 0.2
        assert login == "headwater_app"
    finally:
        await two_phases.execute("ROLLBACK PREPARED 'a transfer'")


async def test_a_prepared_appender_with_subtransactions_is_named_once(scene):
    two_phases = await scene.begin("one")
    await two_phases.execute("SAVEPOINT inner_one")
    await two_phases.execute(APPEND, {"line": "two", "mark": "two"})
    await two_phases.execute("RELEASE SAVEPOINT inner_one")
    await two_phases.execute("PREPARE TRANSACTION 'nested'")
    try:
        assert [row[1] for row in await fetch(scene.relay, APPENDERS)] == ["nested"]
    finally:
        await two_phases.execute("ROLLBACK PREPARED 'nested'")


async def test_an_idle_appender_is_ended_once_past_the_limit(scene, database):
    ticker = Ticker(scene.relay)
    idle = await scene.begin("idle")
    await scene.commit("waiting")
    await scene.settle(ticker)
    await scene.read()
    assert scene.marks == []
    assert await fetch(scene.relay, END_IDLE) == [], "30 seconds are allowed"
    make_overdue(database, idle.info.backend_pid)
    [(pid, idle_seconds)] = await fetch(scene.relay, END_IDLE)
    assert pid == idle.info.backend_pid
    assert idle_seconds > 1
    with pytest.raises(psycopg.OperationalError):
        await idle.execute("COMMIT")
    while await fetch(scene.relay, APPENDERS):
        pass
    await scene.settle(ticker)
    await scene.read()
    assert scene.marks == ["waiting"]
    assert not scene.verdict().kinds


async def test_an_idle_transaction_that_appended_nothing_is_let_be(scene, database):
    unrelated = await scene.session()
    await unrelated.execute("BEGIN")
    await unrelated.execute("SELECT pg_current_xact_id()")
    make_overdue(database, unrelated.info.backend_pid)
    assert await fetch(scene.relay, END_IDLE) == []
    await unrelated.execute("COMMIT")


async def test_an_appender_in_another_database_holds_nobody_back(scene, database):
    """A clone's sequence has the same oid."""
    other = f"{database.name}_other"
    with psycopg.connect(database.server.postgres.url(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {other} TEMPLATE {database.server.template}")
        try:
            url = database.server.postgres.url(other, user="headwater_login")
            await prepare(url)
            with psycopg.connect(url) as elsewhere:
                elsewhere.execute("SET ROLE headwater_app")
                elsewhere.execute("SELECT set_config('headwater.tenant', 'main', true)")
                elsewhere.execute(APPEND, {"line": "elsewhere", "mark": "elsewhere"})
                await scene.commit("here")
                await scene.settle(Ticker(scene.relay))
                await scene.read()
                assert scene.marks == ["here"]
                assert await fetch(scene.relay, APPENDERS) == []
        finally:
            admin.execute(f"DROP DATABASE {other} WITH (FORCE)")
