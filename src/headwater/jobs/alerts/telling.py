"""What channels are told, and the digest."""

from __future__ import annotations

from headwater.jobs.outgoing.channels import Message
from headwater.jobs.taken import SQL
from headwater.log.database import Database

DIGEST_SECONDS = 7 * 86_400.0


def message_of(kind: str, name: str, detail: str) -> Message:
    """What a channel is told. ``kind`` is raised, resolved or digest."""
    data = {"name": name, "state": kind, "detail": detail}
    subject = "The week's digest" if kind == "digest" else f"{name} {kind}"
    return Message(subject, detail, kind=f"alert.{kind}", data=data)


async def digest(database: Database) -> str:
    """What went well and what failed in a week: runs of schedules, alerts, jobs since the last digest."""
    week = {"seconds": DIGEST_SECONDS}
    async with database.connection() as connection:
        runs = await (await connection.execute(SQL["alerts.week_of_schedules"], week)).fetchall()
        raised = await (await connection.execute(SQL["alerts.week_of_alerts"], week)).fetchall()
        queues = await (await connection.execute(SQL["alerts.week_of_queues"])).fetchall()
    lines = [f"schedule {name}: {count:,} {outcome}" for name, outcome, count in runs]
    lines += [f"alert {name}: raised {count:,} times" for name, count in raised]
    lines += [
        f"queue {name}: {settled:,} attempts ended, {failed:,} failed, {dead:,} dead letters"
        for name, settled, failed, dead in queues
    ]
    return "\n".join(lines) or "Nothing ran."
