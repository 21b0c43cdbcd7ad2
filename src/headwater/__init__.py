"""Headwater: write each fact once, in one Postgres transaction; derive everything else."""

import gc as _gc

_collects = _gc.isenabled()
_gc.disable()  # what importing makes stays: looking through it for garbage takes a third of the time
try:
    from headwater.app import App, FeedView, FoldView, RowsView, Transaction
    from headwater.commands import Accepted, Command, Rejection, over
    from headwater.errors import HeadwaterError, SagaFailed, StepFailed, StepRejected, WaitTimedOut
    from headwater.events import Event, Recorded
    from headwater.jobs import JobRate, Retry, ScheduleRan, this_job
    from headwater.jobs.alerts import AlertRaised, AlertResolved, Doctor, Metric, ScheduleFailed
    from headwater.jobs.notices import (
        Mail,
        Message,
        NoticeFailed,
        NoticePreferred,
        NoticeSent,
        NoticeWithheld,
        Reach,
        Slack,
        Templates,
        Webhook,
    )
    from headwater.log import Fact, Token, Written, carrying, caused_by
    from headwater.log.enqueuing import Enqueue
    from headwater.operations.settings import Settings
    from headwater.readers.history import Moment
    from headwater.sagas import Saga, Undo
    from headwater.views import Document
    from headwater.views.indexes import Counter, Distinct, Places, Ranking
    from headwater.views.purpose import Purpose
finally:
    if _collects:
        _gc.enable()

__all__ = [
    "Accepted",
    "AlertRaised",
    "AlertResolved",
    "App",
    "Command",
    "Counter",
    "Distinct",
    "Doctor",
    "Document",
    "Enqueue",
    "Event",
    "Fact",
    "FeedView",
    "FoldView",
    "HeadwaterError",
    "JobRate",
    "Mail",
    "Message",
    "Metric",
    "Moment",
    "NoticeFailed",
    "NoticePreferred",
    "NoticeSent",
    "NoticeWithheld",
    "Places",
    "Purpose",
    "Ranking",
    "Reach",
    "Recorded",
    "Rejection",
    "Retry",
    "RowsView",
    "Saga",
    "SagaFailed",
    "ScheduleFailed",
    "ScheduleRan",
    "Settings",
    "Slack",
    "StepFailed",
    "StepRejected",
    "Templates",
    "Token",
    "Transaction",
    "Undo",
    "WaitTimedOut",
    "Webhook",
    "Written",
    "carrying",
    "caused_by",
    "over",
    "this_job",
]
