"""The story that the example tells, in chapters; what should be is checked."""

from __future__ import annotations

import asyncio
import random
import sys
from dataclasses import dataclass
from datetime import datetime

import msgspec
from rich.console import Console

from examples.classroom.app import Classroom, classroom
from examples.classroom.domain import Enrolled
from examples.classroom.load import Connection, Group, Plan, Report
from examples.classroom.page import Cards, names, seen_by_student, serving
from examples.classroom.relay import relay_process
from examples.telling import Story
from headwater.entrances.http import listen
from headwater.operations.access import create_token
from headwater.personal import FORGOTTEN

FIRST = (
    "Ada",
    "Bela",
    "Chidi",
    "Dana",
    "Emre",
    "Fumi",
    "Goran",
    "Hana",
    "Ines",
    "Jiro",
    "Kofi",
    "Lena",
)
LAST = ("Abe", "Brandt", "Cruz", "Diallo", "Eriksen", "Farah", "Gupta", "Horak", "Ito", "Jansen")
ENOUGH_MILLISECONDS, PAGE_MILLISECONDS = 100, 1000
TOGETHER = 20
START_SECONDS = 30.0


@dataclass(frozen=True)
class Size:
    """How large the class is, and how busy. ``target``: whether the times that were asked for are checked."""

    classes: int = 8
    students: int = 30
    seconds: float = 30.0
    think_seconds: float = 0.8
    target: bool = True


async def run(console: Console, size: Size, address: str | None = None) -> bool:
    """Whether all checks held. With an address the page is served there in the end, until it is interrupted."""
    story, room, cards = Story(console), classroom(), Cards()
    async with room.app:
        await room.app.deploy()
        async with relay_process(), serving(room, cards, listen(address or "127.0.0.1:0")) as url:
            story.chapter(f"{size.classes} classes of {size.students} students")
            groups = [
                await enrol(room, cards, n, size.students) for n in range(1, size.classes + 1)
            ]
            plan = Plan(*where(url), groups, size.seconds, size.think_seconds)
            await at_work(story, room, plan, size)
            await who_sees_what(story, room, cards, plan)
            await forgotten(story, room, groups[0])
            story.chapter("Proved")
            for view in room.app.views:
                verified = await room.app.stored(view).verify()
                story.check(f"{view} and the log", verified.summary, "equal")
            story.say("\nAll checks passed." if story.passed else "\nA check failed.")
            if address is not None:
                await keep_on(story, room, cards, url, size)
    return story.passed


def where(url: str) -> tuple[str, int]:
    """Host and port of a URL."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


async def enrol(room: Classroom, cards: Cards, number: int, students: int) -> Group:
    """A class: its students with their names, the token of its notebooks, the card of its teacher."""
    of, chance = f"class-{number}", random.Random(number)
    names = [f"{first} {last}" for first in FIRST for last in LAST]
    joined = [
        Enrolled(f"s{student:03}", name)
        for student, name in enumerate(chance.sample(names, students), start=1)
    ]
    for first in range(0, students, TOGETHER):
        *_, written = await asyncio.gather(
            *(room.app.append(each, tenant=of) for each in joined[first : first + TOGETHER])
        )
    await room.learners.list(tenant=of, at_least=written.token, timeout_seconds=START_SECONDS)
    operator = room.app.database("headwater_operator")
    token = await create_token(operator, name="notebooks", tenant=of, scopes=["append"])
    card = cards.issue("teacher", of, "teacher")
    return Group(of, token.text, card, [each.student for each in joined])


async def play(plan: Plan) -> Report:
    """The load, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "examples.classroom.load",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        written, _ = await process.communicate(msgspec.json.encode(plan))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError("The load ended before its time; what it says is above.")
    return msgspec.json.decode(written, type=Report)


async def at_work(story: Story, room: Classroom, plan: Plan, size: Size) -> None:
    """Everybody at once; what was answered is counted once, and how long it took is told."""
    report = await play(plan)
    people = sum(len(group.students) for group in plan.classes)
    story.say(
        f"  {people} students, {report.events} events in {report.seconds:.0f} s: "
        f"{report.events / report.seconds:.0f} a second, {report.sent_twice} of them sent twice"
    )
    story.say("  API, ms: p50 {:.1f}, p99 {:.1f}, longest {:.0f}".format(*report.api))
    story.say(
        "  from a cell's run to the teacher's page, ms: p50 {:.0f}, p99 {:.0f}, longest {:.0f}".format(*report.page)
        + f"; {len(plan.classes)} pages open, {report.page_reads} reads"
    )  # fmt: skip
    if size.target:
        aimed(story, "API p99", report.api[1], ENOUGH_MILLISECONDS)
        aimed(story, "cell to page, p99", report.page[1], PAGE_MILLISECONDS)
    executions = errors = hourly = still = 0
    for group in plan.classes:
        for row in await room.summary.list(tenant=group.name):
            executions, errors = executions + int(row.executions), errors + int(row.errors)
        hourly += sum(row.executions for row in await room.hours.list(tenant=group.name))
        visits = await room.sessions.list(tenant=group.name, limit=10_000)
        still += sum(visit.ended_at is None for _, visit in visits)
    story.check("cells run, by notebook", executions, report.executions)
    story.check("errors, by notebook", errors, report.errors)
    story.check("cells run, by hour", hourly, report.executions)
    story.check("sessions that have not ended", still, 0)
    for row in await room.summary.list(tenant=plan.classes[0].name):
        story.say(
            f"  {plan.classes[0].name}, {row.notebook}: {row.students} students, {row.finished} through it, "
            f"{row.percent:.0f} % on average, {100 * row.errors / row.executions:.0f} % errors"
        )


def aimed(story: Story, what: str, milliseconds: float, target: int) -> None:
    """A line that says whether a time is within its target. A busy machine is slow, and not wrong."""
    mark = "ok" if milliseconds < target else "slow"
    story.say(f"  {mark}  {what}: {milliseconds:.0f} ms, asked for: under {target} ms")


async def who_sees_what(story: Story, room: Classroom, cards: Cards, plan: Plan) -> None:
    """A class is a tenant; within it, the card says who asks."""
    story.chapter("Who sees what")
    one, other = plan.classes[0], plan.classes[-1]
    student = one.students[0]
    operator = room.app.database("headwater_operator")
    foreign = await create_token(operator, name="board", tenant=other.name, scopes=["read"])
    at = Connection(plan)
    story.check("append token, reading", await status(at, "/headwater/v1/events", one.token), 403)
    path = "/headwater/v1/views/sessions?limit=1000"
    rows = (await at.ask("GET", path, foreign.text))["rows"]
    whose = {row["key"].split(".")[0] for row in rows}
    story.check(f"classes that {other.name}'s token sees", whose, {other.name})
    mine = cards.issue("student", one.name, student)
    own = await at.ask("GET", "/mine", mine)
    stored = dict(await room.attempts.list(tenant=one.name, limit=2_000))
    theirs = sum(each.executions for each in stored.values() if each.student == student)
    story.check("a student's runs, on their own page", sum(row["executions"] for row in own["attempts"]), theirs)  # fmt: skip
    story.check("a student, asking for the class", await status(at, "/class", mine), 403)
    forged = mine.replace(student, one.students[1])
    story.check("another student's card, forged", await status(at, "/mine", forged), 403)
    known = await at.ask("GET", "/names", one.card)
    story.check("names that the teacher sees", len(known), len(one.students))
    story.check("a student, asking for names", await status(at, "/names", mine), 403)
    events = [e.event for e in await room.app.log.stream(f"student/{student}", tenant=one.name)]
    sealed = [each.name != known[student] for each in events if isinstance(each, Enrolled)]
    story.check("sealed in the log", sealed, [True])
    seen = await at.ask("GET", "/class", other.card)
    story.check("the other teacher's class", seen["class"], other.name)
    at.close()


async def status(at: Connection, path: str, token: str) -> int:
    """Of an answer whose body does not matter."""
    found = await at.head("GET", path, token)
    assert at.reader is not None
    await at.reader.readexactly(at.length)
    return found


async def forgotten(story: Story, room: Classroom, group: Group) -> None:
    """A student leaves for good: the name is gone, what was learnt still counts."""
    story.chapter("Forgotten")
    student = group.students[0]
    before = await names(room, group.name)
    certificate = await (await room.app.forgetting()).forget(student, group.name, "left the school")
    story.check("the certificate holds", certificate.holds, expected=True)
    after = await names(room, group.name)
    story.check(f"{before[student]}, for the teacher", after[student], FORGOTTEN)
    story.check("other names", after | {student: ""} == before | {student: ""}, expected=True)
    own = await seen_by_student(room, group.name, student, None)
    story.check("their runs still count", bool(own["attempts"]), expected=True)


async def keep_on(story: Story, room: Classroom, cards: Cards, url: str, size: Size) -> None:
    """Another class works while somebody looks."""
    number = size.classes
    while True:
        number += 1
        group = await enrol(room, cards, number, size.students)
        student = cards.issue("student", group.name, group.students[0])
        story.say(f"\nlook at it, until {group.name} is over: {url}/#{group.card}")
        story.say(f"as a student: {url}/#{student}")
        await play(Plan(*where(url), [group], 600.0, 4.0, int(datetime.now().timestamp())))  # noqa: DTZ005
