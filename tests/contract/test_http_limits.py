"""The limits of the HTTP entrance, each pushed against."""

from __future__ import annotations

import asyncio
import json
import resource

import pytest

from headwater.entrances.http import Limits, listen
from headwater.entrances.http.problems import STATUS
from headwater.errors import HeadwaterError, SettingError
from headwater.rates.rate import Rate
from tests.support.web import NDJSON, api, line, token_for

pytestmark = pytest.mark.postgres

SMALL = Limits(
    body_bytes=2_000,
    body_seconds=0.2,
    header_bytes=2_000,
    header_seconds=0.3,
    batch_events=5,
    nesting=4,
    requests_per_second=0.5,
    request_burst=30,
    token_cache_seconds=0.05,
)


async def test_a_process_may_hold_the_connections_that_it_offers(database18):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        async with api(database18, relay=False, limits=Limits(connections=2000)):
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(2000, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def raw(client, *parts, close=False):
    """Sends bytes as they are; what comes back until the server closes."""
    url = client.server.url.removeprefix("http://")
    host, port = url.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for part in parts:
        writer.write(part)
        await writer.drain()
    if close:
        writer.close()
        return b""
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    return answer


async def test_sizes_and_times(database18):
    async with api(database18, relay=False, limits=SMALL) as client:
        many = await client.post("/v1/events", content=line(1) * 6, headers=NDJSON)
        assert (many.status_code, many.json()["code"]) == (413, "limit_exceeded")
        large = await client.post("/v1/events", content=line(1) * 100, headers=NDJSON)
        assert (large.status_code, large.json()["code"]) == (413, "body_too_large")
        deep = line(1, metadata={"a": [[[["b"]]]]})
        assert (await client.post("/v1/events", content=deep, headers=NDJSON)).status_code == 413
        flat = line(1, metadata={"a": [[["]]]]{{{{"]], {}, [], {}, []]})
        assert (await client.post("/v1/events", content=flat, headers=NDJSON)).status_code == 201

        head = (
            f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: {client.headers['authorization']}\r\n"
            "Content-Type: application/x-ndjson\r\nContent-Length: 100\r\n\r\n"
        ).encode()
        chunk = b"1f4\r\n" + b" " * 500 + b"\r\n"
        chunked = head.replace(b"Content-Length: 100", b"Transfer-Encoding: chunked")
        assert b" 413 " in await raw(client, chunked, *[chunk] * 5)
        slow = await raw(client, head, b'{"stream"')
        assert b" 408 " in slow
        assert b"body_too_slow" in slow
        assert await raw(client, b"GET / HTTP/1.1\r\nHost:") == b""
        assert await raw(client, b"") == b""
        assert await raw(client, b"GET / HTTP/1.1\r\nX: " + b"x" * 3_000) == b""
        await raw(client, head, b'{"stream"', close=True)
        assert (await client.get("/healthz")).status_code == 200


async def test_a_token_that_comes_too_often_is_told_when_to_come_again(database18):
    async with api(database18, relay=False, limits=SMALL) as client:
        answers = [await client.get("/v1/views") for _ in range(40)]
        assert [a.status_code for a in answers] == [200] * 30 + [429] * 10
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert answers[0].headers["RateLimit"] == '"requests";r=29;t=1'
        assert answers[0].headers["RateLimit-Policy"] == '"requests";q=30;w=60'
        _, other = await token_for(client)
        assert (await client.get("/v1/views", headers=other)).status_code == 200


async def test_a_revoked_token_ends_within_the_stated_window(database18):
    from headwater.operations.access import revoke_token, rotate_token

    async with api(database18, relay=False, limits=SMALL) as client:
        made, headers = await token_for(client)
        operator = client.app.database("headwater_operator")
        assert (await client.get("/v1/views", headers=headers)).status_code == 200
        fresh = await rotate_token(operator, made.id, overlap_seconds=3600)
        both = (headers, {"Authorization": f"Bearer {fresh.text}"})
        assert [(await client.get("/v1/views", headers=h)).status_code for h in both] == [200, 200]
        await revoke_token(operator, made.id)
        async with asyncio.timeout(60):
            while (await client.get("/v1/views", headers=headers)).status_code != 401:
                await asyncio.sleep(SMALL.token_cache_seconds)
        assert (await client.get("/v1/views", headers=both[1])).status_code == 200


def tree(error=HeadwaterError):
    yield error
    for below in error.__subclasses__():
        yield from tree(below)


def test_every_error_has_a_status():
    assert set(STATUS) == {e for e in tree() if e.__module__ == "headwater.errors"}


def test_the_rate_lets_so_many_at_once_and_then_so_many_a_second():
    rate = Rate(per_second=10, burst=5)
    assert [rate.take("a", 100.0) > 0 for _ in range(6)] == [False] * 5 + [True]
    assert rate.take("b", 100.0) == 0
    assert rate.take("a", 100.0) == pytest.approx(0.1)
    assert rate.take("a", 100.1) == 0
    assert rate.left("a", 110.0) == 5


def test_an_address_that_cannot_be_listened_on_is_explained():
    bound = listen("127.0.0.1:0")
    taken = bound.getsockname()[1]
    for address in ("", "8470", "127.0.0.1:", "127.0.0.1:99999", "no.such.host.invalid:1", f"127.0.0.1:{taken}"):  # fmt: skip
        with pytest.raises(SettingError) as refused:
            listen(address)
        assert refused.value.hint
    bound.close()


async def test_the_document_is_that_of_the_routes(database18):
    async with api(database18, relay=False) as client:
        document = (await client.get("/openapi.json", headers={"Authorization": ""})).json()
        assert document["openapi"] == "3.1.0"
        assert set(document["paths"]) >= {
            "/v1/events",
            "/v1/streams/{stream}",
            "/v1/views/{name}/{key}",
        }
        assert json.dumps(document).count("additionalProperties") >= 1
