"""One process that writes to the log in one way, and says line by line what it was told.

A line after a commit names the marks that are written, or that surely are not.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from random import Random
from typing import Any

import httpx
import msgspec
import psycopg

from headwater import Rejection
from headwater.errors import AppendRefused, HeadwaterError, SubjectForgotten, VersionConflict
from headwater.log.database import connect
from simulation import doubles
from simulation.process import let_clock_jump
from simulation.shop import (
    PERSONS,
    SQL,
    TENANTS,
    Claim,
    Confirmed,
    Ordered,
    Shop,
    Signed,
    make,
    secret,
)

GIVE_UP_SECONDS = 15.0
"""How long an append whose outcome is unknown is sent again under its key."""
LINES = 8
LINE_EVENTS = 60
"""After so many marks a process moves to other lines, so that early ones fall quiet."""
AT_ONCE = 4
REST_SECONDS = 0.03
READ_SHARE = AGAIN_SHARE = 0.2
FAIL_SHARE = SILENT_SHARE = 0.15
Read = tuple[str, str, str, int]
"""Tenant, line, token, and the version that its stream had."""
Write = Callable[[str, list[Any], str], Awaitable[tuple[str, int]]]
LOST = (psycopg.Error, HeadwaterError, OSError, httpx.HTTPError)


def say(kind: str, marks: list[str] | str) -> None:
    """Tells the simulation."""
    print(json.dumps([kind, marks]), flush=True)


def complain(error: Exception) -> None:
    """Leaves in this process's log what it met."""
    text = str(error).partition("\n")[0]
    print(f"{type(error).__name__}: {text}", file=sys.stderr, flush=True)


class Load:
    """What all ways have in common. ``write`` appends once and raises where the outcome is unknown."""

    def __init__(self, name: str, seed: str, shop: Shop) -> None:
        self.name, self.shop, self.app = name, shop, shop.app
        self.random = Random(f"{seed} {name}")
        self.more = {"by": name} if hasattr(shop.noted, "by") else {}
        self.stopping = False
        self._marked = 0

    async def run(self) -> None:
        """Several at once write until told to stop."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop)
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._write_on(group))

    async def _write_on(self, group: asyncio.TaskGroup) -> None:
        while not self.stopping:
            try:
                read = await self.deed(self.random.choice(TENANTS))
            except LOST as error:
                complain(error)
                await asyncio.sleep(0.1)
            else:
                if read is not None and self.random.random() < READ_SHARE:
                    group.create_task(self._read(*read))
            await asyncio.sleep(self.random.expovariate(1 / REST_SECONDS))

    def _stop(self) -> None:
        self.stopping = True

    async def deed(self, tenant: str) -> Read | None:
        """One thing that an application does; what may be read by the token that it gave."""
        raise NotImplementedError

    def events(self, count: int, *, beside: bool = False) -> list[Any]:
        """New events of one line."""
        era = self._marked // LINE_EVENTS
        line = f"{era}-{self.random.randrange(LINES)}"
        return [
            self.shop.noted(line, self.mark(), self.random.randrange(100), beside, **self.more)
            for _ in range(count)
        ]

    def mark(self) -> str:
        """One that no event has had."""
        self._marked += 1
        return f"{self.name}-{self._marked}"

    async def sign(self, tenant: str) -> None:
        """A person says something."""
        who, mark = self.random.choice(PERSONS), self.mark()
        with suppress(SubjectForgotten):
            await self.once(tenant, [Signed(who, mark, secret(who, mark))])

    async def order(self, tenant: str) -> None:
        """An order, and mostly its confirmation, at times before it."""
        mark = self.mark()
        ordered = Ordered(mark, mark, self.random.random() < FAIL_SHARE)
        confirmed = Confirmed(mark, f"{mark}-confirmed")
        if self.random.random() < SILENT_SHARE:
            await self.once(tenant, [ordered])
            return
        first, second = self.random.sample((ordered, confirmed), 2)
        await self.once(tenant, [first])
        await asyncio.sleep(self.random.expovariate(2))
        await self.once(tenant, [second])

    async def once(self, tenant: str, events: list[Any], write: Write | None = None) -> Read | None:
        """Appends under a key, again while the outcome is unknown, and at times once more for nothing."""
        marks = [event.mark for event in events]
        key = marks[0]
        write = write or self.write
        loop = asyncio.get_running_loop()
        until = loop.time() + GIVE_UP_SECONDS
        while True:
            try:
                token, version = await write(tenant, events, key)
                break
            except (AppendRefused, RejectedError):
                say("undone", marks)
                return None
            except SubjectForgotten:
                return None  # an attempt before this one may have been in time
            except LOST as error:
                complain(error)
                if loop.time() > until:
                    return None
                await asyncio.sleep(0.05)
        say("written", marks)
        if self.random.random() < AGAIN_SHARE:
            await write(tenant, events, key)
        return (tenant, events[0].line, token, version) if hasattr(events[0], "line") else None

    async def write(self, tenant: str, events: list[Any], key: str) -> tuple[str, int]:
        """Appends under a key: the token, and the version of the stream."""
        raise NotImplementedError

    async def _read(self, tenant: str, line: str, token: str, version: int) -> None:
        """Reads by the token: what is answered is not from before it."""
        try:
            await self._read_all(tenant, line, token, version)
        except LOST as error:
            complain(error)  # it was not answered, which is no wrong answer

    async def _read_all(self, tenant: str, line: str, token: str, version: int) -> None:
        for view in (self.shop.folded, self.shop.fast, self.shop.summed):
            found: Any = await view.get(line, tenant=tenant, at_least=token, timeout_seconds=3)
            if found is None or found.events < version:
                say(
                    "stale",
                    f"{view.name} of {tenant} {line} at least {token}: {found}, not {version} events",
                )
        say("read", [])


class ByPython(Load):
    """Shared commits, transactions with jobs, conflicts, and what is rolled back."""

    async def deed(self, tenant: str) -> Read | None:
        """See Load."""
        (kind,) = self.random.choices(
            ("once", "beside", "claim", "conflict", "undone", "sign", "order"),
            (10, 4, 3, 1, 1, 3, 2),
        )
        if kind == "sign":
            await self.sign(tenant)
            return None
        if kind == "order":
            await self.order(tenant)
            return None
        if kind == "once":
            return await self.once(tenant, self.events(self.random.choice((1, 1, 2, 12))))
        if kind == "claim":
            return await self.once(tenant, self.events(1), self._claim)
        events = self.events(2, beside=kind == "beside")
        marks = [event.mark for event in events]
        try:
            async with self.app.transaction(tenant) as tx:
                await tx.append(*events, expect=999_999 if kind == "conflict" else None)
                if kind == "beside":
                    effect = self.shop.effect
                    await tx.enqueue(*(effect("beside", mark) for mark in marks))
                if kind == "undone":
                    raise UndoneError  # noqa: TRY301
        except (VersionConflict, UndoneError):
            say("undone", marks)
        else:
            say("written", marks)
        return None

    async def write(self, tenant: str, events: list[Any], key: str) -> tuple[str, int]:
        """See Load."""
        written = await self.app.append(*events, tenant=tenant, idempotency_key=key)
        return str(written.token), written.version

    async def _claim(self, tenant: str, events: list[Any], key: str) -> tuple[str, int]:
        """A command: it decides on the line, whoever else appends to it meanwhile."""
        (event,) = events
        command = Claim(line=event.line, mark=event.mark, amount=event.amount)
        answer = await self.app.do(command, tenant=tenant, idempotency_key=key)
        if isinstance(answer, Rejection):
            raise RejectedError
        return str(answer.token), answer.versions[-1]


class BySql(Load):
    """Plain SQL on connections of its own: also long transactions, and some rolled back."""

    def __init__(self, name: str, seed: str, shop: Shop) -> None:
        super().__init__(name, seed, shop)
        self._free: list[psycopg.AsyncConnection[Any]] = []

    async def deed(self, tenant: str) -> Read | None:
        """See Load."""
        (kind,) = self.random.choices(("once", "long", "undone", "goods"), (20, 1, 2, 12))
        if kind == "goods":
            await self._goods(tenant)
            return None
        if kind == "once":
            return await self.once(tenant, self.events(1))
        events = self.events(self.random.randint(1, 4))
        marks = [event.mark for event in events]
        async with self._transaction(tenant, undone=kind == "undone") as connection:
            for event in events:
                await self._append(connection, event, None)
                seconds = self.random.uniform(0, 0.3 if kind == "long" else 0.02)
                await connection.execute(SQL["simulation.sleep"], {"seconds": seconds})
        say("undone" if kind == "undone" else "written", marks)
        return None

    async def write(self, tenant: str, events: list[Any], key: str) -> tuple[str, int]:
        """See Load."""
        async with self._transaction(tenant) as connection:
            return await self._append(connection, events[0], key)

    async def _goods(self, tenant: str) -> None:
        """The application's own table, of which the log may know nothing yet; some of it is rolled back."""
        kinds = ("change_price", "change_note", "change_tenant", "change_key", "add_goods", "remove_goods")  # fmt: skip
        async with self._transaction(tenant, undone=self.random.random() < 0.2) as connection:
            for kind in self.random.choices(kinds, (6, 3, 1, 1, 3, 2), k=self.random.randint(1, 3)):
                parameters = {
                    "id": self.random.randint(1, 800),
                    "more": self.random.choice((0, 0, 0, 20)),
                    "tenant": self.random.choice(TENANTS),
                }
                await connection.execute(SQL[f"simulation.{kind}"], parameters)

    async def _append(
        self, connection: psycopg.AsyncConnection[Any], event: Any, key: str | None
    ) -> tuple[str, int]:
        parameters = {
            "line": event.line,
            "mark": event.mark,
            "amount": event.amount,
            "expect": None,
            "key": key,
        }
        row = await (await connection.execute(SQL["simulation.append"], parameters)).fetchone()
        assert row is not None
        return row[2], row[1]

    @asynccontextmanager
    async def _transaction(
        self, tenant: str, *, undone: bool = False
    ) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        if self._free:
            connection = self._free.pop()
        else:
            url = self.app.database().url
            connection = await connect(url, "headwater_app", name=f"simulation {self.name}")
        try:
            async with connection.transaction(force_rollback=undone):
                await connection.execute(SQL["simulation.set_tenant"], {"tenant": tenant})
                yield connection
        except psycopg.Error:
            await connection.close()
            raise
        self._free.append(connection)


class ByHttp(Load):
    """NDJSON under an Idempotency-Key, to any relay."""

    def __init__(self, name: str, seed: str, shop: Shop) -> None:
        super().__init__(name, seed, shop)
        self.client = httpx.AsyncClient(timeout=5)
        self.ports = os.environ["SIMULATION_PORTS"].split()
        self.tokens = dict(zip(TENANTS, os.environ["SIMULATION_TOKENS"].split(), strict=True))

    async def deed(self, tenant: str) -> Read | None:
        """See Load."""
        if self.random.random() < 0.2:
            await self.sign(tenant)
            return None
        return await self.once(tenant, self.events(self.random.choice((1, 2, 5))))

    async def write(self, tenant: str, events: list[Any], key: str) -> tuple[str, int]:
        """See Load."""
        body = msgspec.json.Encoder().encode_lines(
            [
                {
                    "stream": f"person/{e.who}" if isinstance(e, Signed) else f"line/{e.line}",
                    "type": "shop.signed" if isinstance(e, Signed) else "shop.noted",
                    "schema_version": 2 if hasattr(e, "by") else 1,
                    "data": msgspec.to_builtins(e),
                }
                for e in events
            ]
        )
        headers = {
            "Authorization": f"Bearer {self.tokens[tenant]}",
            "Content-Type": "application/x-ndjson",
            "Idempotency-Key": key,
        }
        port = self.random.choice(self.ports)
        answer = await self.client.post(
            f"http://127.0.0.1:{port}/v1/events", content=body, headers=headers
        )
        if answer.status_code not in {200, 201}:
            print(f"{answer.status_code}: {answer.text[:300]}", file=sys.stderr)
            if answer.status_code == 410:
                raise SubjectForgotten(answer.text)
            if answer.status_code in {409, 422}:
                raise AppendRefused(answer.text)
            answer.raise_for_status()
        receipt = answer.json()
        return receipt["token"], receipt["events"][-1]["version"]


class RejectedError(Exception):
    """A command was answered with no."""


class UndoneError(Exception):
    """The deed wants its transaction rolled back."""


WAYS = {"load-python": ByPython, "load-sql": BySql, "load-http": ByHttp}


async def main(way: str, name: str, seed: str) -> None:
    """Writes until SIGTERM."""
    doubles.install(os.environ.get("SIMULATION_BROKEN", ""))
    let_clock_jump()
    shop = make(newer=os.environ["HEADWATER_APP"].endswith("newer"))
    async with AsyncExitStack() as stack:
        while True:
            try:
                await stack.enter_async_context(shop.app)
                break
            except LOST as error:
                complain(error)
                await asyncio.sleep(0.1)
        say("ready", way)
        await WAYS[way](name, seed, shop).run()


def run(arguments: Sequence[str]) -> None:
    """Goes on as a load process: way, name and seed."""
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    asyncio.run(main(*arguments))
