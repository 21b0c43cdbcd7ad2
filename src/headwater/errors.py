"""Every error that Headwater raises, as one tree.

A class's docstring is its default message. ``code`` is stable: documentation, the command
line's JSON and (later) HTTP problems name it. ``hint`` says what to do.
"""

from __future__ import annotations

import inspect
from typing import ClassVar


class HeadwaterError(Exception):
    """Headwater could not do what was asked."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str | None = None, *, hint: str | None = None) -> None:
        self.message = message or (inspect.getdoc(type(self)) or "").strip()
        self.hint = hint
        self.event: int | None = None
        """Which of the events that were sent together is at fault, counted from 0, where it is known."""
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


# What is asked of the log ------------------------------------------------------------------------


class AppendRefused(HeadwaterError):
    """The log refused the event."""

    code = "append_refused"


class VersionConflict(AppendRefused):
    """The stream has moved on since it was read."""

    code = "version_conflict"

    def __init__(
        self,
        message: str | None = None,
        *,
        hint: str | None = None,
        stream: str = "",
        expected: int | None = None,
        actual: int | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.stream = stream
        self.expected = expected
        self.actual = actual


class DecisionOutdated(AppendRefused):
    """Something that the decision depends on has changed since it looked."""

    code = "decision_outdated"


class IdempotencyKeyReused(AppendRefused):
    """The idempotency key was used for another request."""

    code = "idempotency_key_reused"


class UnknownEventType(AppendRefused):
    """The event type is not registered."""

    code = "unknown_event_type"


class InvalidEvent(AppendRefused):
    """The event does not fit its type."""

    code = "invalid_event"


class InvalidStreamName(AppendRefused):
    """The stream name is malformed."""

    code = "invalid_stream_name"


class LimitExceeded(AppendRefused):
    """The request exceeds a stated limit."""

    code = "limit_exceeded"


class TenantRefused(HeadwaterError):
    """The tenant is not this session's."""

    code = "tenant_refused"


class TenantMissing(HeadwaterError):
    """No tenant is set."""

    code = "tenant_missing"


class TransactionMissing(HeadwaterError):
    """The connection is in no transaction, so the fact would not commit with the change."""

    code = "transaction_missing"


class IsolationRefused(HeadwaterError):
    """The log cannot be read in order under this isolation level."""

    code = "isolation_refused"


class SchemaRefused(HeadwaterError):
    """The event type's schema cannot be checked in the database."""

    code = "schema_refused"


class SchemaChanged(HeadwaterError):
    """The version of the event type is registered with another schema."""

    code = "schema_changed"


# Jobs --------------------------------------------------------------------------------------------


class JobRefused(HeadwaterError):
    """The job cannot be enqueued."""

    code = "job_refused"


class UnknownQueue(JobRefused):
    """There is no such queue."""

    code = "unknown_queue"


class UnknownJob(HeadwaterError):
    """There is no such job, or what was asked of it comes too late."""

    code = "unknown_job"


class EndpointRefused(HeadwaterError):
    """The endpoint cannot be sent to."""

    code = "endpoint_refused"


class UnknownEndpoint(HeadwaterError):
    """There is no such endpoint."""

    code = "unknown_endpoint"


class UnknownAlert(HeadwaterError):
    """There is no such alert."""

    code = "unknown_alert"


# Sagas -------------------------------------------------------------------------------------------


class UnknownSaga(HeadwaterError):
    """There is no such saga."""

    code = "unknown_saga"


class SagaRefused(HeadwaterError):
    """The saga is not in a state in which this can be done."""

    code = "saga_refused"


class NotDeterministic(HeadwaterError):
    """The saga's function does something else than it did before."""

    code = "not_deterministic"


class SagaFailed(HeadwaterError):
    """The saga cannot go on: what it did is to be undone."""

    code = "saga_failed"


class StepRejected(SagaFailed):
    """A command of the saga was rejected."""

    code = "step_rejected"

    def __init__(
        self, message: str | None = None, *, hint: str | None = None, rejection: object = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.rejection = rejection


class StepFailed(SagaFailed):
    """A call of the saga raised for the last time."""

    code = "step_failed"


class WaitTimedOut(SagaFailed):
    """What the saga waited for did not come in time."""

    code = "wait_timed_out"


# Personal data -----------------------------------------------------------------------------------


class SubjectForgotten(HeadwaterError):
    """The person has been forgotten, so nothing can be sealed for them."""

    code = "subject_forgotten"


class KeyUnavailable(HeadwaterError):
    """A key for personal data is missing, wrong, or does not fit."""

    code = "key_unavailable"


class SubjectUnknown(HeadwaterError):
    """Nobody has asked to forget this subject."""

    code = "subject_unknown"


class LedgerBroken(HeadwaterError):
    """The ledger of forgotten persons is not as it was written."""

    code = "ledger_broken"


# Captured tables ---------------------------------------------------------------------------------


class CaptureRefused(HeadwaterError):
    """The table cannot be captured."""

    code = "capture_refused"


class AlreadyCaptured(CaptureRefused):
    """The table is captured already."""

    code = "already_captured"


class TableBusy(CaptureRefused):
    """The table is in use by a long transaction."""

    code = "table_busy"


class CaptureStopped(CaptureRefused):
    """The capture stopped while its table was read."""

    code = "capture_stopped"


class UnknownCapture(HeadwaterError):
    """There is no such table or capture."""

    code = "unknown_capture"


# Tokens and reads --------------------------------------------------------------------------------


class TokenError(HeadwaterError):
    """The token cannot be used here."""

    code = "token"


class InvalidToken(TokenError):
    """The token is malformed."""

    code = "invalid_token"


class ForeignToken(TokenError):
    """The token belongs to another log."""

    code = "foreign_token"


class StaleToken(TokenError):
    """The token is from before the log was restored."""

    code = "stale_token"


class NotCaughtUp(HeadwaterError):
    """The view has not reached the token's position in time."""

    code = "not_caught_up"


class KeyParked(HeadwaterError):
    """The row is behind: an event for its key is parked."""

    code = "key_parked"

    def __init__(
        self, message: str | None = None, *, hint: str | None = None, position: int | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.position = position


# Definitions -------------------------------------------------------------------------------------


class DefinitionError(HeadwaterError):
    """The app is not well defined."""

    code = "definition"


class EventDefinitionError(DefinitionError):
    """The event type is not well defined."""

    code = "event_definition"


class ViewDefinitionError(DefinitionError):
    """The view is not well defined."""

    code = "view_definition"


class CommandDefinitionError(DefinitionError):
    """The command is not well defined."""

    code = "command_definition"


class JobDefinitionError(DefinitionError):
    """The queue, job or schedule is not well defined."""

    code = "job_definition"


class SagaDefinitionError(DefinitionError):
    """The saga is not well defined."""

    code = "saga_definition"


class StateUnreadable(HeadwaterError):
    """The state that a command depends on cannot be folded."""

    code = "state_unreadable"


class InvalidMoment(HeadwaterError):
    """What was given is no moment in the log."""

    code = "invalid_moment"


class UnknownView(HeadwaterError):
    """There is no such view."""

    code = "unknown_view"


class NothingKept(HeadwaterError):
    """Nothing is kept of the view from before its last rebuild."""

    code = "nothing_kept"


class RebuildInterrupted(HeadwaterError):
    """A process that built a part of a view ended before it was done."""

    code = "rebuild_interrupted"


class ViewInUse(HeadwaterError):
    """Something of the application's rests on the view, so it cannot get other columns."""

    code = "view_in_use"


class ViewStale(HeadwaterError):
    """The view's definition has changed since its data was derived."""

    code = "view_stale"


class SourceChanged(ViewStale):
    """What comes from another service does not follow on what was received."""

    code = "source_changed"


class UnknownInbox(HeadwaterError):
    """There is no such inbox."""

    code = "unknown_inbox"


# Entering by HTTP --------------------------------------------------------------------------------


class AccessTokenUnknown(HeadwaterError):
    """There is no such access token."""

    code = "access_token_unknown"


class RequestRefused(HeadwaterError):
    """The request cannot be understood."""

    code = "request_refused"


class IdempotencyKeyMissing(RequestRefused):
    """The request carries no idempotency key."""

    code = "idempotency_key_missing"


class RequestInFlight(HeadwaterError):
    """The same request is under way."""

    code = "request_in_flight"


class BodyTooLarge(RequestRefused):
    """The request is larger than the entrance takes."""

    code = "body_too_large"


class BodyTooSlow(RequestRefused):
    """The request did not arrive in time."""

    code = "body_too_slow"


class MediaTypeRefused(RequestRefused):
    """The body is of a type that is not taken here."""

    code = "media_type_refused"


class MethodRefused(RequestRefused):
    """The method is not one of this path's."""

    code = "method_refused"


class NothingHere(HeadwaterError):
    """There is nothing under this path or key."""

    code = "nothing_here"


class Unauthenticated(HeadwaterError):
    """The request carries no access token that is valid."""

    code = "unauthenticated"


class Forbidden(HeadwaterError):
    """The access token does not allow this."""

    code = "forbidden"


class RateExceeded(HeadwaterError):
    """There were more requests than the limit allows."""

    code = "rate_exceeded"

    def __init__(
        self, message: str | None = None, *, hint: str | None = None, retry_seconds: float = 1.0
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_seconds = retry_seconds


class TooBusy(HeadwaterError):
    """The process has no room for another connection."""

    code = "too_busy"


# The installation --------------------------------------------------------------------------------


class SettingError(HeadwaterError):
    """A setting is missing or malformed."""

    code = "setting"


class DatabaseUnavailable(HeadwaterError):
    """The database cannot be reached."""

    code = "database_unavailable"


class TooManyConnections(DatabaseUnavailable):
    """The database has no connection left."""

    code = "too_many_connections"


class DatabaseReadOnly(DatabaseUnavailable):
    """The database takes no writes: it is a standby, or its transactions are read-only."""

    code = "database_read_only"


class NotInitialized(HeadwaterError):
    """The database holds no Headwater log."""

    code = "not_initialized"


class MigrationError(HeadwaterError):
    """The schema could not be migrated."""

    code = "migration"


class RoleBypassesSecurity(HeadwaterError):
    """The login bypasses row-level security."""

    code = "role_bypasses_security"


class RoleMissing(HeadwaterError):
    """The login is not a member of the role that this needs."""

    code = "role_missing"


class ExtraMissing(HeadwaterError):
    """A package that this needs is not installed."""

    code = "extra_missing"


class StoreUnavailable(HeadwaterError):
    """The store cannot take or give data now."""

    code = "store_unavailable"


class StoreRefused(HeadwaterError):
    """The store cannot hold views as it is."""

    code = "store_refused"


class QueryRefused(HeadwaterError):
    """The query cannot be run."""

    code = "query_refused"


class LeaseLost(HeadwaterError):
    """Another process has taken over."""

    code = "lease_lost"


class EmbeddedPostgresError(HeadwaterError):
    """The embedded Postgres could not be started."""

    code = "embedded_postgres"
