"""What events carry from where they are appended, and traces from a request to the views."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from headwater import carrying, caused_by
from headwater.testing.driving import drive, publish
from tests.contract.test_commands import Deposited, Withdraw, bank
from tests.contract.test_derived_events import Spent, cards_app
from tests.contract.test_http import append
from tests.support.web import NDJSON, api, line

pytestmark = pytest.mark.postgres

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans(monkeypatch):
    """Whatever is traced during the test."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


def named(spans, name):
    return [span for span in spans.get_finished_spans() if span.name == name]


async def metadata(app, stream):
    return [recorded.metadata for recorded in await app.log.stream(stream, tenant="main")]


async def test_appends_carry_what_is_said_around_them(database18):
    async with bank(database18) as app:
        await app.deploy()
        with carrying(actor="ada", correlation="r-1"):
            await app.append(Deposited("a", 10))
            with carrying(actor="bob"):
                await app.do(Withdraw("a", 1), metadata={"reason": "rent"})
        await app.append(Deposited("a", 10))
        assert await metadata(app, "account/a") == [
            {"actor": "ada", "correlation": "r-1"},
            {"actor": "bob", "correlation": "r-1", "reason": "rent"},
            {},
        ]


async def test_what_follows_from_an_event_says_so(database18):
    async with bank(database18) as app:
        await app.deploy()
        await app.append(Deposited("a", 10))
        (first,) = await app.log.stream("account/a", tenant="main")
        with caused_by(first):
            await app.append(Deposited("b", 10))
        (second,) = await app.log.stream("account/b", tenant="main")
        told = {"cause": {"position": first.position}, "correlation": str(first.id)}
        assert second.metadata == told
        with caused_by(second):
            await app.append(Deposited("c", 10))
        (third,) = await metadata(app, "account/c")
        assert third == {"cause": {"position": second.position}, "correlation": str(first.id)}


async def test_derived_events_belong_to_the_same_correlation(database18):
    async with cards_app(database18) as app:
        await app.deploy()
        with carrying(correlation="r-1"):
            await app.append(Spent("c", 100))
        await publish(app)
        await drive(app, app.stored("crossings"), 1)
        (crossed,) = await metadata(app, "alert/c")
        assert crossed["correlation"] == "r-1"
        assert crossed["cause"]["view"] == "crossings"


async def test_a_trace_goes_from_a_request_to_the_views(database18, spans):
    async with api(database18) as client:
        answer = await append(client, line(1), headers=NDJSON | {"traceparent": PARENT})
        await client.get("/v1/views/orders/1", params={"at_least": answer.json()["token"]})
        (recorded,) = await client.app.log.stream("order/1", tenant="main")
        async with asyncio.timeout(60):
            while not any(span.links for span in named(spans, "view orders")):
                await asyncio.sleep(0.01)
    (request,) = named(spans, "POST /v1/events")
    assert f"{request.context.trace_id:032x}" == PARENT.split("-")[1]
    assert recorded.metadata["trace"].split("-")[1] == PARENT.split("-")[1]
    linked = [link for span in named(spans, "view orders") for link in span.links]
    assert [link.context.span_id for link in linked] == [request.context.span_id]
    batch = next(span for span in named(spans, "view orders") if span.links)
    assert (
        batch.attributes["headwater.upto"]
        >= recorded.position
        > batch.attributes["headwater.after"]
    )


async def test_a_command_is_a_span_and_its_events_belong_to_it(database18, spans):
    async with bank(database18) as app:
        await app.deploy()
        await app.append(Deposited("a", 10))
        await app.do(Withdraw("a", 1))
        (span,) = named(spans, "command withdraw")
        untraced, traced = await metadata(app, "account/a")
        assert untraced == {}
        assert int(traced["trace"].split("-")[2], 16) == span.context.span_id
