"""Traces by OpenTelemetry, where the application has it.

An application that traces has imported ``opentelemetry.trace`` before; one that has not pays a lookup and
nothing else. What Headwater appends carries the span in its metadata, as a W3C traceparent, so views link
their batches to it, in whatever process they run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

Kind = Literal["internal", "server", "producer", "consumer"]
MAX_LINKS = 32
"""How many traces a span links to at most."""


def enabled() -> bool:
    """Whether the application traces."""
    api = _api()
    if api is None:
        return False
    return not isinstance(
        api.get_tracer_provider(), (api.NoOpTracerProvider, api.ProxyTracerProvider)
    )


@contextmanager
def span(
    name: str,
    kind: Kind = "internal",
    *,
    parent: Mapping[str, str] | None = None,
    links: Sequence[str] = (),
    **attributes: str | float,
) -> Iterator[None]:
    """A span around what happens in the block, below the headers of ``parent`` or the span of now.

    ``links`` are traceparents; attributes are named ``headwater.…``. An exception is recorded, and passes.
    """
    api = _api()
    if api is None or not enabled():
        yield
        return
    told = {f"headwater.{key}": value for key, value in attributes.items()}
    context = None if parent is None else _propagator().extract(dict(parent))
    with api.get_tracer("headwater").start_as_current_span(
        name,
        context=context,
        kind=getattr(api.SpanKind, kind.upper()),
        attributes=told,
        links=[link for text in links[:MAX_LINKS] if (link := _link(api, text)) is not None],
    ):
        yield


def traceparent() -> str | None:
    """The span of now, None where there is none."""
    api = _api()
    if api is None or not api.get_current_span().get_span_context().is_valid:
        return None
    carrier: dict[str, str] = {}
    _propagator().inject(carrier)
    return carrier.get("traceparent")


def _api() -> Any:
    return sys.modules.get("opentelemetry.trace")


def _propagator() -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator()


def _link(api: Any, text: str) -> Any:
    context = _propagator().extract({"traceparent": text})
    found = api.get_current_span(context).get_span_context()
    return api.Link(found) if found.is_valid else None
