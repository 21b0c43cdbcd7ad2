"""Rollups: buckets of time, first and last, sketches, levels over levels, what is kept, and how gaps are filled."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from test_clickhouse import Embedded

from headwater import App, Event, Fact, Settings
from headwater.errors import DefinitionError, ViewDefinitionError
from headwater.stores.clickhouse import ClickHouse
from headwater.testing.driving import drive

pytestmark = pytest.mark.postgres

START = datetime(2026, 3, 28, 23, 30, tzinfo=UTC)
MINUTE = """
    SELECT date_trunc('minute', occurred_at) AS minute, sensor, count(*) AS readings, sum(value) AS total,
           min(value) AS least, max(value) AS most, avg(value) AS mean, first(value) AS opened, last(value) AS closed,
           first(value, occurred_at) AS earliest, last(value, occurred_at) AS latest,
           last(note, occurred_at) FILTER (WHERE value > 5) AS noted, last(occurred_at) AS newest,
           approx_quantile(value, 0.5) AS median, approx_quantile(value, 0.99) AS p99,
           approx_count_distinct(note) AS about, count(DISTINCT note) AS exactly
    FROM sensor.read GROUP BY 1, 2"""
LEVEL = """
    SELECT date_trunc('{unit}', {finer}) AS {unit}, sensor, merged(readings) AS readings, merged(total) AS total,
           merged(least) AS least, merged(most) AS most, merged(mean) AS mean, merged(earliest) AS earliest,
           merged(latest) AS latest, merged(median) AS median, merged(p99) AS p99, merged(about) AS about
    FROM by_{finer} GROUP BY 1, 2"""


class Read(Event, type="sensor.read", stream="sensor/{sensor}"):
    sensor: str
    value: Decimal | None
    note: str | None = None


def make(settings, store=None, *, minute=MINUTE, **options):
    app = App("sensors", events=[Read], tenant="main", settings=settings)
    app.sql("by_minute", sql=minute, store=store, **options)
    return app


def levels(app, store=None):
    app.sql("by_hour", sql=LEVEL.format(unit="hour", finer="minute"), store=store)
    app.sql("by_day", sql=LEVEL.format(unit="day", finer="hour"), store=store)
    return app


def read(n, *, at=None, sensor=None, value=...):
    when = START + timedelta(seconds=n * 7) if at is None else at
    given = Decimal(n * 37 % 1000 - 100) / 8 if value is ... else value
    return Fact(event=Read(sensor or f"s{n % 3}", given, f"n{n % 60}"), occurred_at=when)


@pytest.fixture
def clickhouse(database18, tmp_path):
    """Settings and a store."""
    ground = Embedded(database18, tmp_path / "engine")
    store = ClickHouse("analytics", every_seconds=0.05, idle_seconds=20)
    yield Settings(database_url=database18.url, stores=ground.urls), store
    ground.close()


@pytest.fixture
def postgres(database):
    """The same, without a store: on every supported Postgres."""
    return Settings(database_url=database.url), None


def expected(facts, unit):
    """The same, by hand: facts in the order of the log."""
    groups = {}
    for fact in facts:
        groups.setdefault((unit(fact.occurred_at), fact.event.sensor), []).append(fact)
    return groups


def near(estimate, exact):
    return abs(estimate - exact) <= abs(exact) * 0.0101


async def test_every_aggregate_at_every_level_equals_the_log(postgres):
    await aggregates_equal_the_log(*postgres)


async def test_every_aggregate_in_clickhouse_equals_the_log(clickhouse):
    await aggregates_equal_the_log(*clickhouse)


async def aggregates_equal_the_log(settings, store):
    app = levels(make(settings, store), store)
    async with app:
        await app.deploy()
        facts = [read(n) for n in range(700)]
        facts += [read(n, value=None) for n in range(700, 706)]
        facts += [read(n) for n in range(100, 130)]  # late: they land in their bucket
        facts += [read(1, at=START - timedelta(days=40_000), value=Decimal("-0.00001"))]
        for start in range(0, len(facts), 200):
            await app.append(*facts[start : start + 200])
        for name in ("by_minute", "by_hour", "by_day"):
            await drive(app, app.stored(name), 1)
            verified = await app.stored(name).verify()
            assert verified.summary == "equal", verified
        minutes = {tuple(_key(row)): row for row in await app.view("by_minute").list()}
        by_minute = expected(facts, lambda at: at.replace(second=0))
        for (minute, sensor), group in by_minute.items():
            row = minutes[minute, sensor]
            check(row, group)
            values = [f.event.value for f in group if f.event.value is not None]
            assert row.opened == (values[0] if values else None)
            assert row.closed == (values[-1] if values else None)
            assert row.about == row.exactly == len({f.event.note for f in group})
            noted = [f for f in group if f.event.value is not None and f.event.value > 5]
            newest = max(noted, key=lambda f: f.occurred_at, default=None)
            assert row.noted == (None if newest is None else _last(noted).event.note)
            assert row.newest == group[-1].occurred_at
        for name, unit in (("by_hour", {"minute": 0}), ("by_day", {"minute": 0, "hour": 0})):
            groups = expected(facts, lambda at, unit=unit: at.replace(second=0, **unit))
            rows = {tuple(_key(row)): row for row in await app.view(name).list()}
            assert rows.keys() == groups.keys()
            for key, group in groups.items():
                check(rows[key], group)


def _key(row):
    return getattr(row, row.__struct_fields__[0]), row.sensor


def _last(group):
    """By occurred time, then by the order of the log."""
    return max(enumerate(group), key=lambda pair: (pair[1].occurred_at, pair[0]))[1]


def check(row, group):
    values = [f.event.value for f in group if f.event.value is not None]
    assert row.readings == len(group)
    if not values:
        assert row.total is row.least is row.latest is row.median is None
        return
    known = [f for f in group if f.event.value is not None]
    assert (row.total, row.least, row.most) == (sum(values), min(values), max(values))
    assert abs(row.mean - sum(values) / len(values)) < Decimal("1e-12")
    assert row.latest == _last(known).event.value
    earliest = min(enumerate(known), key=lambda pair: (pair[1].occurred_at, pair[0]))[1]
    assert row.earliest == earliest.event.value
    ranked = sorted(map(float, values))
    assert near(row.median, ranked[int(0.5 * (len(ranked) - 1))])
    assert near(row.p99, ranked[int(0.99 * (len(ranked) - 1))])
    notes = len({f.event.note for f in group})
    assert abs(row.about - notes) <= 1 + notes * 0.05


async def test_gaps_are_filled_when_read(postgres):
    await gaps_are_filled(*postgres)


async def test_gaps_in_clickhouse_are_filled_when_read(clickhouse):
    await gaps_are_filled(*clickhouse)


async def gaps_are_filled(settings, store):
    app = make(settings, store, bucket="minute")
    async with app:
        await app.deploy()
        minute = timedelta(minutes=1)
        written = await app.append(
            read(0, at=START, sensor="a", value=Decimal(1)),
            read(1, at=START + 3 * minute, sensor="a", value=Decimal(4)),
            read(2, at=START + 3 * minute, sensor="b", value=Decimal(9)),
            read(3, at=START - 90 * minute, sensor="a", value=Decimal(7)),
        )
        await drive(app, app.stored("by_minute"), 1)
        view = app.view("by_minute")
        rows = await view.series(
            "a", start=START - minute, end=START + 5 * minute, every=minute, carry=["closed"],
            at_least=written.token,
        )  # fmt: skip
        assert [row.minute for row in rows] == [START + n * minute for n in range(-1, 5)]
        assert [row.readings for row in rows] == [0, 1, 0, 0, 1, 0]
        assert [row.total for row in rows] == [None, 1, None, None, 4, None]
        assert [row.closed for row in rows] == [7, 1, 1, 1, 4, 4]
        assert await view.series("c", start=START, end=START, every=minute) == []
        with pytest.raises(DefinitionError, match="whole number"):
            await view.series(
                "a", start=START - timedelta(seconds=30), end=START + minute, every=minute
            )
        with pytest.raises(DefinitionError, match="no such series"):
            await view.series("a", start=START, end=START, every=minute, carry=["sensor"])


async def test_old_buckets_are_removed_and_do_not_count(database):
    """By the log's own time: minutes are kept for an hour, hours for ever."""
    now = datetime.now(UTC).replace(microsecond=0)
    app = levels(make(Settings(database_url=database.url), bucket="minute", keep_seconds=3600))
    async with app:
        await app.deploy()
        ages = [0, 600, 3000, 4000, 90_000]
        await app.append(*(read(n, at=now - timedelta(seconds=age)) for n, age in enumerate(ages)))
        view = app.stored("by_minute")
        for name in ("by_minute", "by_hour", "by_day"):
            await drive(app, app.stored(name), 1)
            assert (await app.stored(name).verify()).summary == "equal"
        assert len(await app.view("by_minute").list()) == 3
        assert sum(row.readings for row in await app.view("by_day").list()) == 5
        await app.append(read(1, at=now - timedelta(days=2)), read(2, at=now))
        for name in ("by_minute", "by_hour"):
            await drive(app, app.stored(name), 2)
            assert (await app.stored(name).verify()).summary == "equal"
        assert sum(row.readings for row in await app.view("by_minute").list()) == 4
        assert sum(row.readings for row in await app.view("by_hour").list()) == 7
        verified = await app.rebuilding("by_minute").run()
        assert verified.summary == "equal"
        assert sum(row.readings for row in await app.view("by_minute").list()) == 4
        with database.admin() as admin:
            admin.execute("UPDATE headwater_views.by_minute__2 SET state_1 = state_1 + 1")
        rows = await app.view("by_minute").list()
        assert (await view.verify()).differing == 2 * len(rows), (
            "what is kept counts, on either side"
        )
        key = [f"{rows[0].minute:%Y-%m-%d %H:%M:%S}+00", rows[0].sensor]
        explained = await view.explain(key, tenant="main")
        assert explained.changes[-1].row["median"] == rows[0].median


async def test_old_buckets_are_removed_in_clickhouse_too(clickhouse):
    """After a batch, and verify does not count what is still there; the level above keeps all."""
    settings, store = clickhouse
    now = datetime.now(UTC).replace(microsecond=0)
    app = levels(make(settings, store, bucket="minute", keep_seconds=3600), store)
    async with app:
        await app.deploy()
        ages = [0, 600, 3000, 4000, 90_000]
        await app.append(*(read(n, at=now - timedelta(seconds=age)) for n, age in enumerate(ages)))
        view = app.stored("by_minute")
        for name in ("by_minute", "by_hour"):
            await drive(app, app.stored(name), 1)
            assert (await app.stored(name).verify()).summary == "equal"
        assert len(await app.view("by_minute").list()) == 3
        assert sum(row.readings for row in await app.view("by_hour").list()) == 5
        # A batch whose groups are all too old: its evidence goes with them, and it is not written again.
        await app.append(read(1, at=now - timedelta(days=2)))
        await drive(app, view, 2)
        assert len(await app.view("by_minute").list()) == 3
        await drive(app, view, 3)
        verified = await view.verify()
        assert (verified.summary, verified.rows) == ("equal", 3)
        assert (await app.rebuilding("by_minute", share=1.0).run()).summary == "equal"
        assert len(await app.view("by_minute").list()) == 3
        ((table,),) = await app._open.engines["analytics"].query(
            "SELECT name FROM system.tables WHERE endsWith(name, '/by_minute/2/groups')"
        )
        await app._open.engines["analytics"].run(
            f"ALTER TABLE headwater.`{table}` DELETE WHERE key_2 = 's1' SETTINGS mutations_sync = 2"
        )
        assert (await view.verify()).differing == 1, "what is kept counts"


def spread(n):
    """Values over nine orders of magnitude, on both sides of zero."""
    return Decimal((n * 7919) % 100_003 - 30_000) ** 3 / 1000


async def test_sketches_are_as_near_as_they_say(database18):
    sql = """SELECT sensor, approx_quantile(value, 0.01) AS q01, approx_quantile(value, 0.25) AS q25,
                    approx_quantile(value, 0.75) AS q75, approx_quantile(value, 1) AS q100,
                    approx_count_distinct(value) AS about FROM sensor.read GROUP BY 1"""
    app = make(Settings(database_url=database18.url), minute=sql)
    async with app:
        await app.deploy()
        facts = [read(n, sensor="a", value=spread(n)) for n in range(20_000)]
        await app.append(*facts)
        await drive(app, app.stored("by_minute"), 1)
        (row,) = await app.view("by_minute").list()
        values = sorted(float(fact.event.value) for fact in facts)
        for level, estimate in ((0.01, row.q01), (0.25, row.q25), (0.75, row.q75), (1, row.q100)):
            assert near(estimate, values[int(level * (len(values) - 1))]), level
        distinct = len(set(values))
        assert abs(row.about - distinct) < 0.05 * distinct
        assert (await app.stored("by_minute").verify()).summary == "equal"


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT sensor, first(value, stream, id) AS x FROM sensor.read GROUP BY 1", "arguments"),
        ("SELECT sensor, first(value)::text AS x FROM sensor.read GROUP BY 1", "around first"),
        ("SELECT sensor, approx_quantile(value, 2) AS x FROM sensor.read GROUP BY 1", "quantile"),
        ("SELECT sensor, approx_quantile(value, value) AS x FROM sensor.read GROUP BY 1", "quantile"),
        ("SELECT sensor, approx_count_distinct(DISTINCT value) AS x FROM sensor.read GROUP BY 1", "isn't understood"),
        ("SELECT sensor, merged(value) AS x FROM sensor.read GROUP BY 1", "reads none"),
        ("SELECT sensor, last(v) AS x FROM (SELECT sensor, value AS v FROM sensor.read) AS r GROUP BY 1", "position"),
        ("SELECT sensor, sum(readings) AS x FROM by_minute GROUP BY 1", "no merge"),
        ("SELECT sensor, merged(sensor) AS x FROM by_minute GROUP BY 1", "no aggregate"),
        ("SELECT readings, merged(total) AS x FROM by_minute GROUP BY 1", "no column"),
        ("SELECT m.sensor, merged(total) AS x FROM by_minute AS m GROUP BY 1", "without an alias"),
        ("SELECT x.a, count(*) AS n FROM (SELECT sensor AS a FROM by_minute) AS x GROUP BY 1", "to read here"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_when_the_app_is_built(sql, said):
    app = make(Settings())
    with pytest.raises(ViewDefinitionError, match=said):
        app.sql("other", sql=sql)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"keep_seconds": 60}, "nothing that it names"),
        ({"bucket": "total"}, "no key"),
    ],
)
def test_a_retention_that_cannot_be_is_refused_when_the_app_is_built(options, said):
    with pytest.raises(ViewDefinitionError, match=said):
        make(Settings(), **options)


def test_a_coarser_view_is_stale_when_the_finer_one_changes():
    changed = MINUTE.replace("sum(value)", "sum(value + 1)")
    before, after = (levels(make(Settings(), minute=sql)) for sql in (MINUTE, changed))
    for name in ("by_hour", "by_day"):
        prints = {app.view(name).view.definition.fingerprint for app in (before, after)}
        assert len(prints) == 2
