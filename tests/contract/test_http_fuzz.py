"""The API against its own OpenAPI document: no request breaks it, every answer is as described."""

from __future__ import annotations

import asyncio

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from headwater.entrances.http import Limits
from tests.support.web import api

pytestmark = pytest.mark.postgres

EXAMPLES = 15


def fuzz(url, token):
    """Sends valid and invalid requests to every operation, and checks every answer."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    schema = schema.exclude(path_regex="^/v1/live/")  # they do not end
    schema.config.generation.modes = list(GenerationMode)
    count = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in GenerationMode:
            count += _fuzz(operation, mode, token)
    return count


def _fuzz(operation, mode, token):
    seen = []

    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    def holds(case):
        seen.append(case)
        # What fits the document may still not fit its event's type, which only the log knows.
        excluded = [positive_data_acceptance] if operation.method == "post" else []
        case.call_and_validate(headers={"Authorization": token}, excluded_checks=excluded)

    try:
        holds()
    except hypothesis.errors.Unsatisfiable:
        assert not seen  # what takes nothing cannot be asked wrongly
    return len(seen)


async def test_no_request_breaks_the_api_and_answers_are_as_described(database18):
    async with api(database18, limits=Limits(wait_seconds=1)) as client:
        url, token = client.server.url, client.headers["authorization"]
        sent = await asyncio.to_thread(fuzz, url, token)
        assert sent > 100
        codes = {status for _, status in client.server.service.requests}
        assert max(codes) < 500
