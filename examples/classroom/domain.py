"""What happens in a notebook, and what follows from it: a session, a student's way through a notebook. Pure: no I/O."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from headwater import Document, Event, Recorded
from headwater.events import Personal

Whole = Annotated[int, Meta(ge=0)]

NOTEBOOKS = {"variables": 8, "loops": 10, "functions": 12, "files": 9}
"""How many cells each has."""


class Enrolled(Event, type="student.enrolled", stream="student/{student}"):
    """A student joined the class. The number says nothing of the person; the name is sealed."""

    student: str
    name: Annotated[str, Personal("student")]


class SessionStarted(Event, type="session.started", stream="session/{session}"):
    """A notebook was opened. ``attempt`` is the student's way through it, over all sessions."""

    session: str
    attempt: str
    student: str
    notebook: str
    cells: Whole


class CellExecuted(Event, type="cell.executed", stream="session/{session}"):
    """A cell ran. ``error`` is an exception's type, and never its text, which may quote anything."""

    session: str
    attempt: str
    student: str
    notebook: str
    cell: Whole
    milliseconds: Whole
    error: Annotated[str, Meta(max_length=80)] | None = None


class SessionEnded(Event, type="session.ended", stream="session/{session}"):
    """The notebook was closed."""

    session: str
    student: str


class Session(Document):
    """A visit to a notebook."""

    student: str = ""
    notebook: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    executions: int = 0
    errors: int = 0


class Attempt(Document):
    """How far a student is in a notebook: the cells that ran without an error, and their share in percent."""

    student: str = ""
    notebook: str = ""
    cells: int = 0
    done: tuple[int, ...] = ()
    percent: int = 0
    executions: int = 0
    errors: int = 0


class Learner(Document):
    """Where a student is now. ``stuck`` counts the errors in a row."""

    notebook: str | None = None
    cell: int = 0
    stuck: int = 0
    executions: int = 0
    errors: int = 0


class Pupil(Document):
    """What only the teacher sees: who a student is."""

    name: str = ""


def session_so_far(
    state: Session,
    event: SessionStarted | CellExecuted | SessionEnded,
    recorded: Recorded[SessionStarted | CellExecuted | SessionEnded],
) -> Session:
    """A session by its facts."""
    at = recorded.occurred_at or recorded.recorded_at
    match event:
        case SessionStarted():
            return state.but(student=event.student, notebook=event.notebook, started_at=at)
        case CellExecuted(error=error):
            errors = state.errors + (error is not None)
            return state.but(executions=state.executions + 1, errors=errors)
        case SessionEnded():
            return state.but(ended_at=at)


def attempt_so_far(state: Attempt, event: SessionStarted | CellExecuted) -> Attempt:
    """A student's way through a notebook. A cell that ran once is done, whatever comes after."""
    if isinstance(event, SessionStarted):
        return state.but(student=event.student, notebook=event.notebook, cells=event.cells)
    executions, errors = state.executions + 1, state.errors + (event.error is not None)
    if event.error is not None or event.cell in state.done:
        return state.but(executions=executions, errors=errors)
    done = (*state.done, event.cell)
    percent = 100 * len(done) // max(state.cells, len(done))
    return state.but(done=done, percent=percent, executions=executions, errors=errors)


def learner_now(state: Learner, event: SessionStarted | CellExecuted | SessionEnded) -> Learner:
    """Where a student is. Whoever leaves is stuck no more."""
    match event:
        case SessionStarted(notebook=notebook):
            return state.but(notebook=notebook, cell=0, stuck=0)
        case SessionEnded():
            return state.but(notebook=None, stuck=0)
        case CellExecuted(cell=cell, error=None):
            return state.but(cell=cell, stuck=0, executions=state.executions + 1)
        case CellExecuted(cell=cell):
            return state.but(
                cell=cell, stuck=state.stuck + 1,
                executions=state.executions + 1, errors=state.errors + 1,
            )  # fmt: skip


def pupil(_: Pupil, event: Enrolled) -> Pupil:
    """A name, in clear."""
    return Pupil(event.name)
