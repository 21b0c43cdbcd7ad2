"""SQL views recomputed elsewhere: equal to the live ones, or refused, on DuckDB over a lake and on ClickHouse."""

from __future__ import annotations

import random
import shutil
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import psutil
import pytest

from headwater import App, Event, Settings
from headwater.errors import HeadwaterError
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
    "text_of_decimal": (f"SELECT total::text AS t, count(*) AS n {P} GROUP BY 1", "needed"),
    "decimal_of_float": (f"SELECT customer, sum(weight::numeric) AS n {P} GROUP BY 1", "15 digits"),
}  # fmt: skip

KEYS = dict.fromkeys(CASES)


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
        customer=maybe(chosen.choice(["c1", "c2", "c3", "C3", "", " ", "a\nb", "né", "ñé%_", "🤦🏼é", 'q"\\,', "\\N", "NULL"])),
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
        wrong = {}
        for name in CASES:
            assert (await app.stored(name).verify()).equal, name
            for feed in FEEDS:
                try:
                    verified = await app.verify_by(name, feed)
                except HeadwaterError as error:
                    wrong[name, feed] = str(error)
                    continue
                if not verified.equal or not verified.rows:
                    wrong[name, feed] = (verified.summary, verified.differences[:2])
        for key, what in wrong.items():
            print(key, what)
        assert not wrong
