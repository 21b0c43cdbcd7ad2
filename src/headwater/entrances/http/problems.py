"""Refusals as application/problem+json (RFC 9457): the one place where an error becomes a status."""

from __future__ import annotations

import inspect
import math

import msgspec
from starlette.responses import Response

from headwater import errors
from headwater.errors import HeadwaterError

STATUS: dict[type[HeadwaterError], int] = {
    errors.HeadwaterError: 500,
    errors.AppendRefused: 422,
    errors.VersionConflict: 409,
    errors.DecisionOutdated: 409,
    errors.IdempotencyKeyReused: 422,
    errors.UnknownEventType: 422,
    errors.InvalidEvent: 422,
    errors.InvalidStreamName: 422,
    errors.LimitExceeded: 413,
    errors.TenantRefused: 403,
    errors.TenantMissing: 403,
    errors.TransactionMissing: 500,
    errors.IsolationRefused: 500,
    errors.SchemaRefused: 500,
    errors.SchemaChanged: 500,
    errors.TokenError: 400,
    errors.InvalidToken: 400,
    errors.ForeignToken: 409,
    errors.StaleToken: 409,
    errors.NotCaughtUp: 504,
    errors.KeyParked: 409,
    errors.DefinitionError: 500,
    errors.EventDefinitionError: 500,
    errors.ViewDefinitionError: 500,
    errors.CommandDefinitionError: 500,
    errors.StateUnreadable: 500,
    errors.SubjectForgotten: 410,
    errors.SubjectUnknown: 404,
    errors.KeyUnavailable: 500,
    errors.LedgerBroken: 500,
    errors.InvalidMoment: 400,
    errors.JobDefinitionError: 500,
    errors.JobRefused: 422,
    errors.UnknownQueue: 404,
    errors.UnknownJob: 404,
    errors.SagaDefinitionError: 500,
    errors.UnknownSaga: 404,
    errors.SagaRefused: 409,
    errors.NotDeterministic: 500,
    errors.SagaFailed: 500,
    errors.StepRejected: 500,
    errors.StepFailed: 500,
    errors.WaitTimedOut: 500,
    errors.EndpointRefused: 422,
    errors.UnknownEndpoint: 404,
    errors.UnknownAlert: 404,
    errors.UnknownView: 404,
    errors.ViewStale: 503,
    errors.SourceChanged: 503,
    errors.RebuildInterrupted: 503,
    errors.UnknownInbox: 404,
    errors.ViewInUse: 409,
    errors.NothingKept: 409,
    errors.AccessTokenUnknown: 404,
    errors.CaptureRefused: 500,
    errors.AlreadyCaptured: 500,
    errors.UnknownCapture: 500,
    errors.TableBusy: 500,
    errors.CaptureStopped: 500,
    errors.RequestRefused: 400,
    errors.IdempotencyKeyMissing: 400,
    errors.RequestInFlight: 409,
    errors.BodyTooLarge: 413,
    errors.BodyTooSlow: 408,
    errors.MediaTypeRefused: 415,
    errors.MethodRefused: 405,
    errors.NothingHere: 404,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.RateExceeded: 429,
    errors.TooBusy: 503,
    errors.SettingError: 500,
    errors.DatabaseUnavailable: 503,
    errors.StoreUnavailable: 503,
    errors.StoreRefused: 500,
    errors.QueryRefused: 400,
    errors.ExtraMissing: 500,
    errors.TooManyConnections: 503,
    errors.DatabaseReadOnly: 503,
    errors.NotInitialized: 503,
    errors.MigrationError: 500,
    errors.RoleBypassesSecurity: 500,
    errors.RoleMissing: 500,
    errors.LeaseLost: 500,
    errors.EmbeddedPostgresError: 500,
}
"""Every error of the tree, each once."""

MEDIA_TYPE = "application/problem+json"
_encode = msgspec.json.Encoder().encode


class Problem(msgspec.Struct, omit_defaults=True):
    """Why a request was refused. ``code`` is stable; ``hint`` says what to do."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    hint: str | None = None
    event: int | None = None
    """Which event of a batch was at fault, counted from 0."""
    stream: str | None = None
    expected: int | None = None
    actual: int | None = None
    position: int | None = None


def status_of(error: HeadwaterError) -> int:
    """The status of an error, by its class."""
    return STATUS[type(error)]


def problem_of(error: HeadwaterError) -> Problem:
    """What a caller is told of an error. A fault of the installation is not spelt out."""
    status = status_of(error)
    title = (inspect.getdoc(type(error)) or "").strip()
    told = status != 500
    problem = Problem(
        type=f"urn:headwater:{error.code}",
        title=title,
        status=status,
        code=error.code,
        detail=error.message if told else "The installation is at fault; its log says more.",
        hint=error.hint if told else None,
        event=error.event,
    )
    if isinstance(error, errors.VersionConflict):
        problem.stream = error.stream or None
        problem.expected, problem.actual = error.expected, error.actual
    if isinstance(error, errors.KeyParked):
        problem.position = error.position
    return problem


def headers_of(error: HeadwaterError) -> dict[str, str]:
    """The headers that go with an error."""
    headers = {"Cache-Control": "no-store"}
    if isinstance(error, errors.Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="headwater"'
    if isinstance(error, errors.RateExceeded):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_seconds)))
    elif status_of(error) in {503, 504} or isinstance(error, errors.RequestInFlight):
        headers["Retry-After"] = "1"
    if isinstance(error, (errors.BodyTooLarge, errors.BodyTooSlow)):
        headers["Connection"] = "close"  # what is left of the body is not read
    return headers


def response_of(error: HeadwaterError) -> Response:
    """An error as a response."""
    problem = problem_of(error)
    return Response(_encode(problem), problem.status, headers_of(error), MEDIA_TYPE)
