"""What is Redis's own: what it refuses, what it survives, how long it is held up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from decimal import Decimal
from statistics import median

import pytest
from redis import Redis as Client
from redis_server import RedisServer
from test_stores import RedisGround

from headwater import App, Settings
from headwater.errors import (
    DefinitionError,
    NotCaughtUp,
    SettingError,
    StoreRefused,
    StoreUnavailable,
    ViewDefinitionError,
    ViewStale,
)
from headwater.operations.health import view_rows
from headwater.relay import Batch
from headwater.stores.redis import Redis
from headwater.stores.redis.engine import refuse
from headwater.testing.contract_app import Placed, make
from headwater.testing.driving import drive, publish
from headwater.testing.stores import fill, orders

pytestmark = pytest.mark.postgres


@pytest.fixture
def server():
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def client(server):
    with Client(unix_socket_path=server.socket) as client:
        yield client


@pytest.fixture
def ground(database18, server):
    return RedisGround(database18.url, server)


@pytest.mark.parametrize(
    ("version", "policy", "refused"),
    [
        ("6.0.16", "noeviction", "is Redis 6.0.16"),
        ("7.2.4", "allkeys-lru", "may evict"),
        ("6.2.0", "noeviction", None),
        ("8.0.1", "volatile-ttl", None),
    ],
)
def test_a_server_that_is_too_old_or_evicts_is_refused(version, policy, refused):
    told = {"redis_version": version}, {"maxmemory_policy": policy}
    if refused is None:
        refuse("fast", *told)
    else:
        with pytest.raises(StoreRefused, match=refused):
            refuse("fast", *told)


async def test_an_evicting_server_is_refused_and_shown(ground, client):
    client.config_set("maxmemory-policy", "allkeys-lru")
    async with ground.app() as app:
        await fill(app, 10)
        with pytest.raises(StoreRefused, match="may evict"):
            await drive_once(app.stored("orders"))
        client.config_set("maxmemory-policy", "noeviction")
        await drive(app, app.stored("orders"), 2)


async def drive_once(view, fence=1):
    """Opens a view, as its relay would; the error is the relay's to wait out."""
    try:
        await view.open(fence)
    finally:
        await view.close()


async def test_what_holds_a_view_up_is_shown(ground, client):
    """`headwater views` and `doctor` read this."""
    client.config_set("maxmemory-policy", "allkeys-lru")
    async with ground.app() as app, app.relay():
        operator = app.database("headwater_operator")
        shown = None
        async with asyncio.timeout(60):
            while shown is None or shown[6] != "retrying":
                found = {row[0]: row for row in await view_rows(operator, {})}
                shown = found["orders"]
        assert "may evict views" in shown[8]
        assert found["plain"][6] == "running"
        client.config_set("maxmemory-policy", "noeviction")


async def test_a_full_server_delays_its_views(ground, client):
    async with ground.app() as app:
        await fill(app, 200, keys=200)
        view = app.stored("orders")
        start = await view.open(1)
        last = await publish(app)
        used = client.info("memory")["used_memory"]
        client.config_set("maxmemory", used - 1)
        with pytest.raises(StoreUnavailable, match="full"):
            await view.apply(Batch(start, last))
        await view.close()
        client.config_set("maxmemory", 0)
        await drive(app, view, 1)
        assert (await view.verify()).summary == "equal"


async def test_a_server_that_lost_its_data_is_filled_again(ground, client):
    async with ground.app() as app:
        await fill(app, 100)
        written = await app.append(Placed(1, "k1", Decimal(1)))
        view = app.stored("orders")
        await drive(app, view, 1)
        client.flushall()
        with pytest.raises(NotCaughtUp, match="again"):
            await orders(app).get("k1", at_least=written.token)
        await drive(app, view, 2)
        assert await orders(app).get("k1", at_least=written.token)
        assert (await view.verify()).summary == "equal"


async def test_data_of_another_history_is_noticed(ground, database18):
    """The log was restored: an event that the data rests on is not there, or another one is."""
    async with ground.app() as app:
        await fill(app, 50)
        view = app.stored("orders")
        await drive(app, view, 1)
        with database18.admin() as admin:
            admin.execute("UPDATE headwater.log SET epoch = epoch + 1")
        await drive(app, view, 2)
        assert (await view.verify()).summary == "equal"
        with database18.admin() as admin:
            admin.execute(
                "UPDATE headwater.events SET id = gen_random_uuid() WHERE position = "
                "(SELECT max(position) FROM headwater.events)"
            )
        with pytest.raises(ViewStale, match="restored"):
            await drive_once(view, 3)
        await view.rebuild()
        await drive(app, view, 3)
        assert (await view.verify()).summary == "equal"


async def test_a_checkpoint_ahead_of_the_log_is_noticed(ground, database18):
    async with ground.app() as app:
        await fill(app, 50)
        view = app.stored("orders")
        await drive(app, view, 1)
        with database18.admin() as admin:
            admin.execute(
                "DELETE FROM headwater.events WHERE position > (SELECT max(position) - 10 FROM headwater.events)"
            )
        with pytest.raises(ViewStale, match="restored"):
            await drive_once(view)


async def test_a_rebuild_leaves_nothing_of_the_generation_before(ground, client):
    async with ground.app() as app:
        await fill(app, 50)
        view = app.stored("orders")
        await drive(app, view, 1)
        before = len(client.keys())
        await view.rebuild()
        await drive(app, view, 2)
        names = [name.decode() for name in client.scan_iter()]
        assert len(names) == before
        assert all("/orders/2}" in name for name in names)


async def test_a_view_that_moves_out_leaves_nothing_in_postgres(ground, database18):
    async with make(ground.settings, None) as app:
        await app.deploy()
        await fill(app, 20)
        await drive(app, app.stored("orders"), 1)
    async with ground.app() as app:
        view = app.stored("orders")
        assert await view.status() == "stale"
        await view.rebuild()
        await drive(app, view, 2)
        assert (await view.verify()).summary == "equal"
        with database18.admin() as admin:
            held = admin.execute(
                "SELECT count(*) FROM pg_class WHERE relname LIKE 'orders%' "
                "AND relnamespace = 'headwater_views'::regnamespace"
            ).fetchone()
        assert held == (0,)


async def test_a_key_of_another_type_stops_before_the_first_write(ground, client):
    async with ground.app() as app:
        await fill(app, 20)
        view = app.stored("orders")
        start = await view.open(1)
        (checkpoint,) = client.keys()
        prefix = checkpoint.decode().removesuffix(":checkpoint")
        client.set(f"{prefix}:keys:main", "mine")
        with pytest.raises(StoreRefused, match="HWTYPE"):
            await view.apply(Batch(start, await publish(app)))
        assert client.hget(checkpoint, "position") == b"0"
        assert not client.exists(f"{prefix}:documents:main")
        await view.close()


async def test_a_step_holds_the_server_up_for_milliseconds(ground, client):
    """A step's script is bounded: this many writes, whatever the batch."""
    async with ground.app() as app:
        for n in range(3):
            await fill(app, 4_000, keys=4_000 + n)
        client.config_set("slowlog-log-slower-than", 300)  # at 0 what scripts call fills it
        client.config_set("slowlog-max-len", 1000)
        await drive(app, app.stored("orders"), 1)
        scripts = [
            entry["duration"] for entry in client.slowlog_get(1000)
            if entry["command"].startswith(b"EVALSHA")
        ]  # fmt: skip
        assert len(scripts) >= 12
        assert median(scripts) < 50_000  # microseconds; a loaded machine may stop any one of them


def test_what_is_not_offered_is_refused_when_the_app_is_built():
    app = App("shop", events=[Placed], tenant="main")
    with pytest.raises(ViewDefinitionError, match="does not run a sql"):
        app.sql("sales", row=Placed, key=(), sql="SELECT 1", store=Redis("fast"))
    with pytest.raises(SettingError, match="HEADWATER_STORE_FAST_URL"):
        Redis("fast").engine("")
    with pytest.raises(SettingError, match="not a URL"):
        Redis("fast").engine("http://x")


async def test_sql_over_a_view_elsewhere_is_refused(ground):
    async with ground.app() as app:
        with pytest.raises(DefinitionError, match="another store"):
            await app.query("SELECT 1", views=[orders(app)])


def test_settings_name_stores():
    settings = Settings.from_environment({"HEADWATER_STORE_FAST_URL": "redis://x"})
    assert settings.stores == {"fast": "redis://x"}


def test_a_missing_extra_is_named():
    code = (
        "import sys; sys.modules['redis'] = None\n"
        "from headwater.stores.redis import Redis\n"
        "from headwater.errors import ExtraMissing\n"
        "try: Redis('fast').engine('redis://x')\n"
        "except ExtraMissing as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'headwater[redis]'" in said.stdout
