"""What events carry from where they are appended: who acts, what led to it, which trace it is part of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from headwater.events import Recorded
from headwater.log.tracing import traceparent

_carried: ContextVar[Mapping[str, Any] | None] = ContextVar("headwater_carried", default=None)


@contextmanager
def carrying(**metadata: Any) -> Iterator[None]:
    """Every append in the block carries this metadata, unless it says otherwise itself.

    ``with carrying(actor="ada", correlation=request_id):``
    """
    token = _carried.set({**(_carried.get() or {}), **metadata})
    try:
        yield
    finally:
        _carried.reset(token)


@contextmanager
def caused_by(recorded: Recorded[Any]) -> Iterator[None]:
    """Every append in the block says that it follows from an event, and belongs to the same correlation."""
    correlation = recorded.metadata.get("correlation", str(recorded.id))
    with carrying(cause={"position": recorded.position}, correlation=correlation):
        yield


def carried(explicit: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """An append's metadata with what it carries."""
    around, trace = _carried.get(), traceparent()
    if around is None and trace is None:
        return explicit
    return {**({} if trace is None else {"trace": trace}), **(around or {}), **(explicit or {})}
