"""A team's application as it is, a table of it captured while it runs, one SELECT, and kill -9 of everything."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.postgres

ROOT = Path(__file__).parents[2]
SECONDS = 90
CLIENTS = 4
VIEW = (
    "SELECT customer_id, count(*) AS orders, sum(total) AS total FROM orders GROUP BY customer_id"
)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Shop:
    """The application in a process of its own, its clients, and what they were told."""

    def __init__(self, url):
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self._command = [sys.executable, "-m", "uvicorn", "tests.support.existing.application:api", "--port", str(port), "--log-level", "critical"]  # fmt: skip
        self._environment = {**os.environ, "SHOP_DATABASE_URL": url.replace("postgresql://", "postgresql+psycopg://")}  # fmt: skip
        self.orders = {}
        self.doubtful = set()
        self.acknowledged = 0
        self.refusals = []
        self._done = threading.Event()
        self._threads = []

    def start(self):
        self.process = subprocess.Popen(self._command, cwd=ROOT, env=self._environment)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def open_doors(self):
        self._threads = [threading.Thread(target=self._client, args=(n,)) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def close_doors(self):
        self._done.set()
        for thread in self._threads:
            thread.join()

    def until_acknowledged(self, more):
        """Returns once clients have had so many more answers."""
        wanted, deadline = self.acknowledged + more, time.monotonic() + SECONDS
        while self.acknowledged < wanted:
            assert time.monotonic() < deadline, (self.acknowledged, self.refusals[-3:])
            self._done.wait(0.005)

    def _client(self, number):
        """Places, changes and cancels orders of its own; keeps what the application acknowledged."""
        chosen, mine = random.Random(number), []
        with httpx.Client(base_url=self.url, timeout=SECONDS) as client:
            while not self._done.is_set():
                order = chosen.choice(mine) if mine and chosen.random() < 0.6 else None
                total = Decimal(chosen.randrange(1, 10_000)) / 100
                try:
                    if order is None:
                        body = {"customer": f"c{number}", "customer_id": number * 3 + chosen.randrange(3), "total": str(total)}  # fmt: skip
                        answer = client.post("/orders", json=body)
                    elif chosen.random() < 0.2:
                        total = None
                        answer = client.delete(f"/orders/{order}")
                    else:
                        answer = client.patch(f"/orders/{order}", json={"total": str(total)})
                    answer.raise_for_status()
                except httpx.HTTPError as error:
                    self.refusals.append(repr(error))
                    if order is not None:
                        self.doubtful.add(order)
                        mine.remove(order)
                    self._done.wait(0.02)
                    continue
                if order is None:
                    mine.append(order := answer.json())
                elif total is None:
                    mine.remove(order)
                self.orders[order] = total
                self.acknowledged += 1


class Headwater:
    """The command line in a team's hands: a folder with one SELECT, and a relay that may be killed."""

    def __init__(self, url, folder):
        self.folder = folder
        (folder / "views").mkdir()
        (folder / "views" / "sales.sql").write_text(VIEW)
        self._environment = {"HEADWATER_DATABASE_URL": url, "PATH": "/usr/bin:/bin", "COLUMNS": "200"}  # fmt: skip

    def run(self, *arguments):
        done = subprocess.run(
            [sys.executable, "-m", "headwater", *arguments], cwd=self.folder, env=self._environment,
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start_relay(self):
        self.relay = subprocess.Popen(
            [sys.executable, "-m", "headwater", "--app", "views", "up", "--http", "127.0.0.1:0"],
            cwd=self.folder, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        said = "".join(self.relay.stdout.readline() for _ in range(3))
        self.url = re.search(r"http://127\.0\.0\.1:\d+", said)[0]
        self.headers = {"Authorization": "Bearer " + re.search(r"hw_\w{12}_[\w-]{43}", said)[0]}

    def kill_relay(self):
        self.relay.send_signal(signal.SIGKILL)
        self.relay.wait()
        self.relay.stdout.close()

    def row(self, key, token):
        asked = {"at_least": token, "timeout_seconds": 30}
        for _ in range(
            SECONDS // 30
        ):  # a killed relay's lease runs for 5 s, and a machine may be slow
            answer = httpx.get(f"{self.url}/v1/views/sales/{key}", params=asked, headers=self.headers, timeout=SECONDS)  # fmt: skip
            if answer.status_code != 504:
                break
        return answer.json() if answer.status_code == 200 else answer.text


@pytest.fixture
def shop(own_server):
    with own_server.admin() as admin:
        admin.execute("CREATE ROLE shop LOGIN")
        admin.execute("GRANT CREATE ON SCHEMA public TO shop")
        admin.execute(f"GRANT CREATE ON DATABASE {own_server.name} TO shop")
        admin.execute("GRANT shop TO headwater_login")
    shop = Shop(own_server.server.postgres.url(own_server.name, user="shop"))
    shop.start()
    try:
        yield shop
    finally:
        shop.close_doors()
        shop.kill()


@pytest.mark.parametrize("way", ["triggers", "replication"])
def test_an_application_as_it_is_keeps_a_view_through_kills(own_server, shop, tmp_path, way):
    headwater = Headwater(own_server.url, tmp_path)
    shop.open_doors()
    shop.until_acknowledged(50)
    headwater.run("capture", "orders", "--tenant", "main", "--by", way)
    headwater.start_relay()
    try:
        shop.until_acknowledged(50)
        shop.kill()
        shop.start()
        shop.until_acknowledged(50)
        headwater.kill_relay()
        shop.until_acknowledged(50)
        headwater.start_relay()
        own_server.server.postgres.kill()
        own_server.server.postgres.start()
        shop.until_acknowledged(100)
        if way == "triggers":
            a_read_at_the_token_is_never_older(own_server, shop, headwater)
        shop.close_doors()
        until_told(own_server, way)
        the_promises_hold(own_server, shop)
        assert "equal" in headwater.run("--app", "views", "verify", "sales")
    finally:
        headwater.kill_relay()
    headwater.run("release", "orders")


def token_of_now(admin):
    return admin.execute(
        "SELECT log_id || '.' || epoch || '.' || last_value FROM headwater.log, headwater.position_seq"
    ).fetchone()[0]


def a_read_at_the_token_is_never_older(database, shop, headwater):
    """What committed before the token was taken is in a read at least at it, while writes go on."""
    with database.admin() as admin:
        for key in range(CLIENTS * 3):
            placed = {order for order, in admin.execute("SELECT id FROM orders WHERE customer_id = %s", [key])}  # fmt: skip
            token = token_of_now(admin)
            row = headwater.row(key, token)
            deleted = admin.execute(
                "SELECT count(*) FROM headwater.events WHERE type = 'orders.deleted' AND (data ->> 'id')::int = ANY (%s)", [list(placed)]
            ).fetchone()[0]  # fmt: skip
            assert isinstance(row, dict), row
            assert row["orders"] >= len(placed) - deleted


def until_told(database, way):
    """Returns once the view has applied the log, and the log tells all that is in the table."""
    deadline = time.monotonic() + SECONDS
    with database.admin() as admin:
        lsn = admin.execute("SELECT pg_current_wal_insert_lsn()").fetchone()[0]
        while way == "replication" and not admin.execute("SELECT headwater.want_replication(%s) >= %s", [lsn, lsn]).fetchone()[0]:  # fmt: skip
            assert time.monotonic() < deadline
        (last,) = admin.execute("SELECT max(position) FROM headwater.events").fetchone()
        while admin.execute("SELECT min(position) FROM headwater.checkpoints").fetchone()[0] < last:
            assert time.monotonic() < deadline


def the_promises_hold(database, shop):
    with database.admin() as admin:
        table = {
            i: (c, t) for i, c, t in admin.execute("SELECT id, customer_id, total FROM orders")
        }
        view = admin.execute("SELECT customer_id, orders, total FROM headwater_views.sales ORDER BY 1").fetchall()  # fmt: skip
        selected = admin.execute(VIEW + " ORDER BY 1").fetchall()
        events = admin.execute(
            "SELECT stream, version, substring(type from '[^.]+$'), (data ->> 'id')::int, (data ->> 'customer_id')::int, (data ->> 'total')::numeric "
            "FROM headwater.events ORDER BY position"
        ).fetchall()
    assert len(shop.orders) > 100
    for order, total in shop.orders.items():
        if order not in shop.doubtful:
            assert (table[order][1] if order in table else None) == total, order
    log, versions, inserted = {}, {}, {}
    for stream, version, verb, order, customer, total in events:
        assert version == versions.get(stream, 0) + 1
        versions[stream] = version
        inserted[order] = inserted.get(order, 0) + (verb == "inserted")
        log[order] = (customer, total)
        if verb == "deleted":
            del log[order]
    assert log == table
    assert set(inserted.values()) == {1}
    assert view == selected
