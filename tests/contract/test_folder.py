"""An app without Python: a folder of SELECTs over the types of the log's registry."""

from __future__ import annotations

import json

import pytest

from headwater import Settings, errors
from headwater.folder import app_of_folder

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
