"""SQL views recomputed elsewhere: equal to the live ones, or refused, on DuckDB over a lake and on ClickHouse."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import sys
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec
import psutil
import psycopg
import pytest
from recomputing_cases import view
from warm import warm

from headwater import App, Event, Settings
from headwater.errors import (
    DefinitionError,
    NotCaughtUp,
    QueryRefused,
    UnknownView,
    ViewDefinitionError,
    ViewStale,
)
from headwater.events import Cast, Default, Rename
from headwater.stores.clickhouse import ClickHouse
from headwater.stores.clickhouse.placement import Placement
from headwater.stores.lake import Lake
from headwater.testing.driving import drive, publish

pytestmark = pytest.mark.postgres


class Placed(Event, type="shop.placed", stream="order/{order}"):
    order: int
    customer: str | None = None
    total: Decimal | None = None
    fee: Decimal | None = None
    quantity: int | None = None
    weight: float | None = None
    gift: bool | None = None
    day: date | None = None
    at: datetime | None = None
    reference: UUID | None = None
    notes: dict[str, str] | None = None


class Refunded(Event, type="shop.refunded", stream="order/{order}"):
    order: int
    amount: Decimal | None = None


class Other(Event, type="shop.other", stream="order/{order}"):
    order: int


FEEDS = ("lake", "columns")
TENANTS = ("a", "b", "its-x")
P = "FROM shop.placed"
CASES = {
    "daily": f"SELECT date_trunc('day', occurred_at) AS day, count(*) AS orders, sum(total) AS total, avg(total) AS mean, "
             f"count(DISTINCT customer) AS customers {P} WHERE total > 0 GROUP BY 1",
    "null_keys": f"SELECT customer, quantity % 3 AS third, count(*) AS n, count(total) AS totals, sum(total) AS total, "
                 f"min(total) AS least, max(occurred_at) AS latest, avg(quantity) AS q, sum(quantity)::numeric(30) AS whole, "
                 f"avg(total)::numeric(32, 3) AS rounded {P} GROUP BY 1, 2",
    "no_keys": f"SELECT count(*) AS n, sum(total) AS total, count(DISTINCT quantity) AS quantities, "
               f"min(customer) AS first_one, max(customer) AS last_one {P}",
    "filters": "SELECT stream, count(*) FILTER (WHERE total > 50) AS large, sum(total) FILTER (WHERE customer = 'c1') AS c1, "
               "avg(total) FILTER (WHERE total < 0) AS neg, min(total) FILTER (WHERE customer IS NULL) AS anonymous, "
               "count(DISTINCT customer) FILTER (WHERE quantity > 2) AS keen, sum(total + 1)::numeric(30, 1) AS more "
               "FROM shop.placed AS p WHERE p.quantity IS NOT NULL GROUP BY stream",
    "all_null": f"SELECT customer, sum(nullif(total, total)) AS nothing, max(nullif(total, total)) AS most, "
                f"count(DISTINCT nullif(customer, customer)) AS none {P} GROUP BY customer",
    "union_all": "SELECT day, kind, sum(amount) AS amount, count(*) AS n, count(DISTINCT amount) AS amounts "
                 "FROM (SELECT occurred_at::date AS day, total AS amount, 'placed' AS kind FROM shop.placed WHERE total > 0 "
                 "UNION ALL SELECT r.occurred_at::date, -r.amount, 'refunded' FROM shop.refunded AS r WHERE r.amount <> 0) "
                 "AS u GROUP BY day, kind",
    "two_sources": "SELECT stream, sum(plus) AS plus, sum(minus) AS minus FROM (SELECT stream, total AS plus, 0 AS minus "
                   "FROM shop.placed UNION ALL SELECT stream, 0, amount FROM shop.refunded) AS u "
                   "WHERE stream LIKE '%1' OR stream LIKE '%2' GROUP BY 1",
    "only_keys": f"SELECT customer, quantity {P} GROUP BY 1, 2",
    "arithmetic": f"SELECT quantity / 2 AS half, quantity % 4 AS rest, -quantity AS less, sum(total * (quantity % 100)) AS value, "
                  f"sum(total * fee) AS product, sum(round(total * fee, 2)) AS rounded, max(total::numeric(32, 1)) AS cast_to, "
                  f"sum(abs(total) - fee) AS apart, sum(ceil(total)) AS up, sum(floor(total)) AS down "
                  f"{P} GROUP BY 1, 2, 3",
    "texts": f"SELECT coalesce(customer, '%') || '-' || 'x' AS joined, char_length(customer) AS long, left(customer, 2) AS beginning, "
             f"substring(customer, 2, 2) AS middle, replace(customer, 'é', '--') AS other, count(*) FILTER (WHERE customer LIKE '_é%') AS liked, "
             f"count(*) AS n {P} GROUP BY 1, 2, 3, 4, 5",
    "times": f"SELECT date_trunc('week', at) AS week, extract(dow FROM at) AS dow, extract(hour FROM at) AS hour, extract(week FROM at) AS number, "
             f"extract(doy FROM day) AS doy, date_trunc('month', at) AS month, min(at) AS first_one, max(day) AS last_one, count(*) AS n "
             f"{P} WHERE at >= '1960-01-01' AND at < timestamptz '2100-01-01 00:00:00+02' GROUP BY 1, 2, 3, 4, 5, 6",
    "years": f"SELECT date_trunc('year', at) AS y, date_trunc('quarter', at) AS q, date_trunc('hour', at) AS h, date_trunc('minute', at) AS m, "
             f"extract(isodow FROM at) AS i, extract(year FROM at) AS n, extract(month FROM at) AS mo, extract(quarter FROM at) AS qu, count(*) AS c {P} GROUP BY 1, 2, 3, 4, 5, 6, 7, 8",
    "choices": f"SELECT CASE WHEN total BETWEEN 10 AND 20 THEN 'band' WHEN gift THEN 'gift' ELSE customer END AS band, gift, "
               f"count(*) FILTER (WHERE quantity IN (1, 4) OR gift IS NOT TRUE) AS n, count(*) FILTER (WHERE NOT gift) AS no, "
               f"sum(greatest(total, fee, 0)) AS most, min(least(quantity, 3)) AS least, count(*) FILTER (WHERE customer IS DISTINCT FROM 'c1') AS others, "
               f"count(*) FILTER (WHERE customer > 'c3') AS after {P} WHERE quantity NOT IN (2) OR quantity IS NULL GROUP BY 1, 2",
    "parked": f"SELECT quantity, sum(total::bigint) AS whole, count(*) AS n {P} GROUP BY 1",
    "ids": f"SELECT reference, count(DISTINCT id) AS ids, count(reference) AS n, max(position) AS newest, max(version) AS version {P} GROUP BY 1",
    "floats": f"SELECT customer, sum(weight) AS weight, avg(weight) AS mean, max(weight) AS most, sum(weight * 0.1 - quantity) AS mixed, count(*) AS n {P} GROUP BY 1",
    "exact_floats": f"SELECT customer, sum(weight::numeric) AS weight, avg(weight::numeric) AS mean, min(weight::numeric * 2) AS least "
                    f"{P} WHERE weight < 1000 GROUP BY 1",
    "ends": f"SELECT customer, first(total) AS opening, last(total, at) AS latest, last(quantity) FILTER (WHERE gift) AS gifts {P} GROUP BY 1",
    "sketched": f"SELECT customer, approx_quantile(total, 0.95) AS p95, approx_count_distinct(customer) AS about, count(*) AS n {P} GROUP BY 1",
}  # fmt: skip
REFUSED = {
    "lower": (f"SELECT lower(customer) AS low, count(*) AS n {P} GROUP BY 1", "lower.*locale"),
    "zone": (f"SELECT date_trunc('day', at AT TIME ZONE 'Europe/Berlin') AS day, count(*) AS n {P} GROUP BY 1", "zones"),
    "quotient": (f"SELECT customer, sum(total / 3) AS n {P} GROUP BY 1", "quotient"),
    "power": (f"SELECT customer, sum(quantity ^ 2)::bigint AS n {P} GROUP BY 1", "Pow"),
    "regular": (f"SELECT customer, count(*) FILTER (WHERE customer ~ '^c') AS n {P} GROUP BY 1", "RegexpLike"),
    "json": (f"SELECT notes ->> 'a' AS note, count(*) AS n {P} GROUP BY 1", "JSON"),
    "spelt": (f"SELECT to_char(at, 'IW') AS week, count(*) AS n {P} GROUP BY 1", "not computed alike"),
    "later": (f"SELECT max(at + interval '1 month') AS later {P}", "no fixed length"),
    "float_key": (f"SELECT weight, count(*) AS n {P} GROUP BY 1", "told apart"),
    "text_of_decimal": (f"SELECT total::text AS t, count(*) AS n {P} GROUP BY 1", "not read as text"),
    "decimal_of_float": (f"SELECT customer, sum((weight * 2)::numeric) AS n {P} GROUP BY 1", "only a column of floats"),
}  # fmt: skip


def app_of(url, urls, views) -> App:
    app = App(
        "shop", events=[Placed, Refunded, Other], settings=Settings(database_url=url, stores=urls)
    )
    for name, query in views.items():
        app.sql(name, sql=query, float_tolerance=1e-4)
    lake, columns = (
        Lake("lake", every_seconds=0.01),
        ClickHouse("columns", every_seconds=0.01, idle_seconds=20),
    )
    app.feed("lake", types=[Placed, Refunded], store=lake)
    app.feed("columns", types=[Placed, Refunded], store=columns)
    app.feed("partial", types=[Refunded], store=lake)
    return app


def random_event(chosen: random.Random):
    maybe = lambda value: None if chosen.random() < 0.25 else value  # noqa: E731
    order = chosen.randint(1, 12)
    if chosen.random() < 0.3:
        return Refunded(order, maybe(Decimal(chosen.randint(-50, 3000)) / 100))
    at = chosen.choice([
        datetime(2026, 3, 29, 0, 59, 59, 999999, UTC), datetime(2026, 10, 25, 1, 0, 0, 1, UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999999, UTC), datetime(2024, 2, 29, 12, 30, tzinfo=UTC),
        datetime(1925, 6, 1, tzinfo=UTC), datetime(2199, 12, 31, 23, 59, tzinfo=UTC),
    ]) + timedelta(minutes=chosen.randint(-3000, 3000), microseconds=chosen.randint(0, 999_999))  # fmt: skip
    return Placed(
        order,
        customer=maybe(chosen.choice(["c1", "c2", "c3", "C3", "", " ", "\u00a0x\u3000", "a\nb", "né", "ñé%_", "🤦🏼é", 'q"\\,', "\\N", "NULL"])),
        total=maybe(chosen.choice([Decimal(chosen.randint(-2000, 10_000)) / 100, Decimal("12345678901234567890.123456"), Decimal("-0.000001"), Decimal("7.10")])),
        fee=maybe(Decimal(chosen.randint(-99, 99)) / 10),
        quantity=maybe(chosen.choice([chosen.randint(-7, 7), 2**40, -(2**40)])),
        weight=maybe(chosen.choice([chosen.random() * 1000 - 500, 1e-9, 1e12])),
        gift=maybe(chosen.random() < 0.5),
        day=maybe(at.date()),
        at=maybe(at),
        reference=maybe(UUID(int=chosen.randint(1, 4))),
    )  # fmt: skip


class Ground:
    def __init__(self, database, folder):
        self.database, self.folder = database, folder
        self.clickhouse = folder / "clickhouse"
        self.urls = {"lake": f"file://{folder / 'lake'}", "columns": f"chdb://{self.clickhouse}"}
        self.fence = 0

    def app(self, views):
        return app_of(self.database.url, self.urls, views)

    async def drive(self, app, *names):
        self.fence += 1
        for name in names:
            await drive(app, app.stored(name), self.fence)

    def close(self):
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if "headwater.stores.clickhouse.owner" in command and str(self.clickhouse) in command:
                process.kill()
                process.wait(10)
        shutil.rmtree(Placement.of(self.clickhouse).socket.parent, ignore_errors=True)


@pytest.fixture
def ground(database18, tmp_path):
    made = Ground(database18, tmp_path)
    yield made
    made.close()


async def fill(app, seed, count):
    chosen = random.Random(seed)
    for tenant in TENANTS:
        events = [random_event(chosen) for _ in range(count)]
        for event in events:
            at = datetime(2026, 3, chosen.randint(28, 30), chosen.randint(0, 23), tzinfo=UTC)
            await app.append(event, tenant=tenant, occurred_at=at)
        await app.append(Other(1), tenant=tenant)
    await publish(app)


@pytest.mark.parametrize("seed", [1, 2])
async def test_what_is_recomputed_equals_the_live_view(ground, seed):
    async with ground.app(CASES) as app:
        await app.deploy()
        await fill(app, seed, 120)
        await ground.drive(app, *CASES, *FEEDS)
        for name in CASES:
            for feed in FEEDS:
                verified = await app.verify_by(name, feed)
                assert verified.equal, (name, feed, verified.differences[:2])
                assert verified.rows, (name, feed)
        assert (await app.verify_by("sketched", "lake")).excluded == ("p95", "about")
        assert (await app.verify_by("parked", "columns")).summary.startswith("equal except")


async def test_what_is_not_computed_alike_is_refused_by_name(ground):
    async with ground.app({name: query for name, (query, _) in REFUSED.items()}) as app:
        await app.deploy()
        await ground.drive(app, *FEEDS)
        for name, (_, said) in REFUSED.items():
            for feed, engine in zip(FEEDS, ("DuckDB", "ClickHouse"), strict=True):
                with pytest.raises(QueryRefused, match=said) as refused:
                    await app.verify_by(name, feed)
                assert refused.value.message.startswith(
                    f"{engine} does not recompute the view '{name}': "
                )
                assert "--by" in refused.value.hint


SALES = {"sales": f"SELECT customer, count(*) AS n, sum(total) AS total, avg(total) AS mean, sum(weight) AS weight {P} GROUP BY 1"}  # fmt: skip


async def sold(app, ground, *feeds):
    await app.deploy()
    for n in range(20):
        await app.append(Placed(n, f"c{n % 3}", Decimal(n) / 10, weight=n / 7), tenant="a")
    await publish(app)
    await ground.drive(app, "sales", *feeds)


@pytest.mark.parametrize("feed", FEEDS)
async def test_a_damaged_row_is_found_and_both_values_are_shown(ground, feed):
    async with ground.app(SALES) as app:
        await sold(app, ground, feed)
        assert (await app.verify_by("sales", feed)).summary == "equal"
        with ground.database.admin() as admin:
            table = "headwater_views.sales__1"
            admin.execute(f"UPDATE {table} SET state_2 = state_2 + 0.1 WHERE key_1 = 'c1'")
            admin.execute(f"DELETE FROM {table} WHERE key_1 = 'c2'")
            admin.execute(
                f"INSERT INTO {table} (tenant, key_1, state_1, state_3) VALUES ('b', NULL, 1, 0)"
            )
        verified = await app.verify_by("sales", feed)
        assert (verified.summary, verified.rows) == ("3 differ", 3)
        changed, missing, surplus = verified.differences
        assert (changed.tenant, changed.key) == ("a", "customer=c1")
        assert changed.stored["total"] - changed.expected["total"] == pytest.approx(0.1)
        assert changed.stored["n"] == changed.expected["n"] == 7
        assert (missing.stored, missing.expected["n"]) == (None, 6)
        assert (surplus.key, surplus.expected, surplus.stored["n"]) == ("customer=None", None, 1)
        few = await app.verify_by("sales", feed, limit=1)
        assert (few.differing, len(few.differences)) == (3, 1)


@pytest.mark.parametrize("feed", FEEDS)
async def test_a_float_is_near_by_the_sum_of_the_absolute_values(ground, feed):
    async with ground.app(SALES) as app:
        await sold(app, ground, feed)
        change = "UPDATE headwater_views.sales__1 SET state_5 = state_5 * (1 + {})"
        with ground.database.admin() as admin:
            admin.execute(change.format("2e-10"))
            assert (await app.verify_by("sales", feed)).equal
            admin.execute(change.format("2e-9"))
        assert (await app.verify_by("sales", feed)).differing == 3


@pytest.mark.parametrize("feed", FEEDS)
async def test_only_what_the_view_has_applied_counts(ground, feed):
    """Positions after its checkpoint do not, and a feed that is behind it is waited for, for a while."""
    async with ground.app(SALES) as app:
        await sold(app, ground, feed)
        await app.append(Placed(1, "c1", Decimal(5)), tenant="a")
        upto = await publish(app)
        await ground.drive(app, feed)
        verified = await app.verify_by("sales", feed)
        assert (verified.summary, verified.position < upto) == ("equal", True)
        await app.append(Placed(1, "c1", Decimal(5)), tenant="a")
        await publish(app)
        await ground.drive(app, "sales")
        with pytest.raises(
            NotCaughtUp, match=rf"'{feed}' has not reached position \d+, where the view 'sales' is"
        ):
            await app.verify_by("sales", feed, timeout_seconds=0.2)
        waiting = asyncio.create_task(app.verify_by("sales", feed, timeout_seconds=30))
        await ground.drive(app, feed)
        assert (await waiting).summary == "equal"


async def test_a_feed_that_lacks_something_is_refused(ground):
    views = SALES | {"plain": "SELECT count(*) AS n FROM shop.other"}
    async with ground.app(views) as app:
        await sold(app, ground, *FEEDS, "partial", "plain")
        for view, feed, said in [
            ("sales", "partial", "'partial' lacks the events 'shop.placed', which the view 'sales' reads. It has shop.refunded"),
            ("plain", "lake", "lacks the events 'shop.other'"),
        ]:  # fmt: skip
            with pytest.raises(QueryRefused, match=said):
                await app.verify_by(view, feed)
        for view, feed, said in [("sales", "sales", "no feed"), ("lake", "lake", "no SQL view")]:
            with pytest.raises(DefinitionError, match=said):
                await app.verify_by(view, feed)
        with pytest.raises(UnknownView):
            await app.verify_by("sales", "nothing")


async def test_an_event_that_the_feed_has_set_aside_is_not_left_out_in_silence(ground):
    """ClickHouse has no such date, so its feed parks the event; the view has it."""
    async with ground.app(SALES) as app:
        await app.deploy()
        await app.append(Placed(1, "c1", Decimal(1), day=date(1066, 10, 14)), tenant="a")
        await publish(app)
        await ground.drive(app, "sales", *FEEDS)
        with pytest.raises(QueryRefused, match="lacks 1 events that the view 'sales' has applied"):
            await app.verify_by("sales", "columns")
        assert (await app.verify_by("sales", "lake")).summary == "equal"


async def test_a_number_beyond_what_an_engine_holds_is_refused(ground):
    async with ground.app(
        {"wide": f"SELECT customer, sum(total * fee) AS n {P} GROUP BY 1"}
    ) as app:
        await app.deploy()
        large = Decimal("1" * 37 + "." + "1" * 20)
        await app.append(Placed(1, "c1", large, large), tenant="a")
        await publish(app)
        await ground.drive(app, "wide", *FEEDS)
        assert (await app.stored("wide").verify()).summary == "equal"
        for feed in FEEDS:
            with pytest.raises(QueryRefused, match="does not recompute the view 'wide'"):
                await app.verify_by("wide", feed)


async def test_a_view_in_clickhouse_and_a_view_over_a_view_are_recomputed_too(ground):
    app = app_of(ground.database.url, ground.urls, {"hourly": f"SELECT date_trunc('hour', occurred_at) AS hour, customer, sum(total) AS total, avg(quantity) AS mean {P} GROUP BY 1, 2"})  # fmt: skip
    app.sql("daily", sql="SELECT date_trunc('day', hour) AS day, merged(total) AS total, merged(mean) AS mean FROM hourly WHERE customer <> 'c1' GROUP BY 1")  # fmt: skip
    app.sql("kept", sql=f"SELECT customer, date_trunc('day', occurred_at) AS day, count(*) AS n, avg(fee) AS fee, last(quantity) AS newest {P} GROUP BY 1, 2", store=app.feeds[1].store)  # fmt: skip
    async with app:
        await app.deploy()
        await fill(app, 5, 60)
        await ground.drive(app, "hourly", "daily", "kept", *FEEDS)
        for view in ("hourly", "daily", "kept"):
            for feed in FEEDS:
                verified = await app.verify_by(view, feed)
                assert (verified.summary, verified.rows > 5) == ("equal", True), (view, feed)


class PlacedOnce(Event, type="shop.sold", stream="order/{order}"):
    order: int
    sum: str


class Sold(Event, type="shop.sold", stream="order/{order}", version=2, upcasts={
    1: [Rename("sum", "Total 100%"), Cast("Total 100%", Decimal), Default("kind", "old")],
}):  # fmt: skip
    order: int
    total: Decimal = msgspec.field(name="Total 100%")
    kind: str = "new"


@pytest.mark.parametrize("kept", [Lake("lake"), ClickHouse("columns", idle_seconds=20)], ids=FEEDS)
async def test_events_of_earlier_versions_and_odd_names(ground, kept):
    settings = Settings(database_url=ground.database.url, stores=ground.urls)
    async with App("shop", events=[PlacedOnce], settings=settings) as app:
        await app.deploy()
        await app.append(PlacedOnce(1, "1.50"), PlacedOnce(2, "2.25"), tenant="a")
    app = App("shop", events=[Sold], settings=settings)
    query = 'SELECT kind, p."order" % 2 AS "Odd {1} 1%", sum("Total 100%") AS "{0} $x" FROM shop.sold AS p GROUP BY 1, 2'
    app.sql("kinds", sql=query, key=("kind", "Odd {1} 1%"))
    app.feed("held", types=[Sold], store=kept)
    async with app:
        await app.deploy()
        await app.append(Sold(order=3, total=Decimal("0.75")), tenant="a")
        await publish(app)
        await ground.drive(app, "kinds", "held")
        verified = await app.verify_by("kinds", "held")
        assert (verified.summary, verified.rows) == ("equal", 3)


async def test_old_buckets_do_not_count(ground):
    app = app_of(ground.database.url, ground.urls, {})
    hour = f"SELECT date_trunc('hour', occurred_at) AS hour, count(*) AS n {P} GROUP BY 1"
    app.sql("recent", sql=hour, bucket="hour", keep_seconds=7200)
    async with app:
        await app.deploy()
        for hours in (5, 1, 0):
            at = datetime.now(UTC) - timedelta(hours=hours)
            await app.append(Placed(1), tenant="a", occurred_at=at)
        await publish(app)
        await ground.drive(app, "recent", *FEEDS)
        for feed in FEEDS:
            verified = await app.verify_by("recent", feed)
            assert (verified.summary, verified.rows) == ("equal", 2)


async def test_a_changed_definition_is_refused_until_it_is_rebuilt(ground):
    async with ground.app(SALES) as app:
        await sold(app, ground, "lake")
    changed = app_of(ground.database.url, ground.urls, {"sales": SALES["sales"].replace("count(*)", "count(fee)")})  # fmt: skip
    async with changed:
        with pytest.raises(ViewStale, match="'sales' is stale") as stale:
            await changed.verify_by("sales", "lake")
        assert stale.value.hint == "Run headwater rebuild sales."


async def test_the_command(ground, tmp_path):
    (tmp_path / "recomputed.py").write_text(
        "from headwater import Settings\nfrom test_recomputing import SALES, Placed, Refunded, app_of\n"
        "settings = Settings.from_environment()\napp = app_of(settings.database_url, settings.stores, SALES)\n"
    )
    async with ground.app(SALES) as app:
        await sold(app, ground, *FEEDS)
    env = {"HEADWATER_DATABASE_URL": ground.database.url, "PYTHONPATH": os.pathsep.join(sys.path)}
    env |= {f"HEADWATER_STORE_{name.upper()}_URL": url for name, url in ground.urls.items()}

    def run(*arguments):
        return warm().run(["--app", "recomputed:app", "verify", *arguments], cwd=tmp_path, env=env)

    done = run("sales", "--by", "lake", "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert (found["equal"], found["rows"], found["excluded"]) == (True, 3, [])
    with ground.database.admin() as admin:
        admin.execute(
            "UPDATE headwater_views.sales__1 SET state_1 = state_1 + 1 WHERE key_1 = 'c1'"
        )
    done = run("sales", "--by", "columns")
    assert done.returncode == 1, done.stderr
    assert "sales a customer=c1: expected {" in done.stdout
    assert run("--by", "lake").returncode == 2
    done = run("sales", "--by", "partial")
    assert (done.returncode, "lacks the events" in done.stderr) == (2, True), done.stderr


async def deployed(app, names):
    """The views that Postgres takes: a random expression may be of no use to it."""
    taken = []
    for name in names:
        try:
            await app.stored(name).deploy()
        except (ViewDefinitionError, psycopg.Error):
            continue
        taken.append(name)
    return taken


@pytest.mark.parametrize("seed", [0, 12])
async def test_whatever_the_expression_it_is_refused_or_equal(ground, seed):
    chosen, views = random.Random(seed), {}
    while len(views) < 24:
        with contextlib.suppress(ViewDefinitionError):
            query = view(chosen)
            app_of(ground.database.url, ground.urls, {"tried": query})
            views[f"v{len(views)}"] = query
    async with ground.app({}) as app:
        await app.deploy()
    counted, said, wrong = Counter(), [], []
    async with ground.app(views) as app:
        names = await deployed(app, views)
        await fill(app, seed, 60)
        await ground.drive(app, *names, *FEEDS)
        for name in names:
            for feed in FEEDS:
                try:
                    verified = await app.verify_by(name, feed)
                except QueryRefused as refused:
                    counted["refused"] += 1
                    said.append(refused.message)
                    continue
                counted["equal"] += 1
                if not verified.equal:
                    wrong.append((views[name], feed, verified.differences[:1]))
    assert not wrong, "\n".join(map(str, wrong))
    assert all("does not recompute" in each for each in said), said
    assert counted["equal"] > counted["refused"] / 4
