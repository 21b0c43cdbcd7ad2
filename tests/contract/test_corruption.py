"""Promise 4 in every store: what was changed behind a store's back is found, named and mended."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
import redis
from everywhere import FEEDS, Engines, driven, fill

from headwater.views.definition import Sample

pytestmark = pytest.mark.postgres


@pytest.fixture
def engines18(database18, tmp_path):
    every = Engines(database18, tmp_path)
    yield every
    every.close()


async def corrupt(engines, app, written):
    """One row in each store; what each view's verify should name."""
    with engines.database.admin() as admin:
        admin.execute(
            "UPDATE headwater_views.fold__1 SET document = jsonb_set(document, '{total}', '99') WHERE key = 'k2'"
        )
        admin.execute("UPDATE headwater_views.table__1 SET state_1 = 99 WHERE key_1 = 'k3'")
    with redis.Redis(unix_socket_path=engines.redis.socket) as client:
        (documents,) = client.keys("*fast/1}:documents:main")
        client.hset(documents, "k4", '{"total":99,"events":1}')
    log = app.database("headwater_app").identity.log_id
    position = written.positions[5]
    await run(
        app,
        f"ALTER TABLE headwater.`{log}/analytic/1/groups` DELETE WHERE key_1 = 'k5' SETTINGS mutations_sync = 2",
        f"ALTER TABLE headwater.`{log}/typed/1/order.placed` UPDATE total = 99 WHERE position = {position} SETTINGS mutations_sync = 2",
    )
    (_, file) = (await app._feeds["archive"].files())[0]
    path = engines.lake / str(log) / "archive" / "1" / file.path
    table = pq.read_table(path)
    totals = table.column("total").to_pylist()
    totals[6] = 99
    at = table.schema.get_field_index("total")
    pq.write_table(table.set_column(at, "total", [totals]), path)
    return {
        "fold": "k2", "table": "order=k3", "fast": "k4", "analytic": "order=k5",
        "typed": str(position), "archive": str(written.positions[6]),
    }  # fmt: skip


async def run(app, *statements):
    for statement in statements:
        await app._open.engines["analytics"].run(statement)


async def test_a_corrupted_row_is_found_and_named_in_every_store(engines18):
    async with engines18.app() as app:
        await app.deploy()
        written = await fill(app, 70)
        await driven(app, 1)
        for view, key in (await corrupt(engines18, app, written)).items():
            verified = await app.stored(view).verify()
            assert not verified.equal, view
            assert {difference.key for difference in verified.differences} == {key}, view
            if view in FEEDS:  # each of few files is in some sample
                samples = [await app.stored(view).verify(sample=Sample(2, n)) for n in range(2)]
                assert any(not sampled.equal for sampled in samples), view
            assert (await app.rebuilding(view, share=1.0).run()).equal  # and mended beside itself
            assert (await app.stored(view).verify()).summary == "equal", view
