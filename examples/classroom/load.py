"""Students at work, made up: ``python -m examples.classroom.load`` in a process of its own.

Standard input says whom to play and for how long, as JSON; standard output is the report, as JSON. Each student opens a
notebook, runs its cells in order, thinks, errs, tries again or gives up, and leaves. Each teacher has the page open.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from itertools import cycle
from typing import Any

import msgspec
from msgspec import Struct

from examples.classroom.domain import NOTEBOOKS

ERRORS = ("NameError", "TypeError", "ValueError", "IndexError", "SyntaxError")
FAILS, GIVES_UP, SENT_TWICE = 0.2, 0.15, 0.02
CATCH_UP_SECONDS = 10.0
PAGE_SECONDS = 0.4
"""How often a page asks at most, whatever the messages; `web/page.js` does the same."""


class Group(Struct):
    """A class: the token that its notebooks append by, its teacher's card, its students."""

    name: str
    token: str
    card: str
    students: list[str]


class Plan(Struct):
    """What to play. ``think_seconds`` is the mean between two runs of a student's; true ones think twenty times longer."""

    host: str
    port: int
    classes: list[Group]
    seconds: float
    think_seconds: float
    seed: int = 1


class Report(Struct):
    """What was sent and measured. Times are in milliseconds: p50, p99, the longest."""

    events: int
    executions: int
    errors: int
    sent_twice: int
    seconds: float
    api: tuple[float, float, float]
    page: tuple[float, float, float]
    page_reads: int


class Connection:
    """As much of HTTP/1.1 as a load needs: one request at a time on a connection that stays open."""

    def __init__(self, plan: Plan) -> None:
        self._where = plan.host, plan.port
        self.reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def head(self, method: str, path: str, token: str, body: bytes = b"", **more: str) -> int:
        """Sends a request and reads the answer's head; its status. ``length`` is then how long its body is."""
        if self.reader is None or self._writer is None:
            self.reader, self._writer = await asyncio.open_connection(*self._where)
        headers = {
            "Host": self._where[0], "Authorization": f"Bearer {token}",
            "Content-Length": str(len(body)), **{k.replace("_", "-"): v for k, v in more.items()},
        }  # fmt: skip
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._writer.write(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        _, found, length = head.partition(b"content-length:")
        self.length = int(length.split(b"\r\n", 1)[0]) if found else 0
        return int(head.split(b" ", 2)[1])

    async def ask(self, method: str, path: str, token: str, body: bytes = b"", **more: str) -> Any:
        """The answer's JSON. Raises RuntimeError for a refusal.

        Where the server has closed the connection it is sent again: under its idempotency key it counts once.
        """
        try:
            status = await self.head(method, path, token, body, **more)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.close()
            status = await self.head(method, path, token, body, **more)
        assert self.reader is not None
        text = await self.reader.readexactly(self.length)
        if status >= 400:
            raise RuntimeError(f"{method} {path}: {status} {text.decode()}")
        return msgspec.json.decode(text)

    def close(self) -> None:
        """Ends the connection."""
        if self._writer is not None:
            self._writer.close()
        self.reader = self._writer = None


class Load:
    """Everybody's measurements."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.ends = time.monotonic() + plan.seconds
        self.api: list[float] = []
        self.page: list[float] = []
        self.executions = self.errors = self.sent_twice = self.page_reads = 0
        self.sent: dict[tuple[str, str], list[float]] = {}
        """When each student's runs were sent, by class and student, for the page to catch up with."""

    async def run(self) -> Report:
        """Plays the plan to its end."""
        began = time.monotonic()
        teachers = [asyncio.create_task(Teacher(self, each).follow()) for each in self.plan.classes]
        students = [
            Student(self, group, name, random.Random(f"{self.plan.seed} {group.name} {name}"))
            for group in self.plan.classes
            for name in group.students
        ]
        await asyncio.gather(*(each.learn() for each in students))
        seconds = time.monotonic() - began
        async with asyncio.timeout(CATCH_UP_SECONDS):
            await asyncio.gather(*teachers)
        return Report(
            len(self.api), self.executions, self.errors, self.sent_twice, seconds,
            times(self.api), times(self.page), self.page_reads,
        )  # fmt: skip


class Student:
    """One student at a notebook."""

    def __init__(self, load: Load, group: Group, name: str, chance: random.Random) -> None:
        self._load, self._group, self._name, self._chance = load, group, name, chance
        self._at = Connection(load.plan)
        self._sent = load.sent.setdefault((group.name, name), [])
        self._number = 0

    async def learn(self) -> None:
        """One notebook after another, until time is up. Students come in one by one, like into a room."""
        await asyncio.sleep(self._chance.uniform(0, min(3.0, self._load.plan.seconds / 4)))
        for number, (notebook, cells) in enumerate(cycle(NOTEBOOKS.items())):
            if time.monotonic() >= self._load.ends:
                break
            session = f"{self._group.name}.{self._name}.{number}"
            stays = {
                "session": session, "attempt": f"{self._name}.{notebook}",
                "student": self._name, "notebook": notebook,
            }  # fmt: skip
            await self._send("session.started", session, {**stays, "cells": cells})
            await self._through(session, stays, cells)
            await self._send("session.ended", session, {"session": session, "student": self._name})
        self._at.close()

    async def _through(self, session: str, stays: dict[str, str], cells: int) -> None:
        """Cell by cell; what fails is tried again, until it runs or the student gives up."""
        for cell in range(cells):
            failed = True
            while failed:
                await asyncio.sleep(self._chance.expovariate(1 / self._load.plan.think_seconds))
                if time.monotonic() >= self._load.ends:
                    return
                failed = self._chance.random() < FAILS * (1 + cell / cells)
                ran = {"cell": cell, "milliseconds": int(self._chance.lognormvariate(4, 1))}
                error = {"error": self._chance.choice(ERRORS)} if failed else {}
                self._load.executions += 1
                self._load.errors += failed
                self._sent.append(time.monotonic())
                await self._send("cell.executed", session, {**stays, **ran, **error})
                if failed and self._chance.random() < GIVES_UP:
                    return

    async def _send(self, kind: str, session: str, data: dict[str, Any]) -> None:
        """One event. Some are sent twice, as by a client that did not hear the answer: they count once."""
        self._number += 1
        event = {
            "stream": f"session/{session}", "type": kind, "data": data,
            "occurred_at": datetime.now(UTC).isoformat(),
        }  # fmt: skip
        body, key = msgspec.json.encode(event), f"{session}.{self._number}"
        times_sent = 2 if self._chance.random() < SENT_TWICE else 1
        self._load.sent_twice += times_sent - 1
        for _ in range(times_sent):
            began = time.monotonic()
            await self._at.ask(
                "POST", "/headwater/v1/events", self._group.token, body,
                Content_Type="application/x-ndjson", Idempotency_Key=key,
            )  # fmt: skip
        self._load.api.append(1000 * (time.monotonic() - began))


class Teacher:
    """A teacher's page: it is told that something changed, and reads the class."""

    def __init__(self, load: Load, group: Group) -> None:
        self._load, self._group = load, group
        self._seen = dict.fromkeys(group.students, 0)
        self._token = ""
        self._told = asyncio.Event()

    async def follow(self) -> None:
        """Until everything that was sent has been on the page."""
        live, page = Connection(self._load.plan), Connection(self._load.plan)
        ticket = await page.ask("POST", "/ticket", self._group.card)
        await live.head("GET", f"/headwater/v1/live/views/summary?ticket={ticket}", "none")
        listening = asyncio.create_task(self._listen(live))
        try:
            while not self._is_done():
                await self._told.wait()
                self._told.clear()
                self._look(
                    await page.ask("GET", f"/class?at_least={self._token}", self._group.card)
                )
                await asyncio.sleep(PAGE_SECONDS)
        finally:
            listening.cancel()
            live.close()
            page.close()

    async def _listen(self, live: Connection) -> None:
        assert live.reader is not None
        async for line in live.reader:
            if line.startswith(b"id:"):
                self._token = line[3:].strip().decode()
                self._told.set()

    def _look(self, found: Any) -> None:
        """Every run that is on the page for the first time was late by so much."""
        now = time.monotonic()
        self._load.page_reads += 1
        for student, shown in found["now"].items():
            sent, upto = self._load.sent[self._group.name, student], shown["executions"]
            self._load.page += [1000 * (now - at) for at in sent[self._seen[student] : upto]]
            self._seen[student] = upto

    def _is_done(self) -> bool:
        runs = [len(self._load.sent[self._group.name, name]) for name in self._group.students]
        return time.monotonic() > self._load.ends and runs == list(self._seen.values())


def times(measured: list[float]) -> tuple[float, float, float]:
    """The median, the 99th percentile and the longest; zeros where nothing was measured."""
    ordered = sorted(measured) or [0.0]
    return ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100], ordered[-1]


if __name__ == "__main__":
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    with suppress(KeyboardInterrupt):
        sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(Load(plan).run())))
