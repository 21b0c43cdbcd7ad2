"""Whatever way the log is cut into batches, a view equals its query over the whole log."""

from __future__ import annotations

import json
import random
from collections import Counter

import psycopg
import pytest
from psycopg import sql
from sql_view_cases import (
    CASES,
    DOCUMENT_CASES,
    PLACED,
    REFUNDED,
    SETUP,
    SOURCES,
    TENANTS,
    Case,
    change_document,
    random_batches,
    random_document,
    random_events,
    readable,
    write_events,
)

from headwater.errors import ViewDefinitionError
from headwater.stores.postgres.sql_view import (
    SqlViewPlan,
    Storage,
    check_functions,
    plan_sql_view,
)
from headwater.views.sql import parse_view_query

pytestmark = pytest.mark.postgres


@pytest.fixture
async def connection(server):
    """A session in a bare database of its own, set up as those that keep views are."""
    name = f"views_{random.getrandbits(40):x}"
    postgres = server.postgres
    async with await psycopg.AsyncConnection.connect(
        postgres.url(), autocommit=True
    ) as administrator:
        create = sql.SQL("CREATE DATABASE {} STRATEGY FILE_COPY").format(sql.Identifier(name))
        await administrator.execute(create)
        options = "-c TimeZone=UTC -c search_path=pg_catalog"
        async with await psycopg.AsyncConnection.connect(
            postgres.url(name), autocommit=True, options=options
        ) as session:
            await session.execute(SETUP)
            for relation in (PLACED, REFUNDED):
                await session.execute(readable(relation))
            yield session
        await administrator.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))


async def _as_relay(connection) -> None:
    await connection.execute("SET ROLE headwater_relay")


async def _run(connection, statements) -> None:
    await connection.execute("RESET ROLE")
    async with connection.transaction():
        for statement in statements:
            await connection.execute(statement)


async def _made(connection, case: Case, **named) -> SqlViewPlan:
    query = parse_view_query(case.sql, name="sales", key=case.key, sources=SOURCES)
    plan = await plan_sql_view(
        connection, query, Storage("sales", "sales__1"), float_tolerance=case.tolerance, **named
    )
    await _run(connection, [*plan.tables.create(), *plan.tables.publish()])
    await _as_relay(connection)
    return plan


async def _stored(connection, plan: SqlViewPlan, tenant: str) -> list[tuple]:
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in plan.columns)
    rows = await connection.execute(
        sql.SQL("SELECT {} FROM headwater_views.sales WHERE tenant = {}").format(
            names, sql.Literal(tenant)
        )
    )
    return await rows.fetchall()


async def _expected(connection, case: Case, tenant: str) -> list[tuple]:
    await connection.execute("RESET ROLE")
    await connection.execute("SELECT set_config('test.tenant', %s, false)", [tenant])
    rows = await (await connection.execute(case.sql)).fetchall()
    await _as_relay(connection)
    return rows


async def _differences(connection, plan: SqlViewPlan, upto: int, **named) -> list[tuple]:
    parameters = {"upto": upto, "parked": [], "parked_keys": [], "limit": 10, **named}
    return await (await connection.execute(plan.verify, parameters)).fetchall()


async def _counts(connection, plan: SqlViewPlan, upto: int, **named) -> tuple:
    parameters = {"upto": upto, "parked": [], "parked_keys": [], **named}
    return await (await connection.execute(plan.verify_count, parameters)).fetchone()


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", CASES)
async def test_a_view_equals_its_query_however_the_log_is_cut(connection, name, seed) -> None:
    chosen, case = random.Random(seed), CASES[name]
    events = random_events(chosen, 400)
    await write_events(connection, events)
    plan = await _made(connection, case)
    end = events[-1][0]
    for after, upto in random_batches(chosen, end):
        await plan.apply(connection, after=after, upto=upto)
    for tenant in TENANTS:
        stored = await _stored(connection, plan, tenant)
        expected = await _expected(connection, case, tenant)
        assert expected
        if case.tolerance is None:
            assert Counter(stored) == Counter(expected)
        else:
            by_key = {row[0]: row for row in stored}
            assert len(by_key) == len(expected)
            for row in expected:
                assert by_key[row[0]][1:] == pytest.approx(row[1:], rel=1e-6)
    assert await _differences(connection, plan, end) == []
    groups, differing = await _counts(connection, plan, end)
    assert groups > 0
    assert differing == 0


async def test_parked_events_are_left_out_and_their_groups_can_be_excused(connection) -> None:
    chosen, case = random.Random(7), CASES["daily"]
    events = random_events(chosen, 200)
    await write_events(connection, events)
    plan = await _made(connection, case)
    end = events[-1][0]
    parked = next(e for e in events if e[3] == "shop.placed" and json.loads(e[5])["total"])
    await plan.apply(connection, after=0, upto=end, parked=[parked[0]])
    assert await _differences(connection, plan, end, parked=[parked[0]]) == []
    if float(json.loads(parked[5])["total"]) > 0:
        assert await _differences(connection, plan, end) != []
    rows = await connection.execute(plan.keys_of, {"position": parked[0]})
    ((keys,),) = await rows.fetchall()
    assert json.loads(keys) == [parked[1], f"{parked[4][:10]}T00:00:00+00:00"]
    assert await _differences(connection, plan, end, parked_keys=[keys]) == []
    groups, _ = await _counts(connection, plan, end)
    excused, differing = await _counts(connection, plan, end, parked_keys=[keys])
    assert (excused, differing) == (groups - 1, 0)


async def test_keys_of_an_event_do_not_evaluate_what_may_have_failed(connection) -> None:
    await write_events(
        connection, [(1, "a", "order/1", "shop.placed", "2026-01-01", '{"total": "x"}')]
    )
    plan = await _made(connection, CASES["daily"])
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        await plan.apply(connection, after=0, upto=1)
    rows = await connection.execute(plan.keys_of, {"position": 1})
    assert await rows.fetchall() == [('["a", "2026-01-01T00:00:00+00:00"]',)]


async def test_keys_may_be_null_and_other_events_have_none(connection) -> None:
    await write_events(
        connection,
        [(1, "a", "order/1", "shop.placed", "2026-01-01", "{}"),
         (2, "a", "order/1", "shop.other", "2026-01-01", "{}")],
    )  # fmt: skip
    plan = await _made(connection, CASES["null keys"])
    rows = await connection.execute(plan.keys_of, {"position": 1})
    assert await rows.fetchall() == [('["a", null, null]',)]
    rows = await connection.execute(plan.keys_of, {"position": 2})
    assert await rows.fetchall() == []


@pytest.mark.parametrize("name", ["daily", "floats"])
@pytest.mark.parametrize(
    ("tampering", "sides"),
    [
        ("UPDATE headwater_views.sales__1 SET {state} = {state} + 1 WHERE ctid = %s", 2),
        ("DELETE FROM headwater_views.sales__1 WHERE ctid = %s", 1),
    ],
)
async def test_verify_finds_a_tampered_and_a_missing_row(
    connection, name, tampering, sides
) -> None:
    events = random_events(random.Random(5), 150)
    await write_events(connection, events)
    plan = await _made(connection, CASES[name])
    end = events[-1][0]
    await plan.apply(connection, after=0, upto=end)
    assert await _differences(connection, plan, end) == []
    state = plan.types.layout.states[0].column
    place = await (await connection.execute(
        sql.SQL("SELECT ctid::text FROM headwater_views.sales__1 WHERE {} IS NOT NULL").format(
            sql.Identifier(state)))).fetchone()  # fmt: skip
    statement = sql.SQL(tampering.replace("%s", "{place}::tid"))
    await connection.execute(statement.format(state=sql.Identifier(state), place=place[0]))
    differences = await _differences(connection, plan, end)
    assert sorted(row[0] for row in differences) == ["expected", "stored"][:sides]
    assert {row[1] for row in differences} <= set(TENANTS)
    assert set(differences[0][2]) == {column.name for column in plan.columns}
    assert (await _counts(connection, plan, end))[1] == sides
    assert len(await _differences(connection, plan, end, limit=1)) == 1


async def test_truncate_and_apply_again_rebuilds_in_place(connection) -> None:
    events = random_events(random.Random(6), 150)
    await write_events(connection, events)
    plan = await _made(connection, CASES["daily"])
    end = events[-1][0]
    await plan.apply(connection, after=0, upto=end)
    for statement in plan.tables.truncate():
        await connection.execute(statement)
    assert await _differences(connection, plan, end) != []
    await plan.apply(connection, after=0, upto=end)
    assert await _differences(connection, plan, end) == []


async def test_a_new_version_is_built_beside_the_old_and_published(connection) -> None:
    await write_events(connection, random_events(random.Random(6), 50))
    old = await _made(connection, CASES["daily"])
    query = parse_view_query(
        "SELECT customer AS day, count(*) AS n FROM shop.placed GROUP BY 1",
        name="sales", key=("day",), sources=SOURCES,
    )  # fmt: skip
    new = await plan_sql_view(connection, query, Storage("sales", "sales__2"))
    await _run(connection, new.tables.create())
    await new.apply(connection, after=0, upto=1000)
    assert await _differences(connection, new, 1000) == []
    await _run(connection, [*new.tables.unpublish(), *new.tables.publish(), *old.tables.drop()])
    assert await _stored(connection, new, "a")
    await _run(connection, [*new.tables.unpublish(), *new.tables.drop()])


async def test_readers_see_their_tenant_only_and_find_rows_by_key(connection) -> None:
    await write_events(connection, random_events(random.Random(8), 300))
    plan = await _made(connection, CASES["null keys"])
    await plan.apply(connection, after=0, upto=10_000)
    await connection.execute("SET ROLE headwater_operator")
    row = await connection.execute("SELECT count(DISTINCT tenant) FROM headwater_views.sales")
    assert await row.fetchone() == (len(TENANTS),)
    await connection.execute("SET ROLE headwater_app")
    row = await connection.execute("SELECT count(*) FROM headwater_views.sales")
    assert await row.fetchone() == (0,)
    await connection.execute("SELECT set_config('headwater.tenant', 'a', false)")
    row = await connection.execute("SELECT DISTINCT tenant FROM headwater_views.sales")
    assert await row.fetchall() == [("a",)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await connection.execute("DELETE FROM headwater_views.sales__1")
    one = await connection.execute(
        plan.read_one(null_keys=["customer"]), {"tenant": "a", "key_1": 1}
    )
    (row,) = await one.fetchall()
    assert row[:3] == ("a", None, 1)
    assert [column.name for column in plan.columns if column.is_key] == ["customer", "third"]
    assert plan.columns[0].sql_type == "text"
    assert plan.columns[13].sql_type == "numeric(12,3)"


async def test_updates_stay_on_their_page(connection) -> None:
    await write_events(connection, random_events(random.Random(9), 1000))
    plan = await _made(connection, CASES["null keys"])
    for after in range(0, 2600, 50):
        await plan.apply(connection, after=after, upto=after + 50)
    await connection.execute("RESET ROLE")
    await connection.execute("SELECT pg_stat_force_next_flush()")
    row = await connection.execute(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'sales__1'"
    )
    updated, hot = await row.fetchone()
    assert updated > 100
    assert hot > 0.9 * updated


async def test_a_sum_of_floats_needs_a_tolerance(connection) -> None:
    case = CASES["floats"]
    with pytest.raises(ViewDefinitionError, match="floats") as refused:
        await _made(connection, Case(case.sql, case.key))
    assert "float_tolerance" in refused.value.hint
    assert "numeric" in refused.value.hint


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("max(total + customer)", "operator does not exist"),
        ("max(data)", "does not exist"),
        ("count(DISTINCT data -> 'x' = 3)", "operator does not exist"),
        ("sum('x'::integer)", "invalid input syntax"),
    ],
)
async def test_what_postgres_refuses_is_a_definition_error(connection, expression, reason) -> None:
    with pytest.raises(ViewDefinitionError, match=reason) as refused:
        await _made(connection, Case(f"SELECT {expression} AS x FROM shop.placed"))
    assert refused.value.hint


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["setseed"], "VOLATILE"),
        (["lower", "pg_table_is_visible"], "STABLE"),
        (["shop.fickle"], "VOLATILE"),
        (["rounded"], "doesn't exist"),
        (["shop.nothing"], "doesn't exist"),
        (["bool_and"], "aggregate"),
        (["unnest"], "set of rows"),
    ],
)
async def test_functions_that_a_rebuild_could_answer_otherwise(connection, names, reason) -> None:
    with pytest.raises(ViewDefinitionError, match=reason) as refused:
        await check_functions(connection, names)
    assert refused.value.hint


async def test_repeatable_functions_pass(connection) -> None:
    await check_functions(
        connection, ["lower", "date_trunc", "to_char", "shop.rounded", "pg_catalog.upper", "age"]
    )
    await check_functions(connection, [])


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", DOCUMENT_CASES)
async def test_a_view_follows_a_folds_documents(connection, name, seed) -> None:
    chosen, case = random.Random(seed), DOCUMENT_CASES[name]
    relations = {
        "changes": sql.Identifier("shop", "changes"),
        "documents": sql.Identifier("shop", "documents"),
    }
    plan = await _made(connection, case, **relations)
    await connection.execute("RESET ROLE")
    await connection.execute(
        "CREATE VIEW shop.readable AS SELECT key, data ->> 'status' AS status, (data ->> 'total')"
        "::numeric AS total, (data ->> 'took')::interval AS took FROM shop.documents "
        "WHERE tenant = current_setting('test.tenant')"
    )
    documents: dict = {}
    position = 0
    for batch in range(12):
        after = position
        for _ in range(chosen.choice([0, 1, 5, 20])):
            position += 1
            place = (chosen.choice(TENANTS), str(chosen.randint(1, 6)))
            await change_document(connection, documents, position, place, random_document(chosen))
        if batch == 11:
            for place in list(documents):
                position += 1
                await change_document(connection, documents, position, place, None)
        await _as_relay(connection)
        async with connection.transaction():
            await plan.apply(connection, after=after, upto=position)
        assert await _differences(connection, plan, position) == []
        await connection.execute("RESET ROLE")
        for tenant in {tenant for tenant, _ in documents}:
            read = Case(case.sql.replace("FROM orders", "FROM shop.readable"))
            expected = await _expected(connection, read, tenant)
            stored = await _stored(connection, plan, tenant)
            if name != "thirds":
                assert Counter(stored) == Counter(expected)
            await connection.execute("RESET ROLE")
    left = await connection.execute("SELECT count(*) FROM headwater_views.sales__1")
    assert await left.fetchone() == (0,)


async def test_floats_in_documents_need_a_tolerance_too(connection) -> None:
    with pytest.raises(ViewDefinitionError, match="floats"):
        await _made(connection, Case("SELECT sum(total::float8) AS t FROM orders"))
