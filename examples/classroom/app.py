"""The classroom's app. A class is a tenant: its rows are its own by row-level security."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.classroom import domain
from examples.classroom.domain import (
    Attempt,
    CellExecuted,
    Enrolled,
    Learner,
    Pupil,
    Session,
    SessionEnded,
    SessionStarted,
)
from headwater import App, FoldView, Ranking, RowsView
from headwater.stores.redis import Redis

SQL = Path(__file__).parent / "sql"
DAY_SECONDS = 86_400


@dataclass(frozen=True)
class Classroom:
    """The app, and its views."""

    app: App
    sessions: FoldView[Session]
    attempts: FoldView[Attempt]
    learners: FoldView[Learner]
    pupils: FoldView[Pupil]
    summary: RowsView[Any]
    activity: RowsView[Any]
    hours: RowsView[Any]


def classroom() -> Classroom:
    """The whole wiring. No default tenant: whoever reads or writes says for which class."""
    app = App("classroom", events=[Enrolled, SessionStarted, CellExecuted, SessionEnded])
    fast = Redis("redis")
    return Classroom(
        app,
        sessions=app.fold(key="session", name="sessions")(domain.session_so_far),
        attempts=app.fold(key="attempt", name="attempts")(domain.attempt_so_far),
        learners=app.fold(key="student", name="learners", store=fast, indexes=[Ranking("stuck")])(
            domain.learner_now
        ),
        pupils=app.fold(key="student", name="pupils", opens=["name"])(domain.pupil),
        summary=app.sql("summary", sql=SQL / "views" / "summary.sql"),
        activity=app.sql(
            "activity",
            bucket="moment",
            keep_seconds=DAY_SECONDS,
            sql=SQL / "views" / "activity.sql",
        ),
        hours=app.sql("hours", bucket="hour", sql=SQL / "views" / "hours.sql"),
    )


app = classroom().app
"""What ``HEADWATER_APP=examples.classroom.app:app headwater up`` runs."""
