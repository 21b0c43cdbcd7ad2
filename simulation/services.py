"""``python -m simulation.services``: four services place orders while all that they stand on is killed; then the books are compared.

The services are those of ``examples.orders``. What is killed, stopped, restarted or told again, and when, is drawn from the
seed. Exit code 1 where stock, money, orders or mails do not add up.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from rich.console import Console

from examples.orders.place import SERVICES
from examples.orders.services import Services, free_port
from examples.telling import Story
from headwater.log.statements import Statements
from headwater.log.tasks import ended as ended_tasks
from headwater.operations.embedded import EmbeddedPostgres
from headwater.operations.migrate import create_login, migrate

SQL = Statements("simulation")
LOGIN = "headwater_login"
MEMORY = Path("/dev/shm")
AT_ONCE = 6


class Node:
    """One server of NATS; of several, each knows the others."""

    def __init__(self, number: int, folder: Path, routes: list[int]) -> None:
        self.port = free_port()
        self._command = [
            str(Path(sys.executable).with_name("nats-server")), "--name", f"n{number}",
            "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(folder / f"nats{number}"),
        ]  # fmt: skip
        if len(routes) > 1:
            all_routes = ",".join(f"nats://127.0.0.1:{port}" for port in routes)
            self._command += ["--cluster_name", "c", "--cluster", f"nats://127.0.0.1:{routes[number]}", "--routes", all_routes]  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, where it does not run."""
        if self.process is None:
            quiet = subprocess.DEVNULL
            self.process = subprocess.Popen(self._command, stdout=quiet, stderr=quiet)
            for _ in range(1_000):
                with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                    return
                time.sleep(0.02)

    def kill(self) -> None:
        """Ends it by SIGKILL."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()


class Installation:
    """Postgres servers, NATS nodes, services."""

    def __init__(self, folder: Path, postgres: int, nodes: int) -> None:
        self.folder = folder
        self.postgres = [
            EmbeddedPostgres(folder / f"postgres{n}", settings={"shared_buffers": "64MB"})
            for n in range(postgres)
        ]
        routes = [free_port() for _ in range(nodes)]
        self.nodes = [Node(n, folder, routes) for n in range(nodes)]
        self.admin: dict[str, str] = {}
        self.services = Services(folder)

    def start(self) -> None:
        """Starts all; what the services' settings are made of is in the environment then."""
        for server in self.postgres:
            server.start()
        for server in self.postgres:
            mine = [s for n, s in enumerate(SERVICES) if self.postgres[n % len(self.postgres)] is server]  # fmt: skip
            self._databases(server, mine)
        for node in self.nodes:
            node.start()
        os.environ["HEADWATER_STORE_BUS_URL"] = ",".join(f"nats://127.0.0.1:{n.port}" for n in self.nodes)  # fmt: skip
        os.environ["HEADWATER_HOME"] = str(self.folder)
        os.environ["ORDERS_FAIL"] = "bank"
        os.environ["ORDERS_REPLICAS"] = str(len(self.nodes))
        for name in SERVICES:
            self.services.start(name)

    def _databases(self, server: EmbeddedPostgres, services: Iterable[str]) -> None:
        with psycopg.connect(server.url(), autocommit=True) as admin:
            admin.execute(SQL["services.template"])
        asyncio.run(migrate(server.url("template_log")))
        asyncio.run(create_login(server.url("template_log"), LOGIN, database_owner=True))
        for name in services:
            with psycopg.connect(server.url(), autocommit=True) as admin:
                admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template_log").format(sql.Identifier(name)))  # fmt: skip
            self.admin[name] = server.url(name)
            with psycopg.connect(self.admin[name], autocommit=True) as admin:
                admin.execute(SQL["services.another_log"])
                admin.execute(SQL["services.own"])
                admin.execute("CHECKPOINT")
            os.environ[f"{name.upper()}_DATABASE_URL"] = server.url(name, user=LOGIN)

    def stop(self) -> None:
        """Ends all."""
        self.services.stop()
        for node in self.nodes:
            node.kill()
        for server in self.postgres:
            server.stop()


class Faults:
    """What is done to an installation, drawn from a seed, one after the other."""

    def __init__(self, installation: Installation, options: argparse.Namespace, seed: str) -> None:
        self._at = installation
        self._random = Random(seed)
        self._pause: float = options.pause_seconds
        self._stopped: float = options.stopped_seconds
        self.done: Counter[str] = Counter()
        self._kinds: dict[str, tuple[int, Callable[[], Awaitable[None]]]] = {
            "a service killed": (5, self._kill_service),
            "a service stopped for a while": (2, self._stop_service),
            "a NATS node killed": (3, self._kill_node),
            "a NATS node stopped for a while": (2, self._stop_node),
            "a Postgres server killed": (2, self._kill_postgres),
            "messages told again": (3, self._tell_again),
        }

    async def go_on(self, *, least: int, placing: asyncio.Future[Any]) -> None:
        """One after the other, every kind first, until all is placed and there were so many."""
        kinds = list(self._kinds)
        self._random.shuffle(kinds)
        weights = [weight for weight, _ in self._kinds.values()]
        while not placing.done() or self.done.total() < least:
            (drawn,) = self._random.choices(list(self._kinds), weights)
            kind = kinds.pop() if kinds else drawn
            await asyncio.sleep(self._random.uniform(0.3, 1.0) * self._pause)
            await self._kinds[kind][1]()
            self.done[kind] += 1

    async def _while(self, most_seconds: float) -> None:
        await asyncio.sleep(self._random.uniform(0.05, most_seconds))

    async def _kill_service(self) -> None:
        name = self._random.choice(SERVICES)
        await asyncio.to_thread(self._at.services.kill, name)
        await self._while(1.0)
        self._at.services.start(name)

    async def _stop_service(self) -> None:
        """Long enough, at times, that its leases run out and it goes on all the same."""
        pid = self._at.services.pid(self._random.choice(SERVICES))
        await self._paused(pid, self._stopped)

    async def _kill_node(self) -> None:
        node = self._random.choice(self._at.nodes)
        await asyncio.to_thread(node.kill)
        await self._while(2.0)
        await asyncio.to_thread(node.start)

    async def _stop_node(self) -> None:
        process = self._random.choice(self._at.nodes).process
        if process is not None:
            await self._paused(process.pid, 2.0)

    async def _paused(self, pid: int, most_seconds: float) -> None:
        os.kill(pid, signal.SIGSTOP)
        try:
            await self._while(most_seconds)
        finally:
            os.kill(pid, signal.SIGCONT)

    async def _kill_postgres(self) -> None:
        server = self._random.choice(self._at.postgres)
        await asyncio.to_thread(server.kill)
        await self._while(1.0)
        await asyncio.to_thread(server.start)

    async def _tell_again(self) -> None:
        """An inbox begins its stream anew, as after a stream was made anew: all comes twice."""
        url, back = self._at.admin[self._random.choice(SERVICES)], self._random.randrange(1, 500)
        with suppress(psycopg.OperationalError):
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as admin:
                await admin.execute(_again(), {"back": back})


def _again() -> LiteralString:
    return SQL["services.tell_again"]


async def _place(installation: Installation, count: int, each_second: float) -> None:
    """Places all orders at a steady rate, every fifth twice; each until it is answered."""
    from examples.orders.story import drawn, sent

    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with room:
            for _ in range(1 + (number % 5 == 0)):
                await sent(installation.services, drawn(number))

    began, placing = time.monotonic(), []
    for number in range(count):
        placing.append(asyncio.create_task(one(number)))
        await asyncio.sleep(max(began + number / each_second - time.monotonic(), 0))
    await asyncio.gather(*placing)


async def _supervise(services: Services) -> None:
    """Starts again what ends by itself, as a service's supervisor does: none starts while its Postgres is away."""
    while True:
        for name in services.ended():
            print(f"{name} ended by itself and is started again", flush=True)
            services.start(name)
        await asyncio.sleep(0.5)


async def _run(installation: Installation, options: argparse.Namespace, seed: str) -> bool:
    from examples.orders import inventory, payment
    from examples.orders.services import wait_for
    from examples.orders.story import APPS, CUSTOMERS, ITEMS, books, drawn, ended

    story = Story(Console(highlight=False, soft_wrap=True))
    count: int = options.orders
    placed = [drawn(number) for number in range(count)]
    money = sum(order["amount"] for order in placed) * 2 // 3 // CUSTOMERS
    goods = sum(order["quantity"] for order in placed) * 2 // 3 // ITEMS
    faults = Faults(installation, options, seed)
    async with AsyncExitStack() as opened:
        for app in APPS:
            await opened.enter_async_context(app)
            await app.deploy()
        for n in range(ITEMS):
            await inventory.app.append(inventory.Delivered(f"item{n}", goods))
        for n in range(CUSTOMERS):
            await payment.app.append(payment.Deposited(f"customer{n}", money))
        await asyncio.to_thread(wait_for, installation.services.port)
        began = time.monotonic()
        supervising = asyncio.create_task(_supervise(installation.services))
        opened.push_async_callback(ended_tasks, [supervising])
        placing = asyncio.create_task(_place(installation, count, options.rate))
        await faults.go_on(least=options.faults, placing=placing)
        await placing
        story.say(
            f"all placed and {faults.done.total()} faults after {time.monotonic() - began:.0f} s"
        )
        for kind, times in faults.done.most_common():
            story.say(f"  {times:>4}  {kind}")
        try:
            await ended(count, patience_seconds=options.patience_seconds)
        except TimeoutError:
            await _tell_what_has_not_ended()
            raise
        story.say(f"all ended after {time.monotonic() - began:.0f} s")
        await books(story, placed, goods * ITEMS, money * CUSTOMERS)
        for app in APPS:
            await app.database("headwater_relay").open()
            for name in app.readable:
                verified = await app.stored(name).verify()
                story.check(f"{app.name}.{name} and the fold of the log", verified.summary, "equal")
    return story.passed


async def _tell_what_has_not_ended() -> None:
    """Prints the first orders that have not ended, with their sagas and streams, and how every view stands."""
    from examples.orders import order
    from examples.orders.story import APPS
    from headwater.operations.health import view_rows

    left = [
        name for name, one in await order.orders.list(limit=1_000_000) if one.status == "placed"
    ]
    print(f"{len(left)} orders have not ended: {' '.join(left[:20])}")
    for name in left[:3]:
        for event in await order.app.log.stream(f"order/{name}", tenant="main"):
            print(f"  {event.position}: {event.event}")
        history = await order.app.sagas_now.show(f"fulfil/{name}")
        print(history.state, *history.records, sep="\n  ")
    for app in APPS:
        for row in await view_rows(app.database("headwater_operator"), {}):
            print(f"{app.name}: {row}")
        for waiting in await app.inboxes_now.parked():
            print(f"{app.name} parked: {waiting}")


@asynccontextmanager
async def _installed(options: argparse.Namespace) -> AsyncIterator[Installation]:
    where = MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 8 * 2**30 else None
    folder = Path(tempfile.mkdtemp(prefix="headwater-services-", dir=where))
    folder.chmod(0o711)
    installation = Installation(folder, options.postgres, options.nats)
    try:
        await asyncio.to_thread(installation.start)
        yield installation
    finally:
        await asyncio.to_thread(installation.stop)
        shutil.rmtree(folder, ignore_errors=True)


async def _main(options: argparse.Namespace) -> int:
    seed = options.seed or str(SystemRandom().randrange(10**6))
    print(f"seed {seed}", flush=True)
    async with _installed(options) as installation:
        held = False
        try:
            held = await _run(installation, options, seed)
        finally:
            if not held:
                for log in sorted(installation.folder.glob("*.log")):
                    print(f"--- {log.name}\n{log.read_text()[-3_000:]}", flush=True)
    print("All books agree." if held else "The books do NOT agree.", flush=True)
    return int(not held)


def arguments() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m simulation.services", description=__doc__)
    parser.add_argument("--seed", help="what the faults are drawn from; default a random one")
    parser.add_argument("--orders", type=int, default=5_000)
    parser.add_argument("--rate", type=float, default=40.0, help="orders placed in a second")
    parser.add_argument("--faults", type=int, default=30, help="at least so many")
    parser.add_argument("--pause-seconds", type=float, default=3.0, help="at most, between two")
    parser.add_argument("--stopped-seconds", type=float, default=7.0, help="at most, of a service; leases last 5")  # fmt: skip
    parser.add_argument("--nats", type=int, choices=(1, 3), default=3, help="nodes")
    parser.add_argument("--postgres", type=int, default=2, help="servers, for four databases")
    parser.add_argument("--patience-seconds", type=float, default=900.0, help="for the end")
    return parser


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(arguments().parse_args())))
