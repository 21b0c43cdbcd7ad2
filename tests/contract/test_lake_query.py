"""SQL over a lake: one manifest, pruned by its ranges, one SELECT, nothing but the lake's tables."""

from __future__ import annotations

import sys
from decimal import Decimal

import pytest
from test_lake import bucket_server, driven_in_batches, folder, ground, unmerged_store
from warm import warm

from headwater.errors import ExtraMissing, QueryRefused
from headwater.stores.lake.query import answer
from headwater.testing.contract_app import Placed, Removed
from headwater.testing.feeds import driven, feed_of

pytestmark = pytest.mark.postgres
__all__ = ["bucket_server", "folder", "ground"]


async def asked(app, sql, *, limit=100, **options):
    _, tables = await feed_of(app).tables(**options)
    return (await answer(sql, tables, limit)).rows


async def test_a_query_reads_types_as_tables(ground):
    async with ground.app() as app:
        await app.append(Placed(1, "a", Decimal("1.10")), Placed(2, "b", Decimal("2.20")))
        await app.append(Placed(3, "a", Decimal(5)), tenant="other")
        written = await app.append(Removed(1, "a"))
        await driven(app, 1)
        total = "SELECT sum(CAST(total AS DECIMAL(18, 2))) FROM contract.placed"
        assert await asked(app, total, at_least=written.token) == [(Decimal("8.30"),)]
        assert await asked(app, total, tenant="main") == [(Decimal("3.30"),)]
        assert await asked(
            app,
            'SELECT p."keyed" FROM contract.placed AS p JOIN contract.removed USING ("order") WHERE p.month > \'2020\'',
        ) == [("a",)]
        position, _ = await feed_of(app).tables()
        assert position == written.position


async def test_files_that_a_condition_rules_out_are_not_opened(ground):
    ground.use(unmerged_store)
    async with ground.app() as app:
        await (await driven_in_batches(app, 1)).close()
        files = [file for _, file in await feed_of(app).files()]
        for url, _ in (await feed_of(app).files())[:-1]:
            ground.put(ground.name_of(url), b"not a Parquet file")
        count = "SELECT count(*) FROM contract.placed WHERE position > {}"
        assert await asked(app, count.format(files[-1].after)) == [(10,)]
        with pytest.raises(QueryRefused):
            await asked(app, count.format(files[-1].after - 1))
        assert await asked(app, "SELECT count(*) FROM contract.placed WHERE month < '2020'") == [
            (0,)
        ]


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT * FROM read_text('/etc/passwd')", "disabled"),
        ("SELECT * FROM glob('/*')", "disabled"),
        ("SELECT * FROM '/etc/passwd'", "does not exist"),
        ("SELECT * FROM read_parquet('https://example.org/x.parquet')", "disabled|extension"),
        ("COPY (SELECT 1) TO '/tmp/x'", "one SELECT"),
        ("ATTACH '/tmp/x.db'", "one SELECT"),
        ("SET enable_external_access = true", "one SELECT"),
        ("INSTALL httpfs", "one SELECT"),
        ("CREATE TABLE x (y int)", "one SELECT"),
        ("SELECT 1; SELECT 2", "one SELECT"),
        ("", "one SELECT"),
        ("SELECT * FROM python_arrow_scan(1, 2, 3)", "may not use"),
        ("SELECT * FROM query('SELECT 1')", "may not use"),
        ("SELECT * FROM tables", "does not exist"),
        ("SELECT 'x", "cannot be read"),
    ],
)
async def test_what_is_no_query_of_the_lake_is_refused(sql, reason):
    with pytest.raises(QueryRefused, match=reason):
        await answer(sql, {}, 10)


async def test_rows_are_limited():
    found = await answer("SELECT * FROM range(20) AS r(n)", {}, 5)
    assert (len(found.rows), found.more) == (5, True)
    found = await answer("SELECT * FROM range(5) AS r(n)", {}, 5)
    assert (len(found.rows), found.more) == (5, False)


async def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ExtraMissing) as missing:
        await answer("SELECT 1", {}, 1)
    assert "headwater[query]" in missing.value.hint


async def test_the_command(folder, tmp_path):
    async with folder.app() as app:
        await app.append(Placed(1, "a", Decimal("1.10")), Placed(2, "b", Decimal("2.20")))
        await driven(app, 1)
    (tmp_path / "asked.py").write_text(
        "from headwater import Settings\nfrom headwater.stores.lake import Lake\n"
        "from headwater.testing.contract_app import fed\n"
        "app = fed(Settings.from_environment(), Lake('archive'))\n"
    )
    done = warm().run(
        ["--app", "asked:app", "query", "--json", "SELECT keyed FROM contract.placed ORDER BY keyed"],
        cwd=tmp_path,
        env={"HEADWATER_DATABASE_URL": folder.database_url, "HEADWATER_STORE_ARCHIVE_URL": folder.url},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"rows":[{"keyed":"a"},{"keyed":"b"}]' in done.stdout
