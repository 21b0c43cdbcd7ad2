"""Captured tables: what each statement becomes, and what is refused."""

from __future__ import annotations

import psycopg
import pytest

from headwater import errors
from headwater.capture import CaptureOptions, captures, problems, release
from tests.support.captured import MAIN, Shop

pytestmark = pytest.mark.postgres

ORDERS = "CREATE TABLE orders (id int PRIMARY KEY, total numeric(10,2) NOT NULL, note text)"
CATALOG = """
  SELECT c.oid::regclass::text, c.relacl::text, c.relhasrules, c.relrowsecurity, c.reloptions::text,
         ARRAY(SELECT (a.attname, a.atttypid, a.attnotnull, a.attacl::text)::text FROM pg_attribute AS a WHERE a.attrelid = c.oid ORDER BY a.attnum),
         ARRAY(SELECT pg_get_triggerdef(t.oid) FROM pg_trigger AS t WHERE t.tgrelid = c.oid ORDER BY 1),
         ARRAY(SELECT pg_get_constraintdef(k.oid) FROM pg_constraint AS k WHERE k.conrelid = c.oid ORDER BY 1)
  FROM pg_class AS c WHERE c.relnamespace = 'shop'::regnamespace ORDER BY 1"""


@pytest.fixture
async def shop(database):
    shop = Shop(database)
    shop.run(ORDERS)
    yield shop
    await shop.close()


@pytest.fixture
async def shop18(database18):
    shop = Shop(database18)
    shop.run(ORDERS)
    yield shop
    await shop.close()


# What statements become --------------------------------------------------------------------------


async def test_each_change_is_an_event_in_the_same_transaction(shop):
    await shop.capture()
    shop.run("INSERT INTO orders VALUES (1, 5, 'a'), (2, 6, NULL)")
    shop.run("UPDATE orders SET total = 7 WHERE id = 1")
    with shop.writer.transaction(force_rollback=True):
        shop.run("DELETE FROM orders")
    shop.run("DELETE FROM orders WHERE id = 2")
    assert [event[:4] for event in shop.log()] == [
        ("shop-orders/1", 1, "inserted", {"id": 1, "total": "5.00", "note": "a"}),
        ("shop-orders/2", 1, "inserted", {"id": 2, "total": "6.00", "note": None}),
        ("shop-orders/1", 2, "updated", {"id": 1, "total": "7.00", "note": "a", "before": {"total": "5.00"}}),
        ("shop-orders/2", 2, "deleted", {"id": 2, "total": "6.00", "note": None}),
    ]  # fmt: skip
    assert shop.misfits() == []


async def test_a_statement_that_changes_nothing_is_no_event(shop18):
    shop18.run("INSERT INTO orders VALUES (1, 5)")
    await shop18.capture()
    shop18.run("UPDATE orders SET total = 5")
    shop18.run("UPDATE orders SET total = 9 WHERE false")
    shop18.run("DELETE FROM orders WHERE id = 7")
    assert len(shop18.log()) == 1


async def test_statements_of_one_transaction_keep_their_order(shop):
    await shop.capture()
    with shop.writer.transaction():
        shop.run("INSERT INTO orders VALUES (1, 1)")
        shop.run("UPDATE orders SET total = 2")
        shop.run("DO $$ BEGIN UPDATE orders SET total = 3; DELETE FROM orders; END $$")
        shop.run("INSERT INTO orders VALUES (1, 4) ON CONFLICT DO NOTHING")
        shop.run(
            "INSERT INTO orders VALUES (1, 5), (2, 5) ON CONFLICT (id) DO UPDATE SET total = excluded.total"
        )
    verbs = [verb for stream, _, verb in shop.verbs() if stream == "shop-orders/1"]
    assert verbs == ["inserted", "updated", "updated", "deleted", "inserted", "updated"]
    assert {key[1]: row["total"] for key, row in shop.fold().items()} == {"shop-orders/1": "5.00", "shop-orders/2": "5.00"}  # fmt: skip


@pytest.mark.parametrize("rows", [1, 3])
async def test_row_triggers_that_change_the_same_row_again_end_right(shop, rows):
    """An inner statement ends before the outer one, and must not be told over by it."""
    shop.run("CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
             "UPDATE orders SET note = 'seen ' || total WHERE id = new.id AND note IS DISTINCT FROM 'seen ' || total; RETURN NULL; END $$")  # fmt: skip
    shop.run(
        "CREATE TRIGGER again AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION again()"
    )
    await shop.capture()

    def state():
        last = {}
        for stream, _, verb, data, *_ in shop.log():
            last[stream] = None if verb == "deleted" else (data["id"], data["total"], data["note"])
        return sorted(row for row in last.values() if row)

    def table():
        return [
            (id_, str(total), note)
            for id_, total, note in shop.run("SELECT * FROM orders ORDER BY id")
        ]

    with shop.writer.transaction():
        shop.run(f"INSERT INTO orders SELECT n, 1 FROM generate_series(1, {rows}) AS n")
        shop.run("UPDATE orders SET total = 2")
        shop.run("UPDATE orders SET total = 3")
    assert state() == table()
    shop.run("UPDATE orders SET total = 4")
    shop.run("DELETE FROM orders WHERE id = 1")
    assert state() == table()


async def test_a_changed_key_ends_one_stream_and_begins_another(shop18):
    await shop18.capture()
    shop18.run("INSERT INTO orders VALUES (1, 1), (3, 3)")
    shop18.run("UPDATE orders SET id = id + 1")
    assert shop18.verbs()[2:] == [
        ("shop-orders/1", 2, "deleted"), ("shop-orders/2", 1, "inserted"),
        ("shop-orders/3", 2, "deleted"), ("shop-orders/4", 1, "inserted"),
    ] or sorted(shop18.verbs()[2:]) == [
        ("shop-orders/1", 2, "deleted"), ("shop-orders/2", 1, "inserted"),
        ("shop-orders/3", 2, "deleted"), ("shop-orders/4", 1, "inserted"),
    ]  # fmt: skip
    assert set(shop18.fold()) == {("main", "shop-orders/2"), ("main", "shop-orders/4")}


async def test_merge_copy_and_cascades_are_captured(shop):
    shop.run(
        "CREATE TABLE lines (id int PRIMARY KEY, order_id int REFERENCES orders ON DELETE CASCADE)"
    )
    await shop.capture()
    await shop.capture("shop.lines")
    with shop.writer.cursor().copy("COPY orders (id, total) FROM STDIN") as copy:
        copy.write("1\t1\n2\t2\n3\t3\n")
    shop.run("INSERT INTO lines VALUES (1, 1), (2, 1), (3, 2)")
    shop.run("MERGE INTO orders AS o USING (VALUES (1), (2), (9)) AS v(id) ON o.id = v.id "
             "WHEN MATCHED AND v.id = 1 THEN DELETE WHEN MATCHED THEN UPDATE SET total = 20 WHEN NOT MATCHED THEN INSERT VALUES (9, 9)")  # fmt: skip
    assert {stream for _, stream in shop.fold()} == {
        "shop-orders/2", "shop-orders/3", "shop-orders/9", "shop-lines/3"}  # fmt: skip


async def test_truncate_deletes_what_the_log_holds_as_living(shop):
    await shop.capture()
    shop.run("INSERT INTO orders SELECT n, n FROM generate_series(1, 5) AS n")
    shop.run("DELETE FROM orders WHERE id = 2")
    shop.run("UPDATE orders SET total = 9 WHERE id = 3")
    shop.run("ALTER TABLE orders ADD COLUMN later int")
    shop.run("TRUNCATE orders")
    assert shop.fold() == {}
    assert len(shop.log("metadata ? 'truncate'")) == 4
    assert shop.misfits() == []


async def test_partitions_written_directly_are_captured(shop):
    shop.run(
        "CREATE TABLE parts (id int, region text, total int, PRIMARY KEY (id, region)) PARTITION BY LIST (region)"
    )
    shop.run("CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a')")
    shop.run("CREATE TABLE parts_b PARTITION OF parts FOR VALUES IN ('b')")
    await shop.capture("shop.parts")
    shop.run("INSERT INTO parts VALUES (1, 'a', 1), (2, 'b', 1)")
    shop.run("INSERT INTO parts_a VALUES (3, 'a', 1)")
    shop.run("UPDATE parts_a SET total = 2 WHERE id = 3")
    shop.run("UPDATE parts SET region = 'b' WHERE id = 1")
    assert {(stream, row["total"]) for (_, stream), row in shop.fold().items()} == {
        ("shop-parts/1,b", 1), ("shop-parts/2,b", 1), ("shop-parts/3,a", 2)}  # fmt: skip
    with pytest.raises(psycopg.Error, match="TRUNCATE of"):
        shop.run("TRUNCATE parts_a")
    shop.run("CREATE TABLE parts_c PARTITION OF parts FOR VALUES IN ('c')")
    assert ["parts_c lacks" in p.finding for p in await problems(shop.operator)] == [True]
    assert await release(shop.operator, "shop.parts") == "shop.parts"


async def test_tenants_from_a_column_and_from_the_session(shop):
    shop.run("CREATE TABLE bills (id int PRIMARY KEY, owner text NOT NULL)")
    await shop.capture("shop.bills", CaptureOptions(tenant_column="owner"))
    await shop.capture("shop.orders", CaptureOptions(session_tenant=True, backfill=False))
    shop.run("INSERT INTO bills VALUES (1, 'a'), (2, 'b'), (3, 'not a tenant!')")
    shop.run("UPDATE bills SET owner = 'c' WHERE id = 1")
    assert {(tenant[:7], stream) for tenant, stream in shop.fold()} == {
        ("c", "shop-bills/1"), ("b", "shop-bills/2"), ("sha256:", "shop-bills/3")}  # fmt: skip
    with pytest.raises(psycopg.Error, match="no tenant is set") as refused:
        shop.run("INSERT INTO orders VALUES (1, 1)")
    assert refused.value.sqlstate == "HW007"
    assert shop.run("SELECT * FROM orders") == []
    with shop.writer.transaction():
        shop.run("SELECT set_config('headwater.tenant', 'z', true)")
        shop.run("INSERT INTO orders VALUES (1, 1)")
    assert ("z", "shop-orders/1") in shop.fold()


# Columns -----------------------------------------------------------------------------------------


async def test_columns_are_chosen_renamed_and_left_out(shop18):
    shop18.run(
        "CREATE TABLE people (id int PRIMARY KEY, name text, email text, secret text, age int)"
    )
    options = CaptureOptions(name="person", tenant="main", left_out=("secret",), renamed={"age": "years"}, personal={"email": "id"})  # fmt: skip
    await shop18.capture("shop.people", options)
    shop18.run("INSERT INTO people VALUES (1, 'Ada', 'a@b', 'x', 36)")
    shop18.run("UPDATE people SET secret = 'y', email = 'c@d'")
    assert [event[:4] for event in shop18.log()] == [
        ("person/1", 1, "inserted", {"id": 1, "name": "Ada", "years": 36})
    ]


# Refusals ----------------------------------------------------------------------------------------

REFUSED = {
    "no table": ("shop.nothing", MAIN, errors.UnknownCapture, "There is no table"),
    "odd name": ("shop..x;", MAIN, errors.UnknownCapture, "There is no table"),
    "a view": ("shop.seen", MAIN, errors.CaptureRefused, "not an ordinary"),
    "no key": ("shop.keyless", MAIN, errors.CaptureRefused, "no primary key"),
    "late key": ("shop.late", MAIN, errors.CaptureRefused, "no primary key that is checked at once"),
    "a partition": ("shop.parts_a", MAIN, errors.CaptureRefused, "is a partition"),
    "no tenant": ("shop.orders", CaptureOptions(), errors.CaptureRefused, "Exactly one source"),
    "two tenants": ("shop.orders", CaptureOptions(tenant="a", tenant_column="note"), errors.CaptureRefused, "Exactly one source"),
    "bad tenant": ("shop.orders", CaptureOptions(tenant="a b"), errors.TenantMissing, "malformed"),
    "tenant may be null": ("shop.orders", CaptureOptions(tenant_column="note"), errors.CaptureRefused, "may be NULL"),
    "session and rows": ("shop.orders", CaptureOptions(session_tenant=True), errors.CaptureRefused, "no session"),
    "unknown column": ("shop.orders", CaptureOptions(tenant="a", left_out=("nope",)), errors.CaptureRefused, "no column 'nope'"),
    "unknown rename": ("shop.orders", CaptureOptions(tenant="a", renamed={"nope": "x"}), errors.CaptureRefused, "no column 'nope'"),
    "key left out": ("shop.orders", CaptureOptions(tenant="a", left_out=("id",)), errors.CaptureRefused, "primary key cannot"),
    "clash": ("shop.orders", CaptureOptions(tenant="a", renamed={"note": "total"}), errors.CaptureRefused, "called 'total'"),
    "before": ("shop.orders", CaptureOptions(tenant="a", renamed={"note": "before"}), errors.CaptureRefused, "called 'before'"),
    "name": ("shop.orders", CaptureOptions(tenant="a", name="Orders"), errors.CaptureRefused, "named after"),
    "foreign owner": ("public.theirs", MAIN, errors.CaptureRefused, "may not act as"),
}  # fmt: skip


async def test_what_cannot_be_captured_is_refused_with_a_way_out_and_no_trace(shop18):
    shop18.run("CREATE VIEW seen AS SELECT 1 AS id")
    shop18.run("CREATE TABLE keyless (id int)")
    shop18.run("CREATE TABLE late (id int PRIMARY KEY DEFERRABLE)")
    shop18.run("CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY LIST (id)")
    shop18.run("CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN (1)")
    with shop18.database.admin() as admin:
        admin.execute("CREATE TABLE public.theirs (id int PRIMARY KEY)")
    before = shop18.run(CATALOG)
    for name, (table, options, error, message) in REFUSED.items():
        with pytest.raises(error) as refused:
            await shop18.capture(table, options)
        assert message in refused.value.message, name
        assert refused.value.hint, name
    assert shop18.run(CATALOG) == before
    with shop18.database.admin() as admin:
        left = admin.execute(
            "SELECT (SELECT count(*) FROM headwater.captures) + (SELECT count(*) FROM headwater.event_types) "
            "+ (SELECT count(*) FROM pg_proc WHERE pronamespace = 'headwater_captures'::regnamespace)"
        ).fetchone()
    assert left == (0,)


async def test_a_table_is_captured_once_and_released_without_a_trace(shop):
    before = shop.run(CATALOG)
    await shop.capture()
    with pytest.raises(errors.AlreadyCaptured):
        await shop.capture("shop.orders", CaptureOptions(tenant="main", name="other"))
    shop.run("INSERT INTO orders VALUES (1, 1)")
    assert await release(shop.operator, "shop.orders") == "shop.orders"
    assert shop.run(CATALOG) == before
    shop.run("DELETE FROM orders")
    assert shop.verbs() == [("shop-orders/1", 1, "inserted")]
    assert await captures(shop.operator) == []
    with pytest.raises(errors.UnknownCapture):
        await release(shop.operator, "shop.orders")
    with pytest.raises(errors.CaptureRefused, match="taken"):
        await shop.capture()
    await shop.capture("shop.orders", CaptureOptions(tenant="main", name="orders2"))


async def test_a_busy_table_is_left_alone(shop18, monkeypatch):
    monkeypatch.setattr("headwater.capture.tables._ATTEMPTS", 1)
    monkeypatch.setattr("headwater.capture.tables._LOCK_MILLISECONDS", 20)
    with shop18.connect() as other, other.transaction():
        other.execute("INSERT INTO orders VALUES (1, 1)")
        with pytest.raises(errors.TableBusy):
            await shop18.capture()
    assert await captures(shop18.operator) == []


async def test_dropped_renamed_and_disabled_tables_are_named(shop):
    shop.run("CREATE TABLE lines (id int PRIMARY KEY)")
    shop.run("CREATE TABLE gone (id int PRIMARY KEY)")
    for table in ("orders", "lines", "gone"):
        await shop.capture(f"shop.{table}")
    assert await problems(shop.operator) == []
    shop.run("ALTER TABLE orders RENAME TO renamed")
    shop.run("INSERT INTO renamed VALUES (1, 1)")
    shop.run('ALTER TABLE lines DISABLE TRIGGER "00_headwater_insert"')
    shop.run("DROP TABLE gone")
    found = {p.capture: p.finding for p in await problems(shop.operator)}
    assert set(found) == {"shop.gone", "shop.lines"}
    assert "is gone" in found["shop.gone"]
    assert "disabled" in found["shop.lines"]
    assert [c.table for c in await captures(shop.operator) if c.name == "shop.orders"] == [
        "shop.renamed"
    ]
    assert shop.verbs() == [("shop-orders/1", 1, "inserted")]
    for name in ("shop.gone", "shop.lines", "shop.renamed"):
        await release(shop.operator, name)
