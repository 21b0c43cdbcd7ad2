"""Backfill beside writers: no gap, no double, no one waits; killed and resumed."""

from __future__ import annotations

import random
import threading

import psycopg
import pytest
from warm import warm

from headwater.capture import CaptureOptions, backfill, capture
from tests.support.captured import MAIN, Shop

pytestmark = pytest.mark.postgres

ROWS = 3000
TABLE = "CREATE TABLE orders (id int PRIMARY KEY, total numeric NOT NULL, note text)"


async def filled(database):
    shop = Shop(database)
    shop.run(TABLE)
    shop.run(f"INSERT INTO orders SELECT n, n FROM generate_series(1, {ROWS}) AS n")
    yield shop
    await shop.close()


@pytest.fixture
async def shop(database):
    async for shop in filled(database):
        yield shop


@pytest.fixture
async def shop18(database18):
    async for shop in filled(database18):
        yield shop


def write(shop, seed, done, failures):
    """Changes rows at random until told to stop; a deadlock between writers is their own affair."""
    chosen = random.Random(seed)
    with shop.connect() as writer:
        while not done.is_set():
            a, b = chosen.randint(1, ROWS * 2), chosen.randint(1, ROWS * 2)
            statements = chosen.sample([
                f"UPDATE orders SET total = total + 1 WHERE id = {a}",
                f"UPDATE orders SET note = 'n{seed}' WHERE id BETWEEN {a} AND {a + 20}",
                f"DELETE FROM orders WHERE id = {b}",
                f"INSERT INTO orders VALUES ({a}, 0) ON CONFLICT DO NOTHING",
                f"UPDATE orders SET id = {b} WHERE id = {a} AND NOT EXISTS (SELECT FROM orders WHERE id = {b})",
            ], 3)  # fmt: skip
            try:
                with writer.transaction():
                    for statement in statements:
                        writer.execute(statement)
                    if chosen.random() < 0.2:
                        raise psycopg.Rollback
            except (psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation):
                pass
            except psycopg.Error as error:
                failures.append(error)
                return


async def test_writers_and_backfill_together_tell_one_story(shop):
    shop.run("INSERT INTO orders VALUES (-1, 1)")  # no writer changes it: kept, whoever is quicker
    done, failures = threading.Event(), []
    writers = [threading.Thread(target=write, args=(shop, n, done, failures)) for n in range(4)]
    for writer in writers:
        writer.start()
    try:
        captured = await capture(shop.operator, "shop.orders", MAIN)
        shop.run("INSERT INTO orders VALUES (-2, 1)")
        async for _ in backfill(shop.operator, captured):
            pass
    finally:
        done.set()
        for writer in writers:
            writer.join()
    assert failures == []
    table = {
        f"shop-orders/{id_}": (str(total), note)
        for id_, total, note in shop.run("SELECT * FROM orders")
    }
    fold = {stream: (row["total"], row["note"]) for (_, stream), row in shop.fold().items()}
    assert fold == table
    assert shop.misfits() == []
    assert {"shop-orders/-1"} <= shop.backfilled() - shop.told()
    assert {"shop-orders/-2"} <= shop.told() - shop.backfilled()


async def test_rows_changed_before_their_turn_are_told_of_as_they_were(shop):
    captured = await capture(shop.operator, "shop.orders", MAIN)
    shop.run("UPDATE orders SET total = 0 WHERE id = 1")
    shop.run("UPDATE orders SET total = 0 WHERE id IN (2, 3)")
    shop.run("DELETE FROM orders WHERE id = 4")
    shop.run("UPDATE orders SET id = 10000 WHERE id = 5")
    async for _ in backfill(shop.operator, captured):
        pass
    assert sorted(shop.verbs())[:2] == [
        ("shop-orders/1", 1, "inserted"),
        ("shop-orders/1", 2, "updated"),
    ]
    assert len(shop.fold()) == ROWS - 1
    assert all(
        e[4] == {"backfill": True}
        for e in shop.log("version = 1 AND stream <> 'shop-orders/10000'")
    )


async def test_a_backfill_goes_on_where_it_was_stopped(shop18):
    captured = await capture(shop18.operator, "shop.orders", MAIN)
    steps = backfill(shop18.operator, captured)
    first = await anext(steps)
    await steps.aclose()
    assert 0 < first.rows < ROWS
    assert len(shop18.log()) == first.rows
    reports = [progress async for progress in backfill(shop18.operator, captured)]
    assert reports[-1].rows == ROWS == len(shop18.fold())
    assert [p async for p in backfill(shop18.operator, captured)][-1].rows == ROWS
    assert len(shop18.log()) == ROWS


async def test_a_writer_never_waits_for_an_open_step(shop18):
    captured = await capture(shop18.operator, "shop.orders", MAIN)
    async with shop18.operator.transaction() as connection:
        await connection.execute("SELECT headwater.backfill(%s, 100)", [captured.id])
        shop18.run("SET lock_timeout = '2s'")
        shop18.run("UPDATE orders SET total = 0 WHERE id > 200")
        shop18.run("INSERT INTO orders VALUES (100000, 1)")
    async for _ in backfill(shop18.operator, captured):
        pass
    assert len(shop18.fold()) == ROWS + 1


async def test_without_a_backfill_a_row_is_told_of_when_it_changes(shop18):
    await shop18.capture("shop.orders", CaptureOptions(tenant="main", backfill=False))
    assert shop18.log() == []
    shop18.run("UPDATE orders SET total = 0 WHERE id = 1")
    assert [verb for *_, verb in shop18.verbs()] == ["inserted", "updated"]


async def test_keys_of_several_columns_and_kinds_are_walked_through(shop18):
    shop18.run(
        "CREATE TABLE parts (at timestamptz, code text, n numeric, PRIMARY KEY (code, at, n))"
    )
    shop18.run(
        "INSERT INTO parts SELECT now() - make_interval(secs => n % 7), 'c ' || n % 11, n / 3.0 FROM generate_series(1, 1500) AS n"
    )
    captured = await capture(shop18.operator, "shop.parts", MAIN)
    async for _ in backfill(shop18.operator, captured):
        pass
    assert len(shop18.fold()) == 1500


def test_the_command_line_captures_resumes_shows_and_releases(database18, tmp_path):
    with psycopg.connect(
        database18.url, autocommit=True, options="-c role=headwater_app"
    ) as writer:
        writer.execute("CREATE SCHEMA shop")
        writer.execute("CREATE TABLE shop.orders (id int PRIMARY KEY, total numeric NOT NULL)")
        writer.execute("INSERT INTO shop.orders SELECT n, n FROM generate_series(1, 100) AS n")

    def run(*arguments, exits=0):
        env = {"HEADWATER_DATABASE_URL": database18.url, "PATH": "/usr/bin:/bin", "COLUMNS": "200"}
        done = warm().run(arguments, env=env, cwd=tmp_path)
        assert done.returncode == exits, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "Exactly one source" in run("capture", "shop.orders", exits=2)
    assert "backfilled 100 rows" in run(
        "capture", "shop.orders", "--tenant", "main", "--as", "order"
    )
    assert "captured already" in run("capture", "shop.orders", "--tenant", "main", exits=2)
    assert "captured already" in run("capture", "shop.orders", exits=2)
    with database18.admin() as admin:
        admin.execute(
            "UPDATE headwater.captures SET state = 'backfilling', backfilled_upto = '{50}'"
        )
    assert "backfill is not finished" in run("doctor", exits=1)
    assert "goes on with the backfill" in run("capture", "shop.orders")
    assert '"capture":"order"' in run("captures", "--json")
    assert "class OrderUpdated(Event" in run("types", "--python")
    assert "export interface EventTypes" in run("types", "--typescript")
    assert "released order" in run("release", "shop.orders")
    assert "No capture" in run("release", "shop.orders", exits=2)
