"""The doctor's findings, for every entrance: of the log, its views and its captures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headwater.capture import Monitor, monitor, problems
from headwater.jobs.alerts import Facts
from headwater.jobs.operating import Jobs
from headwater.jobs.outgoing.operating import Outgoing
from headwater.jobs.taken import SQL
from headwater.log.database import Database, Role
from headwater.operations.health import Finding, examine, metrics_text
from headwater.operations.settings import Settings
from headwater.receiving.operating import InboxState, inbox_states
from headwater.views import StoredView

_BEHIND_BYTES = 256 * 2**20
_SILENT_SECONDS = 60


class Examinee(Protocol):
    """What is examined: an app that is open."""

    @property
    def views(self) -> Sequence[str]:
        """The names of its views."""
        ...

    @property
    def settings(self) -> Settings:
        """Its settings."""
        ...

    def stored(self, view: str, /) -> StoredView:
        """A view in its store."""
        ...

    def database(self, role: Role = ...) -> Database:
        """A pool of connections in one role."""
        ...


async def facts_of(app: Examinee) -> Facts:
    """What alerts look at."""
    operator = app.database("headwater_operator")
    metrics = await metrics_of(app)
    findings = [(one.level, one.check, one.finding) for one in await examined(app)]
    async with operator.connection() as connection:
        rows = await (await connection.execute(SQL["alerts.outcomes"])).fetchall()
    return Facts(metrics, findings, dict(rows))


async def metrics_of(app: Examinee) -> str:
    """Metrics of the log, views, queues, inboxes and the slot in Prometheus's text format."""
    operator = app.database("headwater_operator")
    texts = [
        await metrics_text(operator),
        await _slot_metrics(operator),
        await _job_metrics(operator),
        await _inbox_metrics(operator),
    ]
    return "\n".join(filter(None, texts))


async def examined(app: Examinee) -> list[Finding]:
    """What an examination of the installation finds."""
    operator = app.database("headwater_operator")
    findings = await examine(operator, {name: app.stored(name) for name in app.views})
    findings += [
        Finding("warn", f"capture {problem.capture}", problem.finding, problem.remedy)
        for problem in await problems(operator)
    ]
    findings += [
        Finding("warn", f"endpoint {name}", f"{state}, {pending:,} events pending: {detail}", f"When its receiver is back: headwater webhooks --resume {name}.")
        for name, _, _, _, state, _, pending, _, detail in await Outgoing(operator).endpoints()
        if state == "parked"
    ]  # fmt: skip
    findings += [
        _of_inbox(state)
        for state in await inbox_states(operator)
        if state.parked or state.state not in {"running", None, "released"}
    ]
    if (slot := await monitor(operator)) is not None:
        findings += _of_slot(slot, app.settings.replication_max_wal_bytes)
    return findings


def _of_inbox(state: InboxState) -> Finding:
    if state.parked:
        what = f"{state.parked:,} messages are parked, or wait behind one"
        return Finding("warn", state.inbox, what, f"See headwater parked --view {state.inbox}.")
    remedy = (
        "Mend the cause; it goes on by itself." if state.state == "retrying" else "Do what it says."
    )
    return Finding("warn", state.inbox, f"{state.state}: {state.detail}", remedy)


def _of_slot(slot: Monitor, max_wal_bytes: int) -> list[Finding]:
    what = (
        f"{slot.slot} holds back {slot.retained_bytes:,} bytes of WAL, "
        f"{slot.behind_bytes:,} bytes behind, wal_status {slot.wal_status}"
    )
    findings = []
    if slot.state == "lost" or slot.wal_status in {"lost", "gone"}:
        lost = f"the slot is lost: {slot.detail or slot.wal_status}"
        findings.append(Finding("fail", "replication", lost, "Run headwater resync."))
    elif not slot.read:
        unread = f"nobody reads the slot: {what}"
        findings.append(
            Finding("warn", "replication", unread, "Run headwater up; its log says why it cannot.")
        )
    elif slot.wal_status == "unreserved" or slot.retained_bytes > max_wal_bytes / 2:
        near = f"the slot is about to be lost: {what}"
        findings.append(
            Finding("fail", "replication", near, "Find what slows the relay, or raise the caps.")
        )
    elif slot.behind_bytes > _BEHIND_BYTES or slot.idle_seconds > _SILENT_SECONDS:
        findings.append(
            Finding(
                "warn", "replication", f"the reader is behind: {what}", "The relay's log says why."
            )
        )
    else:
        findings.append(Finding("ok", "replication", what))
    if slot.keep_megabytes < 0:
        findings.append(
            Finding(
                "warn",
                "replication",
                "max_slot_wal_keep_size is -1: without a relay the slot may fill the disk",
                "ALTER SYSTEM SET max_slot_wal_keep_size = '32GB'; SELECT pg_reload_conf().",
            )
        )
    return findings


async def _job_metrics(operator: Database) -> str:
    """Metrics of queues in Prometheus's text format; empty where there is none."""
    queues = await Jobs(operator).queues()
    kinds = (
        ("waiting_jobs", "gauge", "Jobs that may start.", "waiting"),
        ("later_jobs", "gauge", "Jobs that are delayed, or behind another of their key.", "later"),
        ("running_jobs", "gauge", "Jobs that a worker has.", "running"),
        ("oldest_job_seconds", "gauge", "How long the oldest job that may start has waited.", "oldest_seconds"),
        ("dead_jobs", "gauge", "Dead letters that were not replayed.", "dead"),
        ("queue_paused", "gauge", "Whether the queue is paused.", "paused"),
        ("job_attempts_total", "counter", "Attempts that ended; its rate is the queue's.", "settled"),
        ("job_failures_total", "counter", "Attempts that failed.", "failed"),
    )  # fmt: skip
    return _metrics(kinds, [({"queue": one.queue}, one) for one in queues])


async def _inbox_metrics(operator: Database) -> str:
    """Of inboxes; empty where there is none."""
    kinds = (
        ("inbox_position", "gauge", "How far in the source's log an inbox has received.", "position"),
        ("inbox_received_at_seconds", "gauge", "When an inbox last took something, in seconds since 1970.", "received_at"),
        ("inbox_parked_messages", "gauge", "Messages that are parked, or wait behind one.", "parked"),
        ("inbox_driven", "gauge", "Whether a relay drives the inbox.", "is_driven"),
    )  # fmt: skip
    states = await inbox_states(operator)
    text = _metrics(kinds, [({"inbox": one.inbox}, one) for one in states])
    about = "1 for the state that an inbox's relay tells of; not_driven where there is none."
    of_states = [f'headwater_inbox_state{{inbox="{one.inbox}",state="{one.state or "not_driven"}"}} 1' for one in states]  # fmt: skip
    head = [f"# HELP headwater_inbox_state {about}", "# TYPE headwater_inbox_state gauge"]
    return "\n".join([text, *head, *of_states]) if states else ""


def _metrics(
    kinds: Sequence[tuple[str, str, str, str]], samples: Sequence[tuple[dict[str, str], object]]
) -> str:
    """Metrics by name, kind, what they are and the attribute that holds them; empty without a sample."""
    lines = []
    for name, kind, about, field in kinds if samples else ():
        lines += [f"# HELP headwater_{name} {about}", f"# TYPE headwater_{name} {kind}"]
        for labels, one in samples:
            inside = ",".join(f'{label}="{value}"' for label, value in labels.items())
            lines.append(f"headwater_{name}{{{inside}}} {float(getattr(one, field)):.16g}")
    return "\n".join(lines)


async def _slot_metrics(operator: Database) -> str:
    """Metrics of the replication slot in Prometheus's text format; empty where there is none."""
    slot = await monitor(operator)
    if slot is None:
        return ""
    samples = {
        "replication_retained_bytes": ("WAL that the slot holds back.", slot.retained_bytes),
        "replication_behind_bytes": ("WAL that the reader has not read.", slot.behind_bytes),
        "replication_read": ("Whether a reader follows the slot.", int(slot.read)),
        "replication_lost": ("Whether the slot is lost.", int(slot.state == "lost")),
    }
    return "\n".join(
        f"# HELP headwater_{name} {about}\n# TYPE headwater_{name} gauge\nheadwater_{name} {value}"
        for name, (about, value) in samples.items()
    )
