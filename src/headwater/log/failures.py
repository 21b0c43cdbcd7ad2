"""What Postgres says, as Headwater's errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg_pool import PoolTimeout, TooManyRequests

from headwater import errors
from headwater.errors import HeadwaterError

_BY_STATE: dict[str, type[HeadwaterError]] = {
    "HW002": errors.IdempotencyKeyReused,
    "HW003": errors.UnknownEventType,
    "HW004": errors.InvalidEvent,
    "HW005": errors.InvalidStreamName,
    "HW006": errors.TenantRefused,
    "HW007": errors.TenantMissing,
    "HW008": errors.IsolationRefused,
    "HW009": errors.LimitExceeded,
    "HW010": errors.SchemaRefused,
    "HW011": errors.SchemaChanged,
    "HW012": errors.DecisionOutdated,
    "HW020": errors.LeaseLost,
    "HW030": errors.CaptureRefused,
    "HW031": errors.AlreadyCaptured,
    "HW032": errors.UnknownCapture,
    "HW040": errors.UnknownQueue,
    "HW041": errors.JobRefused,
    "HW050": errors.UnknownSaga,
    "HW060": errors.SubjectForgotten,
}
_NOT_INITIALIZED = {"3F000", "42P01"}  # no such schema or table


@contextmanager
def translated() -> Iterator[None]:
    """Raises Headwater's errors in place of psycopg's. Errors of no meaning here pass as they are."""
    try:
        yield
    except psycopg.Error as error:
        translation = translate(error)
        if translation is None:
            raise
        raise translation from error


@dataclass(frozen=True, slots=True)
class Complaint:
    """What Postgres said, whichever driver passed it on."""

    state: str
    message: str | None
    detail: str | None
    hint: str | None

    @classmethod
    def heard(cls, error: BaseException | None) -> Complaint | None:
        """What Postgres said in an error or in what it was raised from; None where it said nothing.

        psycopg and psycopg2 keep it in ``diag``, asyncpg in the error, SQLAlchemy and Django in what
        they wrap.
        """
        seen = 0
        while error is not None and seen < 5:
            told: Any = error
            state = getattr(told, "sqlstate", None) or getattr(told, "pgcode", None)
            diagnostics = getattr(told, "diag", None)
            if state and diagnostics is not None:
                return cls(state, diagnostics.message_primary, diagnostics.message_detail, diagnostics.message_hint)  # fmt: skip
            if state and hasattr(told, "detail") and hasattr(told, "hint"):
                return cls(state, told.message, told.detail, told.hint)
            error = getattr(told, "orig", None) or told.__cause__
            seen += 1
        return None

    @property
    def refusal(self) -> HeadwaterError | None:
        """Headwater's error, where the state is one of Headwater's own."""
        if self.state == "HW001":
            told = json.loads(self.detail or "{}")
            return errors.VersionConflict(
                self.message,
                hint=self.hint,
                stream=told.get("stream", ""),
                expected=told.get("expected"),
                actual=told.get("actual"),
            )
        known = _BY_STATE.get(self.state)
        return None if known is None else known(self.message, hint=self.hint)


def translate(error: psycopg.Error) -> HeadwaterError | None:
    """Headwater's error for one of psycopg's, or None where it has no meaning of its own."""
    state = error.sqlstate or ""
    complaint = Complaint.heard(error)
    if complaint is not None and (refused := complaint.refusal) is not None:
        return refused
    message = error.diag.message_primary
    if isinstance(error, (PoolTimeout, TooManyRequests)) or state == "53300":
        return errors.TooManyConnections(
            hint="Raise max_connections or the pool's size, or use fewer processes; then try again."
        )
    if state in _NOT_INITIALIZED and "headwater" in (message or ""):
        return errors.NotInitialized(hint="Run headwater init with an administrator's URL.")
    if state == "25006":
        return errors.DatabaseReadOnly(
            hint="Name the primary in HEADWATER_DATABASE_URL, or all hosts and "
            "target_session_attrs=read-write: postgresql://user@a,b/shop?target_session_attrs=read-write"
        )
    if unavailable(error):
        return errors.DatabaseUnavailable(
            hint="Check that Postgres runs and that HEADWATER_DATABASE_URL is right; what was not "
            "committed left nothing behind.",
        )
    return None


def unavailable(error: psycopg.Error) -> bool:
    """Whether the server or the way to it is at fault, not what was asked."""
    state = error.sqlstate or ""
    return state[:2] in {"08", "57"} or (
        not state and isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    )


def passing(error: psycopg.Error) -> bool:
    """Whether the same request may succeed later: a lost server, a full one, a lock, a conflict."""
    state = error.sqlstate or ""
    return unavailable(error) or state == "25006" or state[:2] in {"40", "53", "55", "58"}


def caused_by_data(error: psycopg.Error) -> bool:
    """Whether an event's values are at fault: a cast, an overflow, a constraint, a raise."""
    return (error.sqlstate or "")[:2] in {"22", "23", "P0"}


def refusal(outcome: dict[str, object]) -> HeadwaterError:
    """The error of one refused group of headwater.append_groups: SQLSTATE and sentence."""
    text = str(outcome["refusal"])
    state, message = text[:5], text[5:]
    if state == "HW001":
        return errors.VersionConflict(
            message,
            hint=_HINTS[state],
            stream=str(outcome["stream"]),
            expected=int(str(outcome["expected"])),
            actual=int(str(outcome["actual"])),
        )
    return _BY_STATE[state](message, hint=_HINTS[state])


_HINTS = {
    "HW001": "Read the stream again, decide again, and append with the version you then saw.",
    "HW002": "Use a new key for a new request; send the same request to get its first result.",
    "HW003": "Declare the type in the app and run headwater init.",
    "HW004": "Mend the data; the type's schema says what fits.",
    "HW005": "Write category/id: a lower-case category, a slash, and an id without spaces; at most "
    "255 characters.",
    "HW009": "Split it, or store the large part elsewhere and keep a reference in the event.",
}
