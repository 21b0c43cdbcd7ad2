"""An app without Python: a folder of SELECTs over the types of the log's registry."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from headwater import Settings, errors
from headwater.folder import app_of_folder
from support.captured import Shop

pytestmark = pytest.mark.postgres

SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "customer": {"type": "string"},
        "total": {"type": ["number", "string"], "format": "decimal"},
        "note of it": {"type": "string"},
    },
    "required": ["id", "customer", "total"],
    "additionalProperties": False,
}


@pytest.fixture
def settings(database18):
    with database18.admin() as admin:
        admin.execute(
            "SELECT headwater.register_type('orders.inserted', 1, 'orders/{id}', %s)",
            [json.dumps(SCHEMA)],
        )
        for number in range(30):
            admin.execute("BEGIN; SELECT set_config('headwater.tenant', 'main', true)")
            data = {"id": number, "customer": f"c{number % 3}", "total": "1.50"}
            admin.execute(
                "SELECT headwater.append(%s, 'orders.inserted', %s)",
                [f"orders/{number}", json.dumps(data)],
            )
            admin.execute("COMMIT")
    return Settings(database_url=database18.url)


async def test_a_select_in_a_file_is_a_view(settings, tmp_path):
    (tmp_path / "sales.sql").write_text(
        'SELECT customer, count(*) AS orders, sum(total) AS "total of it" FROM orders.inserted GROUP BY customer'
    )
    app = await app_of_folder(tmp_path, settings)
    assert app.views == ["sales"]
    async with app:
        assert await app.deploy() == {"sales": "missing"}
        with_all = await app.append(
            app.events.named("orders.inserted").event_class(id=99, customer="c0", total="2"),
            tenant="main",
        )
        async with app.relay():
            rows = await app._rows["sales"].list(tenant="main", at_least=with_all.token)
        assert [(row.customer, row.orders, str(row.output_3)) for row in rows] == [
            ("c0", 11, "17.00"),
            ("c1", 10, "15.00"),
            ("c2", 10, "15.00"),
        ]
        assert (await app.stored("sales").verify()).summary == "equal"
    (tmp_path / "sales.sql").write_text(
        "SELECT customer, count(*) AS orders FROM orders.inserted GROUP BY customer"
    )
    async with await app_of_folder(tmp_path, settings) as changed:
        assert await changed.deploy() == {"sales": "stale"}


async def test_a_file_may_read_another_files_view(settings, tmp_path):
    """By name the coarser one comes first; it is declared after the one that it reads."""
    (tmp_path / "by_customer.sql").write_text(
        "SELECT customer, id % 2 AS half, count(*) AS orders, avg(total) AS mean FROM orders.inserted GROUP BY 1, 2"
    )
    (tmp_path / "all_orders.sql").write_text(
        "SELECT half, merged(orders) AS orders, merged(mean) AS mean FROM by_customer GROUP BY half"
    )
    app = await app_of_folder(tmp_path, settings)
    assert app.views == ["by_customer", "all_orders"]
    async with app:
        await app.deploy()
        async with app.relay():
            written = await app.append(
                app.events.named("orders.inserted").event_class(id=98, customer="c0", total="18"),
                tenant="main",
            )
            rows = await app._rows["all_orders"].list(tenant="main", at_least=written.token)
        assert [(row.half, row.orders, row.mean) for row in rows] == [
            (0, 16, Decimal("2.53125")),
            (1, 15, Decimal("1.5")),
        ]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("sales", "SELECT customer FROM orders.deleted", r"sales\.sql.*orders\.inserted"),
        ("sales", "SELEC", r"sales\.sql"),
        ("My Sales", "SELECT count(*) AS n FROM orders.inserted", r"My Sales"),
    ],
)
async def test_a_file_that_cannot_be_kept_is_named(settings, tmp_path, name, text, said):
    (tmp_path / f"{name}.sql").write_text(text)
    with pytest.raises(errors.DefinitionError, match=said):
        await app_of_folder(tmp_path, settings)


async def test_a_select_over_a_captured_table_follows_its_rows(database18, tmp_path):
    """Inserted, updated, deleted, and a column added in between: always what the table would answer."""
    shop = Shop(database18)
    shop.run("CREATE TABLE shop.orders (id int PRIMARY KEY, customer text, total numeric)")
    shop.run("INSERT INTO shop.orders SELECT n, 'c' || n % 3, n FROM generate_series(1, 30) AS n")
    await shop.capture()
    select = "SELECT customer, count(*) AS orders, sum(total) AS total FROM {} GROUP BY customer"
    (tmp_path / "sales.sql").write_text(select.format("shop_orders"))
    settings = Settings(database_url=database18.url)

    async def followed():
        async with await app_of_folder(tmp_path, settings) as app:
            for view, status in (await app.deploy()).items():
                if status == "stale":
                    await app.stored(view).rebuild()
            with database18.admin() as admin:
                (head,) = admin.execute("SELECT max(position) FROM headwater.events").fetchone()
            async with app.relay():
                token = app.database().identity.token(head)
                rows = await app._rows["sales"].list(tenant="main", at_least=token)
            assert (await app.stored("sales").verify()).summary == "equal"
            return [(row.customer, row.orders, row.total) for row in rows]

    def asked():
        return [tuple(row) for row in shop.run(select.format("shop.orders") + " ORDER BY 1")]

    assert await followed() == asked()
    shop.run("UPDATE shop.orders SET total = total * 2, customer = 'c9' WHERE id % 4 = 0")
    shop.run("DELETE FROM shop.orders WHERE id % 5 = 0")
    assert await followed() == asked()
    shop.run("ALTER TABLE shop.orders ADD COLUMN note text DEFAULT 'none'")
    shop.run("INSERT INTO shop.orders VALUES (99, 'c1', 5, 'late')")
    shop.run("ALTER TABLE shop.orders DROP COLUMN note")
    shop.run("UPDATE shop.orders SET total = 7 WHERE id < 4")
    assert await followed() == asked()
    await shop.close()
