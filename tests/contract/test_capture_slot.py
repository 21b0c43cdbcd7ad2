"""The slot of captures by replication: what it needs, what watches it, what happens when it is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest
from warm import warm

from headwater import errors
from headwater.capture import begin_resync, check_requirements, make_told, monitor
from tests.support.captured import Shop
from tests.support.replicated import ReplicatedShop
from tests.support.web import api

pytestmark = pytest.mark.postgres

ORDERS = "CREATE TABLE orders (id int PRIMARY KEY, total numeric(10,2) NOT NULL, note text)"


async def opened(database):
    shop = ReplicatedShop(database)
    shop.run(ORDERS)
    yield shop
    await shop.close()


@pytest.fixture
async def shop18(database18):
    async for shop in opened(database18):
        yield shop


@pytest.fixture
async def own_shop(own_server):
    async for shop in opened(own_server):
        yield shop


def command(shop, folder, *arguments, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "headwater", *arguments], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=environment(shop, more),
    )  # fmt: skip


def environment(shop, more):
    url = shop.database.url
    return {"HEADWATER_DATABASE_URL": url, "PATH": "/usr/bin:/bin", "COLUMNS": "300", **more}


async def run(shop, folder, *arguments, exits=0, **more):
    done = await asyncio.to_thread(warm().run, arguments, cwd=folder, env=environment(shop, more))
    assert done.returncode == exits, done.stdout + done.stderr
    return done.stdout + done.stderr


def table_rows(shop):
    return {f"shop-orders/{key}": str(total) for key, total in shop.run("SELECT id, total FROM orders")}  # fmt: skip


def log_rows(shop):
    return {stream: row["total"] for (_, stream), row in shop.fold().items()}


async def test_wal_that_postgres_removed_loses_the_slot_and_a_resync_mends_it(own_shop, tmp_path):
    """Under max_slot_wal_keep_size the server takes the slot rather than fill the disk."""
    shop = own_shop
    shop.run("INSERT INTO orders SELECT n, n FROM generate_series(1, 100) AS n")
    await run(shop, tmp_path, "capture", "shop.orders", "--tenant", "main", "--by", "replication")
    with shop.database.admin() as admin:
        admin.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        admin.execute("SELECT pg_reload_conf()")
        shop.run("UPDATE orders SET total = 0 WHERE id <= 3")
        for _ in range(3):
            admin.execute("SELECT pg_switch_wal() FROM pg_logical_emit_message(false, 'x', 'x')")
            admin.execute("CHECKPOINT")
    status = await monitor(shop.operator)
    assert status.wal_status == "lost"
    said = await run(shop, tmp_path, "doctor", "--json", exits=1)
    finding = next(f for f in json.loads(said) if f["check"] == "replication")
    assert (finding["level"], finding["remedy"]) == ("fail", "Run headwater resync.")
    async with shop.reading() as reader:
        while reader.standing.state != "lost":
            await asyncio.sleep(0.01)
    assert "changes are lost" in await run(shop, tmp_path, "captures", exits=1)
    assert "compared 100 rows" in await run(shop, tmp_path, "resync")
    assert log_rows(shop) == table_rows(shop)
    assert len(shop.log("metadata ? 'resync'")) == 3
    assert "No capture is lost" in await run(shop, tmp_path, "resync")


async def test_a_slot_that_postgres_gave_up_because_nobody_read_it_is_mended_by_a_resync(own_shop):
    shop = own_shop
    shop.run("INSERT INTO orders SELECT n, n FROM generate_series(1, 10) AS n")
    async with shop.reading():
        captured = await shop.capture()
    shop.run("UPDATE orders SET total = 0 WHERE id <= 3")
    reason = "SELECT invalidation_reason FROM pg_replication_slots"
    with shop.database.admin() as admin:
        admin.execute("ALTER SYSTEM SET idle_replication_slot_timeout = '1s'")
        admin.execute("SELECT pg_reload_conf()")
        async with asyncio.timeout(60):
            while admin.execute(reason).fetchone() != ("idle_timeout",):
                admin.execute("CHECKPOINT")
                await asyncio.sleep(0.05)
        admin.execute("ALTER SYSTEM RESET idle_replication_slot_timeout")
        admin.execute("SELECT pg_reload_conf()")
    async with shop.reading() as reader:
        while reader.standing.state != "lost":
            await asyncio.sleep(0.01)
        assert "Postgres has invalidated the slot: idle_timeout" in shop.state()[0][1]
        await begin_resync(shop.operator, captured)
        await make_told(shop.operator, shop.url, captured.id)
        await shop.fill(captured)
        await shop.until_read()
    assert log_rows(shop) == table_rows(shop)
    assert len(shop.log("metadata ? 'resync'")) == 3


async def test_a_server_whose_wal_tells_no_rows_is_refused(plain_server):
    shop = ReplicatedShop(plain_server)
    shop.run(ORDERS)
    before = shop.run("SELECT count(*) FROM pg_class")
    with pytest.raises(errors.CaptureRefused, match="wal_level is replica") as refused:
        await shop.capture()
    assert "ALTER SYSTEM SET wal_level = logical" in refused.value.hint
    assert shop.run("SELECT count(*) FROM pg_class") == before
    await shop.close()


async def test_a_slot_that_holds_back_too_much_is_given_up(shop18):
    async with shop18.reading():
        await shop18.capture()
    shop18.run("INSERT INTO orders SELECT n, n FROM generate_series(1, 2000) AS n")
    async with shop18.reading(max_wal_bytes=1000) as reader:
        while reader.standing.state != "lost":
            await asyncio.sleep(0.01)
    assert "more than the 1,000 allowed" in shop18.state()[0][1]
    with shop18.database.admin() as admin:
        left = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"
        assert admin.execute(left).fetchone() == (0,)


async def test_a_slot_that_someone_moved_on_is_lost(shop18):
    async with shop18.reading():
        await shop18.capture()
    shop18.run("INSERT INTO orders VALUES (1, 1)")
    with shop18.database.admin() as admin:
        moved = "SELECT pg_replication_slot_advance(slot_name, pg_current_wal_insert_lsn()) FROM pg_replication_slots WHERE database = current_database() AND NOT active"
        while not admin.execute(moved).fetchall():
            await asyncio.sleep(0.01)
    async with shop18.reading() as reader:
        while reader.standing.state != "lost":
            await asyncio.sleep(0.01)
    assert "moved on without its reader" in shop18.state()[0][1]


async def test_doctor_names_a_slot_that_nobody_reads_and_a_publication_that_is_gone(
    shop18, tmp_path
):
    async with shop18.reading():
        await shop18.capture()
        while "nobody reads" in await run(shop18, tmp_path, "doctor", exits=1):
            pass
    shop18.run("DROP PUBLICATION headwater_capture_1")
    said = await run(shop18, tmp_path, "doctor", exits=1)
    assert "nobody reads the slot" in said
    assert "max_slot_wal_keep_size is -1" in said
    assert "its publication is gone or altered" in said
    assert "headwater_replication_read 0" in await run(shop18, tmp_path, "metrics")


async def test_a_login_without_the_attribute_is_told_so(shop18):
    with shop18.database.admin() as admin:
        admin.execute("ALTER ROLE headwater_login NOREPLICATION")
        try:
            with pytest.raises(errors.CaptureRefused, match="may not read a replication slot"):
                await check_requirements(shop18.operator, shop18.url)
        finally:
            admin.execute("ALTER ROLE headwater_login REPLICATION")


@pytest.mark.parametrize("way", ["triggers", "replication"])
async def test_a_backfill_killed_by_kill_9_goes_on(shop18, tmp_path, way):
    shop18.run("INSERT INTO orders SELECT n, n FROM generate_series(1, 30000) AS n")
    process = command(shop18, tmp_path, "capture", "shop.orders", "--tenant", "main", "--by", way)
    with shop18.database.admin() as admin:
        while not admin.execute("SELECT count(*) FROM headwater.events").fetchone()[0]:
            await asyncio.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        (before,) = admin.execute("SELECT count(*) FROM headwater.events").fetchone()
    assert before < 30000
    assert "goes on with the backfill" in await run(shop18, tmp_path, "capture", "shop.orders")
    assert len(shop18.log()) == 30000
    assert log_rows(shop18) == table_rows(shop18)


async def test_http_tells_of_captures_and_their_slot_as_doctor_does(shop18):
    async with shop18.reading():
        await shop18.capture()
    shop18.run("CREATE TABLE gone (id int PRIMARY KEY)")
    shop18.run("CREATE TABLE quiet (id int PRIMARY KEY)")
    for table in ("shop.gone", "shop.quiet"):
        await Shop.capture(shop18, table)
    shop18.run("ALTER TABLE quiet DISABLE TRIGGER USER")
    shop18.run("DROP TABLE gone")
    async with api(shop18.database, relay=False) as client:
        findings = {f["check"]: f for f in (await client.get("/v1/doctor")).json()}
        metrics = (await client.get("/metrics")).text
    assert "is gone" in findings["capture shop.gone"]["finding"]
    assert "are disabled" in findings["capture shop.quiet"]["finding"]
    assert "headwater resync shop.quiet" in findings["capture shop.quiet"]["remedy"]
    assert "replication" in findings
    assert "headwater_replication_lost 0" in metrics
