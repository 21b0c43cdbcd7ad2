"""Tables captured by logical replication: what each transaction becomes, and what is refused."""

from __future__ import annotations

import pytest

from tests.support.replicated import ReplicatedShop

pytestmark = pytest.mark.postgres

ORDERS = "CREATE TABLE orders (id int PRIMARY KEY, total numeric(10,2) NOT NULL, note text)"


async def opened(database):
    shop = ReplicatedShop(database)
    shop.run(ORDERS)
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


async def test_each_change_is_the_same_event_as_by_triggers(shop):
    shop.run("INSERT INTO orders VALUES (9, 9, 'before')")
    async with shop.reading():
        await shop.capture()
        shop.run("INSERT INTO orders VALUES (1, 5, 'a'), (2, 6, NULL)")
        shop.run("UPDATE orders SET total = 7 WHERE id = 1")
        with shop.writer.transaction(force_rollback=True):
            shop.run("DELETE FROM orders")
        shop.run("UPDATE orders SET total = total")
        shop.run("UPDATE orders SET id = 3 WHERE id = 1")
        shop.run("DELETE FROM orders WHERE id = 2")
        await shop.until_read()
    assert [event[:4] for event in shop.log()] == [
        ("shop-orders/9", 1, "inserted", {"id": 9, "total": "9.00", "note": "before"}),
        ("shop-orders/1", 1, "inserted", {"id": 1, "total": "5.00", "note": "a"}),
        ("shop-orders/2", 1, "inserted", {"id": 2, "total": "6.00", "note": None}),
        ("shop-orders/1", 2, "updated", {"id": 1, "total": "7.00", "note": "a", "before": {"total": "5.00"}}),
        ("shop-orders/1", 3, "deleted", {"id": 1, "total": "7.00", "note": "a"}),
        ("shop-orders/3", 1, "inserted", {"id": 3, "total": "7.00", "note": "a"}),
        ("shop-orders/2", 2, "deleted", {"id": 2, "total": "6.00", "note": None}),
    ]  # fmt: skip
    assert shop.misfits() == []
