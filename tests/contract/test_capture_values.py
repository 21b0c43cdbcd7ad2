"""What column types and odd values become; a table that changes its shape."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import msgspec
import psycopg
import pytest

from headwater.capture import CaptureOptions, captures, problems
from headwater.capture.sources import RegisteredType, python_source, typescript_source
from headwater.events import EventType
from tests.support.captured import Shop

pytestmark = pytest.mark.postgres

EVERYTHING = """
  CREATE TYPE mood AS ENUM ('sad', 'ok');
  CREATE DOMAIN price AS numeric(10, 2);
  CREATE TABLE everything (
    id int PRIMARY KEY, small smallint, big bigint, yes boolean NOT NULL, amount numeric NOT NULL, cost price, cash money,
    ratio float8 NOT NULL, rough real, at timestamptz NOT NULL, local timestamp, day date, clock time, span interval,
    name text NOT NULL, short varchar(5), fixed char(4), guid uuid, doc jsonb, raw json, bytes bytea, feeling mood, feelings mood[],
    numbers int[], amounts numeric[], moments timestamptz[], place point, address inet, "from" text, "Odd name" text)"""

ODD = {
    "amount": ("'NaN'", "NaN", None),
    "ratio": ("'-Infinity'", None, "-Infinity"),
    "at": ("'infinity'", "9999-12-31T23:59:59.999999+00:00", "infinity"),
    "day": ("'4713-01-01 BC'", "0001-01-01", "4713-01-01 BC"),
    "numbers": ("'{{1,2},{3,NULL}}'", [1, 2, 3, None], "{{1,2},{3,NULL}}"),
    "moments": ("ARRAY['-infinity'::timestamptz]", ["0001-01-01T00:00:00+00:00"], "{-infinity}"),
    "raw": ("""'{"a": "\\u0000"}'""", '{"a": "\\u0000"}', None),
    "rough": ("'NaN'", None, "NaN"),
}


async def opened(database):
    shop = Shop(database)
    shop.run("SET TIME ZONE 'Europe/Paris'; SET datestyle = 'German'; SET extra_float_digits = -3")
    shop.run("SET intervalstyle = 'sql_standard'")
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


def registered(shop):
    with shop.database.admin() as admin:
        rows = admin.execute(
            "SELECT type, schema_version, stream_pattern, schema FROM headwater.event_types ORDER BY type, schema_version"
        ).fetchall()
    return [RegisteredType(*row) for row in rows]


def classes(shop, version=1):
    module = ModuleType("generated")
    sys.modules["generated"] = module
    source = python_source([t for t in registered(shop) if t.schema_version == version])
    exec(compile(source, "generated", "exec", dont_inherit=True), module.__dict__)
    return [c for c in vars(module).values() if getattr(c, "__module__", "") == "generated"]


async def test_every_type_is_mapped_exactly(shop):
    shop.run(EVERYTHING)
    await shop.capture("shop.everything")
    shop.run("""INSERT INTO everything VALUES (1, 2, 9223372036854775807, true, 0.10, 5, 12.34, 0.1, 0.1, '2026-01-02 03:04:05.678+02',
      '2026-01-02 03:04:05', '2026-01-02', '12:30', '1 day 2 hours', 'Ada', 'x', 'ab', '00000000-0000-0000-0000-00000000000a',
      '{"b": [1.50]}', '{"c": 1}', '\\x00ff', 'sad', '{ok,NULL}', '{1,NULL}', '{1.10,2}', '{2026-01-02 00:00+00}', '(1,2)', '10.0.0.1', 'f', 'o')""")  # fmt: skip
    ((_, _, _, data, metadata, *_),) = shop.log()
    assert metadata == {}
    assert data == {
        "id": 1, "small": 2, "big": 9223372036854775807, "yes": True, "amount": "0.10", "cost": "5.00", "cash": "12.34", "ratio": 0.1,
        "rough": 0.1, "at": "2026-01-02T01:04:05.678+00:00", "local": "2026-01-02T03:04:05", "day": "2026-01-02", "clock": "12:30:00",
        "span": "P1DT2H", "name": "Ada", "short": "x", "fixed": "ab", "guid": "00000000-0000-0000-0000-00000000000a",
        "doc": {"b": [1.50]}, "raw": {"c": 1}, "bytes": "AP8=", "feeling": "sad", "feelings": ["ok", None], "numbers": [1, None],
        "amounts": ["1.10", "2"], "moments": ["2026-01-02T00:00:00+00:00"], "place": "(1,2)", "address": "10.0.0.1/32", "from": "f", "Odd name": "o",
    }  # fmt: skip
    assert shop.misfits() == []


async def test_event_classes_from_the_registry_have_its_very_schemas(shop18):
    shop18.run(EVERYTHING)
    await shop18.capture("shop.everything")
    shop18.run(
        "INSERT INTO everything (id, yes, amount, ratio, at, name) VALUES (1, true, 1.5, 2, now(), 'x')"
    )
    shop18.run("UPDATE everything SET amount = 'NaN', at = 'infinity'")
    generated = {EventType.of(c).name: EventType.of(c) for c in classes(shop18)}
    for known in registered(shop18):
        assert generated[known.type].schema == known.schema
        assert generated[known.type].stream_pattern == known.stream_pattern
    for _, _, verb, data, *_ in shop18.log():
        event = generated[f"shop.everything.{verb}"].decode(json.dumps(data))
        assert msgspec.structs.asdict(event)["name"] == "x"
    script = typescript_source(registered(shop18))
    assert '"at": string;' in script
    assert '"shop.everything.updated": ShopEverythingUpdated;' in script


async def test_odd_values_never_stop_the_writer(shop18):
    shop18.run(EVERYTHING)
    await shop18.capture("shop.everything")
    shop18.run(
        "INSERT INTO everything (id, yes, amount, ratio, at, name) "
        "SELECT n, true, 1, 1, now(), 'x' FROM generate_series(1, 3) AS n"
    )
    for column, (literal, stored, exact) in ODD.items():
        shop18.run(f"UPDATE everything SET {column} = {literal} WHERE id = 1")  # one row
        shop18.run(f"UPDATE everything SET {column} = {literal} WHERE id > 1")  # several
        told = shop18.log("type LIKE '%updated'")[-3:]
        assert len({stream for stream, *_ in told}) == 3, column
        for _, _, _, data, metadata, *_ in told:
            assert data[column] == stored, column
            assert metadata.get("exact", {}).get(column) == exact, column
    assert len(shop18.fold()) == 3
    assert {verdict.split(" field ")[1].split(" ")[0] for *_, verdict in shop18.misfits()} == {
        "amount"
    }


async def test_large_values_are_recorded_by_digest(shop18):
    shop18.run(
        "CREATE TABLE files (id int PRIMARY KEY, body text NOT NULL, image bytea, doc jsonb, tags text[])"
    )
    await shop18.capture("shop.files")
    shop18.run("INSERT INTO files VALUES (1, repeat('x', 2000000), decode(repeat('00', 2000000), 'hex'), "
             "(SELECT jsonb_agg(md5(n::text)) FROM generate_series(1, 50000) AS n), (SELECT array_agg(md5(n::text)) FROM generate_series(1, 50000) AS n))")  # fmt: skip
    shop18.run("UPDATE files SET body = body || 'y'")
    (_, _, _, first, metadata, *_), (_, _, _, second, *_) = shop18.log()
    assert first["body"].startswith("sha256:")
    assert (
        first["body"]
        != second["body"]
        == metadata["exact"]["body"].replace(first["body"], second["body"])
    )
    assert first["tags"] == []
    assert set(metadata["exact"]) == {"body", "image", "doc", "tags"}
    assert shop18.misfits() == []


KEYS = ["plain", "with space", "tab\tand\nline", "a,b", "100%", "", "ü/ö", "x" * 300, "%2C", "%"]


async def test_text_keys_of_any_kind_name_different_streams(shop18):
    shop18.run("CREATE TABLE things (code text, part text, PRIMARY KEY (code, part))")
    await shop18.capture("shop.things")
    pairs = [(a, b) for a in KEYS for b in KEYS]
    with shop18.writer.cursor() as cursor:
        cursor.executemany("INSERT INTO things VALUES (%s, %s)", pairs)
    assert len(shop18.fold()) == len(pairs)
    assert shop18.misfits() == []
    by_key = {(e[3]["code"], e[3]["part"]): e[3]["key"] for e in shop18.log()}
    assert by_key["with space", "a,b"] == "with%20space,a%2Cb"
    assert by_key["", "%"] == "%,%25"
    assert by_key["x" * 300, "plain"].startswith("%sha256:")


async def test_a_table_of_more_than_a_hundred_columns(shop18):
    columns = ", ".join(f"c{n} int" for n in range(150))
    shop18.run(f"CREATE TABLE wide (id bigint PRIMARY KEY, {columns})")
    await shop18.capture("shop.wide")
    shop18.run("INSERT INTO wide (id, c149) VALUES (1, 7)")
    shop18.run("UPDATE wide SET c0 = 1")
    assert shop18.log()[1][3]["before"] == {"c0": None}
    assert shop18.misfits() == []


ALTERED = {
    "ADD COLUMN later int DEFAULT 3": {"id": 1, "a": 1, "b": "x", "later": 3},
    "DROP COLUMN b": {"id": 1, "a": 1},
    "RENAME COLUMN b TO c": {"id": 1, "a": 1, "c": "x"},
    "ALTER COLUMN a TYPE text": {"id": 1, "a": "1", "b": "x"},
    "ALTER COLUMN b SET NOT NULL": {"id": 1, "a": 1, "b": "x"},
    "RENAME COLUMN id TO number": {"number": 1, "a": 1, "b": "x"},
}


@pytest.mark.parametrize("change", ALTERED)
async def test_an_altered_table_goes_on_under_the_next_version(shop, change):
    shop.run("CREATE TABLE t (id int PRIMARY KEY, a int, b text)")
    await shop.capture("shop.t")
    shop.run("INSERT INTO t VALUES (1, 1, 'x')")
    with shop.connect() as other:  # a session whose plans are older than the change
        other.execute("INSERT INTO t VALUES (2, 1, 'x')")
        other.execute("UPDATE t SET a = a WHERE id = 2")
        shop.run(f"ALTER TABLE t {change}")
        key = "number" if "number" in change else "id"
        other.execute(
            f"INSERT INTO t ({key}, a) VALUES (3, NULL)"
            if "NOT NULL" not in change
            else "INSERT INTO t VALUES (3, 1, 'y')"
        )
        other.execute(f"DELETE FROM t WHERE {key} = 3")
        shop.run(f"DELETE FROM t WHERE {key} = 1")
    *_, last = shop.log()
    assert (last[2], last[3], last[5]) == ("deleted", ALTERED[change], 2)
    assert shop.misfits() == []
    assert [c.schema_version for c in await captures(shop.operator)] == [2]


async def test_changes_of_shape_in_a_writers_own_transaction(shop):
    shop.run("CREATE TABLE t (id int PRIMARY KEY, a int)")
    await shop.capture("shop.t")
    with shop.writer.transaction(force_rollback=True):
        shop.run("ALTER TABLE t ADD COLUMN b int")
        shop.run("INSERT INTO t VALUES (1, 1, 1)")
        shop.run("ALTER TABLE t DROP COLUMN b")
        shop.run("INSERT INTO t VALUES (2, 1)")
    shop.run("INSERT INTO t VALUES (1, 1)")
    assert [(e[3], e[5]) for e in shop.log()] == [({"id": 1, "a": 1}, 1)]


async def test_new_and_renamed_enum_labels_are_noticed_by_their_first_use(shop):
    shop.run("CREATE TYPE mood AS ENUM ('sad')")
    shop.run("CREATE TABLE t (id int PRIMARY KEY, mood mood, moods mood[])")
    await shop.capture("shop.t")
    shop.run("INSERT INTO t VALUES (1, 'sad', '{sad,NULL}')")
    shop.run("ALTER TYPE mood ADD VALUE 'glad'")
    shop.run("UPDATE t SET mood = 'glad'")
    shop.run("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'")
    shop.run("INSERT INTO t VALUES (2, 'blue', '{blue}'), (3, NULL, NULL)")
    assert [(e[3]["mood"], e[5]) for e in shop.log()] == [
        ("sad", 1),
        ("glad", 2),
        ("blue", 3),
        (None, 3),
    ]
    assert shop.misfits() == []


async def test_a_table_that_loses_its_key_stops_the_capture_and_not_the_writers(shop18):
    shop18.run("CREATE TABLE t (id int CONSTRAINT k PRIMARY KEY, a int)")
    await shop18.capture("shop.t")
    shop18.run("INSERT INTO t VALUES (1, 1)")
    shop18.run("ALTER TABLE t DROP CONSTRAINT k")
    shop18.run("INSERT INTO t VALUES (1, 2), (1, 3)")
    assert len(shop18.log()) == 1
    assert ["has stopped" in p.finding for p in await problems(shop18.operator)] == [True]


async def test_a_renamed_table_keeps_its_events_name(shop18):
    shop18.run("CREATE TABLE t (id int PRIMARY KEY)")
    await shop18.capture("shop.t", CaptureOptions(tenant="main", name="thing"))
    shop18.run("ALTER TABLE t RENAME TO u")
    shop18.run("INSERT INTO u VALUES (1)")
    assert shop18.verbs() == [("thing/1", 1, "inserted")]
    with pytest.raises(psycopg.errors.UndefinedTable):
        shop18.run("SELECT * FROM t")
