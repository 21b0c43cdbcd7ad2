"""Tables captured by logical replication: what each transaction becomes, and what is refused."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from headwater import errors
from headwater.capture import (
    CaptureOptions,
    begin_resync,
    capture,
    close_slot,
    make_told,
    problems,
    release,
)
from tests.contract.test_capture_backfill import ROWS, write
from tests.support.captured import Shop
from tests.support.reading import POINTS
from tests.support.replicated import REPLICATED, ReplicatedShop

pytestmark = pytest.mark.postgres

ROOT = Path(__file__).parents[2]

ORDERS = "CREATE TABLE orders (id int PRIMARY KEY, total numeric(10,2) NOT NULL, note text)"


async def opened(database):
    shop = ReplicatedShop(database)
    shop.run(ORDERS)
    yield shop
    await shop.close()


@pytest.fixture
async def shop(database):
    async for shop in opened(database):
        yield shop


@pytest.fixture
async def shop18(database18):
    async for shop in opened(database18):
        yield shop


async def test_each_change_is_the_same_event_as_by_triggers(shop):
    shop.run("INSERT INTO orders VALUES (9, 9, 'before')")
    async with shop.reading():
        await shop.capture()
        shop.run("INSERT INTO orders VALUES (1, 5, 'a'), (2, 6, NULL)")
        shop.run("UPDATE orders SET total = 7 WHERE id = 1")
        with shop.writer.transaction(force_rollback=True):
            shop.run("DELETE FROM orders")
        shop.run("UPDATE orders SET total = total")
        shop.run("UPDATE orders SET id = 3 WHERE id = 1")
        shop.run("DELETE FROM orders WHERE id = 2")
        await shop.until_read()
    assert [event[:4] for event in shop.log()] == [
        ("shop-orders/9", 1, "inserted", {"id": 9, "total": "9.00", "note": "before"}),
        ("shop-orders/1", 1, "inserted", {"id": 1, "total": "5.00", "note": "a"}),
        ("shop-orders/2", 1, "inserted", {"id": 2, "total": "6.00", "note": None}),
        ("shop-orders/1", 2, "updated", {"id": 1, "total": "7.00", "note": "a", "before": {"total": "5.00"}}),
        ("shop-orders/1", 3, "deleted", {"id": 1, "total": "7.00", "note": "a"}),
        ("shop-orders/3", 1, "inserted", {"id": 3, "total": "7.00", "note": "a"}),
        ("shop-orders/2", 2, "deleted", {"id": 2, "total": "6.00", "note": None}),
    ]  # fmt: skip
    assert shop.misfits() == []


def table_rows(shop):
    return {f"shop-orders/{key}": (str(total), note) for key, total, note in shop.run("SELECT id, total, note FROM orders")}  # fmt: skip


def log_rows(shop):
    return {stream: (row["total"], row["note"]) for (_, stream), row in shop.fold().items()}


def writers_of(shop, done, failures, count=3):
    threads = [threading.Thread(target=write, args=(shop, seed, done, failures)) for seed in range(count)]  # fmt: skip
    for thread in threads:
        thread.start()
    return threads


async def test_writers_and_comparison_together_tell_one_story(shop):
    """No gap and no double: the fold of the log is the table, whatever committed beside the comparison."""
    shop.run(f"INSERT INTO orders SELECT n, n FROM generate_series(1, {ROWS}) AS n")
    shop.run("INSERT INTO orders VALUES (-1, 1)")  # no writer changes it: compared, whoever is quicker
    done, failures = threading.Event(), []
    threads = writers_of(shop, done, failures)
    try:
        async with shop.reading():
            await shop.capture()
            shop.run("INSERT INTO orders VALUES (-2, 1)")
            done.set()
            await asyncio.to_thread(lambda: [thread.join() for thread in threads])
            await shop.until_read()
    finally:
        done.set()
    assert failures == []
    assert log_rows(shop) == table_rows(shop)
    assert shop.misfits() == []
    assert {"shop-orders/-1"} <= shop.backfilled() - shop.told()
    assert {"shop-orders/-2"} <= shop.told() - shop.backfilled()


@pytest.mark.parametrize("point", POINTS)
async def test_a_reader_killed_at_any_step_loses_and_doubles_nothing(shop18, point):
    async with shop18.reading():
        await shop18.capture()
    command = [sys.executable, "-m", "tests.support.reading", shop18.url]
    killed = 0
    for at_call in (2,):
        process = subprocess.Popen([*command, point, str(at_call)], cwd=ROOT)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            shop18.run("INSERT INTO orders VALUES ((SELECT count(*) FROM orders), 1)")
            shop18.run("UPDATE orders SET total = total + 1 WHERE id % 7 = 0")
            shop18.run("DELETE FROM orders WHERE id = -1")
            await asyncio.sleep(0.005)
        killed += process.poll() == -signal.SIGKILL
        process.kill()
        process.wait()
    assert killed == 1
    async with shop18.reading():
        await shop18.until_read()
    assert log_rows(shop18) == table_rows(shop18)


async def test_a_large_transaction_is_told_whole(shop18):
    async with shop18.reading():
        await shop18.capture()
        with shop18.writer.transaction():
            shop18.run("INSERT INTO orders SELECT n, n FROM generate_series(1, 7000) AS n")
            shop18.run("UPDATE orders SET total = 0, note = repeat('x', 5000) WHERE id = 1")
            shop18.run("DELETE FROM orders WHERE id > 6000")
        await shop18.until_read()
        with shop18.database.admin() as admin:
            (transactions,) = admin.execute(
                "SELECT count(DISTINCT xmin::text) FROM headwater.events"
            ).fetchone()
        assert transactions == 1
        shop18.run("TRUNCATE orders")
        shop18.run("INSERT INTO orders VALUES (1, 1)")
        await shop18.until_read()
    assert len(shop18.log()) == 7000 + 1 + 1000 + 6000 + 1
    assert log_rows(shop18) == {"shop-orders/1": ("1.00", None)}


async def test_values_that_the_slot_leaves_out_are_the_logs(shop):
    """An unchanged value that is stored apart is not in the WAL; the row is told whole all the same."""
    shop.run("ALTER TABLE orders ALTER COLUMN note SET STORAGE EXTERNAL")
    shop.run("INSERT INTO orders VALUES (1, 1, repeat('a', 5000)), (2, 1, repeat('b', 2000000))")
    async with shop.reading():
        await shop.capture()
        shop.run("UPDATE orders SET total = 2")
        shop.run("UPDATE orders SET total = 3")
        shop.run("UPDATE orders SET note = 'c' WHERE id = 1")
        await shop.until_read()
    first = [e for e in shop.log() if e[0] == "shop-orders/1"]
    assert [(e[2], e[3]["total"], len(e[3]["note"])) for e in first] == [
        ("inserted", "1.00", 5000), ("updated", "2.00", 5000), ("updated", "3.00", 5000), ("updated", "3.00", 1)]  # fmt: skip
    assert first[1][3]["before"] == {"total": "1.00"}
    second = [e for e in shop.log() if e[0] == "shop-orders/2"]
    assert {e[3]["note"] for e in second} == {second[0][3]["note"]}
    assert [list(e[4]["exact"]) for e in second] == [["note"]] * 3


async def test_rows_told_in_part_while_they_are_compared_are_read_again(shop18):
    shop18.run("ALTER TABLE orders ALTER COLUMN note SET STORAGE EXTERNAL")
    shop18.run("INSERT INTO orders SELECT n, 1, repeat('a', 5000) FROM generate_series(1, 50) AS n")
    async with shop18.reading():
        captured = await shop18.capture(whole=False)
        shop18.run("UPDATE orders SET total = 2 WHERE id <= 10")
        shop18.run("DELETE FROM orders WHERE id = 50")
        await shop18.until_read()
        assert shop18.log() == []
        await shop18.fill(captured)
    assert len(log_rows(shop18)) == 49
    assert log_rows(shop18) == table_rows(shop18)
    assert shop18.state() == [("live", None), ("live", None)]


async def test_altered_tables_are_followed_at_their_place_in_the_stream(shop):
    """ALTERs that committed before the reader came are told in their order, with the names of then."""
    async with shop.reading():
        await shop.capture()
    shop.run("INSERT INTO orders VALUES (1, 1, 'a')")
    shop.run("ALTER TABLE orders RENAME COLUMN note TO remark")
    shop.run("INSERT INTO orders VALUES (2, 2, 'b')")
    shop.run("ALTER TABLE orders ADD COLUMN paid boolean NOT NULL DEFAULT false, DROP COLUMN total")
    shop.run("INSERT INTO orders VALUES (3, 'c', true)")
    async with shop.reading():
        await shop.until_read()
    assert [event[3] for event in shop.log()] == [
        {"id": 1, "total": "1.00", "note": "a"},
        {"id": 2, "total": "2.00", "remark": "b"},
        {"id": 3, "remark": "c", "paid": True},
    ]
    assert [event[5] for event in shop.log()] == [1, 2, 3]
    assert shop.misfits() == []


async def test_a_lost_slot_stops_the_capture_until_a_resync_tells_the_difference(shop):
    shop.run("INSERT INTO orders SELECT n, n FROM generate_series(1, 50) AS n")
    async with shop.reading():
        captured = await shop.capture()
    shop.drop_slots()
    shop.run("INSERT INTO orders VALUES (100, 1)")
    shop.run("DELETE FROM orders WHERE id <= 5")
    shop.run("UPDATE orders SET total = 0 WHERE id = 6")
    async with shop.reading() as reader:
        while reader.standing.state != "lost":
            await asyncio.sleep(0.01)
        assert [state for state, _ in shop.state()] == ["lost", "lost"]
        assert len(shop.log()) == 50
        await begin_resync(shop.operator, captured)
        await make_told(shop.operator, shop.url, captured.id)
        shop.run("UPDATE orders SET total = 1 WHERE id = 7")
        await shop.fill(captured)
        shop.run("UPDATE orders SET total = 2 WHERE id = 7")
        await shop.until_read()
    found = shop.log("metadata ? 'resync'")
    assert {(stream, verb) for stream, _, verb, *_ in found} - {("shop-orders/7", "updated")} == {
        ("shop-orders/100", "inserted"), ("shop-orders/6", "updated"),
        *((f"shop-orders/{n}", "deleted") for n in range(1, 6))}  # fmt: skip
    assert log_rows(shop) == table_rows(shop)
    assert [state for state, _ in shop.state()] == ["live", "live"]


async def test_a_part_of_an_unknown_row_stops_the_capture_until_a_resync(shop18):
    shop18.run("ALTER TABLE orders ALTER COLUMN note SET STORAGE EXTERNAL")
    shop18.run("INSERT INTO orders VALUES (1, 1, repeat('a', 5000))")
    async with shop18.reading():
        captured = await shop18.capture()
        shop18.run("UPDATE orders SET id = 2")
        await shop18.until_read()
        assert [state for state, _ in shop18.state()] == ["live", "lost"]
        await begin_resync(shop18.operator, captured)
        shop18.run("INSERT INTO orders VALUES (3, 3)")
        await shop18.fill(captured)
        shop18.run("UPDATE orders SET total = 4 WHERE id = 3")
        await shop18.until_read()
    assert log_rows(shop18) == table_rows(shop18)
    assert [state for state, _ in shop18.state()] == ["live", "live"]


async def test_two_tables_share_a_slot_and_the_last_takes_it_out(shop):
    shop.run("CREATE TABLE lines (id bigint, n int, what text, PRIMARY KEY (id, n))")
    async with shop.reading():
        await shop.capture()
        await shop.capture("shop.lines")
        with shop.writer.transaction():
            shop.run("INSERT INTO orders VALUES (1, 1)")
            shop.run("INSERT INTO lines VALUES (1, 1, 'a'), (1, 2, 'b')")
            shop.run("UPDATE orders SET total = 2")
        await shop.until_read()
        assert [event[0] for event in shop.log()] == ["shop-orders/1", "shop-lines/1,1", "shop-lines/1,2", "shop-orders/1"]  # fmt: skip
        await release(shop.operator, "shop.orders")
        await close_slot(shop.operator, shop.url)
        shop.run("INSERT INTO orders VALUES (2, 2)")
        shop.run("DELETE FROM lines WHERE n = 1")
        await shop.until_read()
        assert len(shop.log()) == 5
        await release(shop.operator, "shop.lines")
        await close_slot(shop.operator, shop.url)
    with shop.database.admin() as admin:
        assert admin.execute(
            "SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database()) + (SELECT count(*) FROM pg_publication) "
            "+ (SELECT count(*) FROM pg_proc WHERE pronamespace = 'headwater_captures'::regnamespace) + (SELECT count(*) FROM headwater.replication)"
        ).fetchone() == (0,)


@pytest.mark.parametrize("way", ["triggers", "replication"])
async def test_captured_again_the_streams_go_on_with_the_difference(shop, way):
    shop.run("INSERT INTO orders SELECT n, n FROM generate_series(1, 20) AS n")
    await Shop.capture(shop)
    await release(shop.operator, "shop.orders")
    shop.run("DELETE FROM orders WHERE id = 1")
    shop.run("UPDATE orders SET total = 0 WHERE id = 2")
    shop.run("INSERT INTO orders VALUES (30, 1)")
    shop.run("ALTER TABLE orders ADD COLUMN paid boolean")
    again = CaptureOptions(tenant="main", way=way, again=True)
    if way == "triggers":
        captured = await capture(shop.operator, "shop.orders", again)
        shop.run("UPDATE orders SET total = 1 WHERE id = 3")
        await shop.fill(captured)
    else:
        async with shop.reading():
            await shop.capture(options=again)
            shop.run("UPDATE orders SET total = 1 WHERE id = 3")
            await shop.until_read()
    assert log_rows(shop) == table_rows(shop)
    assert {(stream, version, verb) for stream, version, verb, *_ in shop.log("metadata ? 'resync'")} == {
        ("shop-orders/1", 2, "deleted"), ("shop-orders/2", 2, "updated"), ("shop-orders/30", 1, "inserted")}  # fmt: skip
    assert [problem.finding for problem in await problems(shop.operator)] == []


async def test_disabled_triggers_are_named_and_what_they_missed_is_told(shop18):
    shop18.run("INSERT INTO orders SELECT n, n FROM generate_series(9001, 9020) AS n")
    captured = await Shop.capture(shop18)
    shop18.run("ALTER TABLE orders DISABLE TRIGGER USER")
    shop18.run("DELETE FROM orders WHERE id = 9001")
    assert "are disabled" in (await problems(shop18.operator))[0].finding
    shop18.run("ALTER TABLE orders ENABLE TRIGGER USER")
    done, failures = threading.Event(), []
    threads = writers_of(shop18, done, failures)
    await begin_resync(shop18.operator, captured)
    await shop18.fill(captured)
    done.set()
    await asyncio.to_thread(lambda: [thread.join() for thread in threads])
    assert failures == []
    assert log_rows(shop18) == table_rows(shop18)


@pytest.mark.parametrize(
    ("prepare", "options", "says"),
    [
        ("ALTER TABLE orders REPLICA IDENTITY NOTHING", REPLICATED, "REPLICA IDENTITY"),
        ("SELECT", msgspec.structs.replace(REPLICATED, tenant=None, session_tenant=True), "no session"),
        ("SELECT", msgspec.structs.replace(REPLICATED, tenant=None, tenant_column="total"), "REPLICA IDENTITY"),
        ("SELECT", msgspec.structs.replace(REPLICATED, backfill=False), "rows that exist are needed"),
        ("SELECT", msgspec.structs.replace(REPLICATED, again=True), "No table was captured"),
    ],
)  # fmt: skip
async def test_what_replication_cannot_tell_is_refused(shop18, prepare, options, says):
    shop18.run(prepare)
    with pytest.raises(errors.CaptureRefused, match=says):
        await shop18.capture(options=options)
    assert shop18.state() == []


VALUES = {
    "i2 smallint": ["-3"], "i8 bigint": ["9007199254740993"], "n numeric": ["1.50", "NaN", "-Infinity"], "m money": ["1234.5"],
    "f4 real": ["1.1", "NaN"], "f8 double precision": ["1e308", "Infinity", "0.1"], "b boolean": ["t"], "u uuid": ["6f1c8a34-0000-4000-8000-000000000000"],
    "tz timestamptz": ["2026-01-02 03:04:05.678+02", "infinity", "0044-03-15 00:00:00+00 BC"], "d date": ["2026-01-02", "-infinity"],
    "ts timestamp": ["2026-01-02 03:04:05"], "t time": ["03:04:05"], "ttz timetz": ["03:04:05+02"], "iv interval": ["1 year -2 days 03:04:05"],
    "tx text": ["", "a\\b\"c'\n€"], "vc varchar(5)": ["ab "], "ch char(5)": ["ab"], "nm name": ["x"], 'qc "char"': ["q"], "e shop.mood": ["sad"],
    "de shop.feeling": ["ok"], "di shop.positive": ["7"], "ea shop.mood[]": ["{sad,NULL}"], "ia integer[]": ["{1,NULL,3}", "{{1,2},{3,4}}", "{}"],
    "ta text[]": ['{"a,b",NULL,"c\\"d"}'], "dia shop.positive[]": ["{1,2}"], "za timestamptz[]": ['{"2026-01-02 03:04:05+02"}'], "jb jsonb": ['{"a": [1, null, "x"]}', "null"],
    "j json": ['{"b":1,  "b":2}', '"\\u0000"'], "by bytea": ["\\x00ff10"], "ip inet": ["10.0.0.1/8"], "r int4range": ["[1,5)"], "zr tstzrange": ["[2026-01-01 00:00+02,)"],
    "p point": ["(1.5,2)"], "bt bit(5)": ["10101"], "vb varbit": ["101"], "tv tsvector": ["a fat cat"], "co shop.pair": ['(1,"a b")'], "ca shop.pair[]": ['{"(1,x)"}'],
}  # fmt: skip


async def test_values_are_the_same_by_either_way(shop):
    """A row's event says the same, whoever told it: a trigger, the slot, or a comparison."""
    shop.run("CREATE TYPE mood AS ENUM ('sad', 'ok')")
    shop.run("CREATE TYPE pair AS (a int, b text)")
    shop.run("CREATE DOMAIN feeling AS shop.mood")
    shop.run("CREATE DOMAIN positive AS int CHECK (value > 0)")
    for table in ("a", "b"):
        shop.run(f"CREATE TABLE {table} (id int PRIMARY KEY, {', '.join(VALUES)})")
    names = [column.split()[0] for column in VALUES]
    longest = max(len(values) for values in VALUES.values())
    rows = [[values[n % len(values)] for values in VALUES.values()] for n in range(longest)]

    def insert(first):
        for table in ("a", "b"):
            for n, row in enumerate([*rows, [None] * len(names)]):
                columns = f"INSERT INTO {table} (id, {', '.join(names)}) VALUES ({first + n}, {', '.join(['%s'] * len(names))})"
                shop.run(columns, row)

    insert(100)
    async with shop.reading():
        await Shop.capture(shop, "shop.a")
        await shop.capture("shop.b")
        insert(0)
        await shop.until_read()
    told = {}
    for stream, _, _, data, metadata, *_ in shop.log():
        table, key = stream.split("/")
        told.setdefault(key, {})[table] = (data, metadata.get("exact"))
    assert len(told) == 2 * (longest + 1)
    for key, by in told.items():
        (a, exact_a), (b, exact_b) = by["shop-a"], by["shop-b"]
        assert {name: (a[name], b[name]) for name in a if a[name] != b[name]} == {}, key
        assert exact_a == exact_b, key


async def test_partitions_are_told_as_the_table_they_are_of(shop):
    """Whoever writes to which, and those that come later too."""
    shop.run(
        "CREATE TABLE parts (id int, region text, total int, PRIMARY KEY (id, region)) PARTITION BY LIST (region)"
    )
    shop.run("CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a')")
    shop.run("CREATE TABLE parts_b PARTITION OF parts FOR VALUES IN ('b')")
    shop.run("INSERT INTO parts VALUES (0, 'a', 1), (4, 'b', 1)")
    async with shop.reading():
        await shop.capture("shop.parts")
        shop.run("INSERT INTO parts VALUES (1, 'a', 1), (2, 'b', 1)")
        shop.run("INSERT INTO parts_a VALUES (3, 'a', 1)")
        shop.run("UPDATE parts_a SET total = 2 WHERE id = 3")
        shop.run("UPDATE parts SET region = 'b' WHERE id = 1")
        shop.run("DELETE FROM parts_b WHERE id = 4")
        shop.run("CREATE TABLE parts_c PARTITION OF parts FOR VALUES IN ('c')")
        shop.run("INSERT INTO parts VALUES (5, 'c', 1)")
        await shop.until_read()
    assert {(stream, row["total"]) for (_, stream), row in shop.fold().items()} == {
        ("shop-parts/0,a", 1), ("shop-parts/1,b", 1), ("shop-parts/2,b", 1), ("shop-parts/3,a", 2),
        ("shop-parts/5,c", 1)}  # fmt: skip
    assert shop.misfits() == []


async def test_a_row_belongs_to_the_tenant_in_its_column(shop):
    shop.run("CREATE TABLE bills (id int PRIMARY KEY, owner text NOT NULL, total int)")
    shop.run("INSERT INTO bills VALUES (0, 'a', 1)")
    options = CaptureOptions(tenant_column="owner", way="replication")
    async with shop.reading():
        with pytest.raises(errors.CaptureRefused, match="does not tell the key and the tenant"):
            await shop.capture("shop.bills", options)
        shop.run("ALTER TABLE bills REPLICA IDENTITY FULL")
        await shop.capture("shop.bills", options)
        shop.run("INSERT INTO bills VALUES (1, 'a', 1), (2, 'b', 1), (3, 'not a tenant!', 1)")
        shop.run("UPDATE bills SET owner = 'c', total = 2 WHERE id = 1")
        shop.run("UPDATE bills SET total = 2 WHERE id = 2")
        shop.run("DELETE FROM bills WHERE id = 0")
        await shop.until_read()
    assert {(tenant[:7], stream, row["total"]) for (tenant, stream), row in shop.fold().items()} == {
        ("c", "shop-bills/1", 2), ("b", "shop-bills/2", 2), ("sha256:", "shop-bills/3", 1)}  # fmt: skip
    assert shop.misfits() == []
