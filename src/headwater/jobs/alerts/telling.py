"""What channels are told, as Slack and others read it, and the digest."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import msgspec

from headwater.jobs.alerts.rule import Channel
from headwater.jobs.outgoing.sending import post
from headwater.jobs.outgoing.signing import signed
from headwater.jobs.taken import SQL
from headwater.log.database import Database

DIGEST_SECONDS = 7 * 86_400.0


async def tell(channel: Channel, message_id: str, kind: str, name: str, detail: str) -> None:
    """Posts one message. ``kind`` is raised, resolved or digest. Raises what ``post`` raises."""
    if channel.slack:
        mark = {"raised": ":red_circle: ", "resolved": ":large_green_circle: "}.get(kind, "")
        body = msgspec.json.encode({"text": f"{mark}*{name}* {kind}\n{_plain(detail)}"})
    else:
        told = {"name": name, "state": kind, "detail": detail}
        now = datetime.now(UTC).isoformat()
        body = msgspec.json.encode({"type": f"alert.{kind}", "timestamp": now, "data": told})
    headers = {}
    if channel.secret is not None:
        headers = signed(message_id, int(time.time()), body, [channel.secret])
    await post(channel.url, body, headers, private=channel.private)


def _plain(text: str) -> str:
    """Text in which Slack finds no links or mentions."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


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
