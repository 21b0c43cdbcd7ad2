"""The HTTP entrance: appending and reading, by a real client against a real server."""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

import pytest

from tests.support.web import CLOUD_EVENT, CLOUD_EVENTS, NDJSON, api, cloud, line, token_for

pytestmark = pytest.mark.postgres


@pytest.fixture
async def client(database18):
    async with api(database18) as client:
        yield client


async def everything(client):
    return (await client.get("/v1/events", params={"limit": 1000})).json()["events"]


async def append(client, *lines, **options):
    options.setdefault("headers", NDJSON)
    return await client.post("/v1/events", content=b"".join(lines), **options)


# Appending ---------------------------------------------------------------------------------------


async def test_lines_are_appended_together_and_read_by_the_token(client):
    answer = await append(client, line(1), line(2), line(1, "7", expected_version=1))
    assert answer.status_code == 201
    told = answer.json()
    assert [(e["version"]) for e in told["events"]] == [1, 1, 2]
    assert told["token"] == answer.headers["Headwater-Token"]
    row = await client.get("/v1/views/orders/1", params={"at_least": told["token"]})
    assert (row.status_code, row.json()) == (200, {"total": "12", "events": 2})
    by_header = await client.get("/v1/views/sales/1", headers={"Headwater-Token": told["token"]})
    assert by_header.json() == {"bucket": 1, "orders": 2, "total": "12"}


async def test_the_fields_of_a_line_are_those_of_append_many(client):
    event_id = str(uuid4())
    answer = await append(
        client,
        line(1, id=event_id, metadata={"actor": "ada"}, keys=["a"], occurred_at="2026-01-02T03:04:05Z",
             expected_version=0, schema_version=1),
    )  # fmt: skip
    assert answer.status_code == 201
    (event,) = (await client.get("/v1/streams/order/1")).json()["events"]
    assert (event["id"], event["metadata"], event["keys"]) == (event_id, {"actor": "ada"}, ["a"])
    assert event["occurred_at"] == "2026-01-02T03:04:05Z"
    assert event["data"] == {"order": "1", "total": "5"}


async def test_a_repeated_idempotency_key_answers_the_first_result(client):
    headers = NDJSON | {"Idempotency-Key": "k"}
    first = await append(client, line(1), line(2), headers=headers)
    again = await append(client, line(1), line(2), headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    places = [(e["position"], e["version"]) for e in first.json()["events"]]
    assert [(e["position"], e["version"]) for e in again.json()["events"]] == places
    assert all(e["duplicate"] for e in again.json()["events"])
    other = await append(client, line(3), headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_cloud_event_is_appended_once_by_source_and_id(client):
    event = cloud(1, "a-1", time="2026-01-02T03:04:05Z", traceparent="00-1", expectedversion=0)
    body = json.dumps(event)
    first = await client.post("/v1/events", content=body, headers=CLOUD_EVENT)
    again = await client.post("/v1/events", content=body, headers=CLOUD_EVENT)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["events"][0]["position"] == again.json()["events"][0]["position"]
    (stored,) = await _eventually(client, 1)
    assert stored["metadata"] == {"source": "urn:shop", "id": "a-1", "traceparent": "00-1"}
    assert stored["occurred_at"] == "2026-01-02T03:04:05Z"
    changed = json.dumps(event | {"data": {"order": "1", "total": "6"}})
    other = await client.post("/v1/events", content=changed, headers=CLOUD_EVENT)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_batch_of_cloud_events_skips_those_it_knows(client):
    ids = [str(uuid4()) for _ in range(3)]
    single = await client.post(
        "/v1/events", content=json.dumps(cloud(1, ids[0])), headers=CLOUD_EVENT
    )
    batch = json.dumps([*(cloud(n, i) for n, i in enumerate(ids, 1)), cloud(3, ids[2])])
    answer = await client.post("/v1/events", content=batch, headers=CLOUD_EVENTS)
    events = answer.json()["events"]
    assert answer.status_code == 201
    assert [e.get("duplicate", False) for e in events] == [True, False, False, True]
    assert events[0]["position"] == single.json()["events"][0]["position"]
    assert events[2]["position"] == events[3]["position"]
    again = await client.post("/v1/events", content=batch, headers=CLOUD_EVENTS)
    assert again.status_code == 200
    stored = await _eventually(client, 3)
    assert [e["id"] for e in stored] == ids


async def test_concurrent_batches_of_the_same_cloud_events_append_them_once(client):
    batches = [
        json.dumps([cloud(n % 5, f"e{n}", expectedversion=None) for n in order])
        for order in (range(40), reversed(range(40)), range(20, 60))
    ]
    answers = await asyncio.gather(
        *(client.post("/v1/events", content=b, headers=CLOUD_EVENTS) for b in batches * 2)
    )
    assert {a.status_code for a in answers} <= {200, 201}
    assert len(await _eventually(client, 60)) == 60


async def _eventually(client, count):
    """So many events, once they are published."""
    events, after = [], 0
    while len(events) < count:
        page = (await client.get("/v1/events", params={"after": after, "wait_seconds": 10})).json()
        assert page["events"]
        events, after = events + page["events"], page["next"]
    return events


# A batch is one transaction ----------------------------------------------------------------------

BAD_THIRD = {
    "broken JSON": (b'{"stream": "order/9", \n', 400, "request_refused"),
    "unknown field": (line(9, color="red"), 400, "request_refused"),
    "unknown type": (line(9).replace(b"order.placed", b"order.lost"), 422, "unknown_event_type"),
    "data that does not fit": (line(9).replace(b'"total"', b'"sum"'), 422, "invalid_event"),
    "another stream": (line(9).replace(b"order/9", b"order/8"), 422, "invalid_event"),
    "a malformed stream": (line(9).replace(b"order/9", b"order"), 422, "invalid_stream_name"),
    "a version conflict": (line(9, expected_version=4), 409, "version_conflict"),
    "deep nesting": (line(9, metadata={}).replace(b'"metadata":{}', b'"metadata":{"a":' + b"[" * 40 + b"]" * 40 + b"}"), 413, "limit_exceeded"),
    "very deep nesting": (b'{"stream":"order/9","type":"order.placed","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", 413, "limit_exceeded"),
    "NUL": (line(9, metadata={"a": "\x00"}), 422, "invalid_event"),
    "a number beyond Postgres": (line(9).replace(b'"5"', b"1e999999"), 422, "append_refused"),
}  # fmt: skip


async def test_one_bad_line_refuses_the_batch_and_is_named(client):
    for bad, (wrong, status, code) in BAD_THIRD.items():
        answer = await append(client, line(1), line(2), wrong, line(3))
        assert (answer.status_code, answer.json()["code"]) == (status, code), (bad, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert code == "append_refused" or answer.json()["event"] == 2, bad
        assert (await client.get("/v1/streams/order/1")).json()["events"] == [], bad


async def test_a_batch_of_cloud_events_leaves_nothing_behind_when_refused(client):
    bad = json.dumps([cloud(1, "a"), cloud(2, "b", total="much")])
    answer = await client.post("/v1/events", content=bad, headers=CLOUD_EVENTS)
    assert (answer.status_code, answer.json()["event"]) == (422, 1)
    good = json.dumps([cloud(1, "a"), cloud(2, "b")])
    assert (await client.post("/v1/events", content=good, headers=CLOUD_EVENTS)).status_code == 201


async def test_each_event_on_its_own_when_the_caller_asks(client):
    answer = await append(
        client,
        line(1), line(1, "6", expected_version=7), line(9).replace(b'"5"', b"1e999999"), line(1, "8"),
        params={"each": "true"},
    )  # fmt: skip
    assert answer.status_code == 207
    events = answer.json()["events"]
    assert [e.get("version") for e in events] == [1, None, None, 2]
    assert events[1]["problem"]["code"] == "version_conflict"
    assert (events[1]["problem"]["expected"], events[1]["problem"]["actual"]) == (7, 1)
    assert events[2]["problem"]["status"] == 422


REFUSED = {
    "no content type": ({}, b"{}", 415),
    "plain JSON": ({"Content-Type": "application/json"}, b"{}", 415),
    "another charset": ({"Content-Type": "application/x-ndjson; charset=latin1"}, line(1), 415),
    "compressed": (NDJSON | {"Content-Encoding": "gzip"}, line(1), 415),
    "empty": (NDJSON, b"\n\n", 400),
    "not UTF-8": (NDJSON, line(1).replace(b"5", b"\xff"), 400),
    "no array": (CLOUD_EVENTS, b"{}", 400),
    "empty array": (CLOUD_EVENTS, b"[]", 400),
    "no CloudEvent": (CLOUD_EVENT, b"{}", 400),
    "another CloudEvents version": (CLOUD_EVENT, json.dumps(cloud(1, "a", specversion="0.3")).encode(), 400),
    "binary data": (CLOUD_EVENT, json.dumps(cloud(1, "a", data_base64="AA==")).encode(), 400),
    "data that is no JSON": (CLOUD_EVENT, json.dumps(cloud(1, "a", datacontenttype="text/xml")).encode(), 400),
    "an extension that is no scalar": (CLOUD_EVENT, json.dumps(cloud(1, "a", more={"a": 1})).encode(), 400),
    "two identities": (CLOUD_EVENT | {"Idempotency-Key": "k"}, json.dumps(cloud(1, "a")).encode(), 400),
    "a malformed key": (NDJSON | {"Idempotency-Key": "k" * 256}, line(1), 400),
}  # fmt: skip


async def test_what_cannot_be_read_is_refused_and_leaves_nothing(client):
    for what, (headers, body, status) in REFUSED.items():
        answer = await client.post("/v1/events", content=body, headers=headers)
        assert answer.status_code == status, (what, answer.text)
        assert answer.json()["detail"], what
    assert await everything(client) == []


# Reading -----------------------------------------------------------------------------------------


async def test_events_are_read_in_pages_in_order(client):
    receipt = (await append(client, *(line(n) for n in range(5)))).json()
    page = await client.get("/v1/events", params={"limit": 3, "at_least": receipt["token"]})
    rest = await client.get(page.links["next"]["url"])
    places = [e["position"] for e in [*page.json()["events"], *rest.json()["events"]]]
    assert places == [e["position"] for e in receipt["events"]]
    after = {"after": rest.json()["next"]}
    assert (await client.get("/v1/events", params=after)).json()["events"] == []
    none = await client.get("/v1/events", params={"type": "order.voided"})
    assert none.json()["events"] == []
    lines = await client.get("/v1/events", headers={"Accept": "application/x-ndjson"})
    assert [json.loads(text)["position"] for text in lines.text.splitlines()] == places
    assert lines.headers["Headwater-Next"] == str(rest.json()["next"])


async def test_a_read_waits_for_an_event_when_it_is_asked_to(client):
    waiting = asyncio.create_task(client.get("/v1/events", params={"wait_seconds": 20}))
    receipt = (await append(client, line(1))).json()
    (event,) = (await waiting).json()["events"]
    assert event["position"] == receipt["events"][0]["position"]


async def test_a_stream_is_read_in_pages_by_version(client):
    await append(
        client, *(line("a b", str(n)) for n in ()), *(line("ä/1", str(n)) for n in range(3))
    )
    page = await client.get("/v1/streams/order/ä/1", params={"limit": 2})
    assert [e["version"] for e in page.json()["events"]] == [1, 2]
    rest = await client.get(page.links["next"]["url"])
    assert [e["version"] for e in rest.json()["events"]] == [3]
    assert (await client.get("/v1/streams/order/none")).json()["events"] == []


async def test_views_are_listed_with_how_far_they_are(client):
    token = (await append(client, line(1))).json()["token"]
    await client.get("/v1/views/totals/", params={"at_least": token})
    listed = (await client.get("/v1/views")).json()["views"]
    assert [(v["name"], v["kind"], v["key"], v["status"]) for v in listed] == [
        ("orders", "fold", ["order"], "current"),
        ("sales", "sql", ["bucket"], "current"),
        ("totals", "sql", [], "current"),
        ("by_events", "sql", ["bucket"], "current"),
    ]
    assert (await client.get("/v1/views/totals/")).json() == {"orders": 1}


async def test_a_view_is_read_in_pages_and_its_keys_open_its_rows(client):
    token = (await append(client, *(line(n) for n in range(25)))).json()["token"]
    for view, rows in {"orders": 25, "sales": 10, "totals": 1}.items():
        seen, after = [], {}
        while True:
            params = {"limit": 4, "at_least": token, **after}
            page = (await client.get(f"/v1/views/{view}", params=params)).json()
            seen += page["rows"]
            if page["next"] is None:
                break
            after = {"after": page["next"]}
        assert len({row["key"] for row in seen}) == len(seen) == rows
        for row in seen[:3]:
            assert (await client.get(f"/v1/views/{view}/{row['key']}")).json() == row["row"]


async def test_a_row_has_a_tag_that_changes_when_it_does(client):
    token = (await append(client, line(1))).json()["token"]
    row = await client.get("/v1/views/orders/1", params={"at_least": token})
    known = {"If-None-Match": row.headers["ETag"]}
    same = await client.get("/v1/views/orders/1", headers=known)
    assert (same.status_code, same.content) == (304, b"")
    token = (await append(client, line(1))).json()["token"]
    changed = await client.get("/v1/views/orders/1", headers=known, params={"at_least": token})
    assert (changed.status_code, changed.json()["events"]) == (200, 2)
    assert changed.headers["ETag"] != row.headers["ETag"]


async def test_keys_with_any_characters_are_found(client):
    keys = ["a,b", "a/b", "%", "ü", "a?b#c", ".."]
    token = (await append(client, *(line(key) for key in keys))).json()["token"]
    page = (await client.get("/v1/views/orders", params={"at_least": token})).json()
    assert len(page["rows"]) == len(keys)
    for row in page["rows"]:
        answer = await client.get(f"/v1/views/orders/{row['key']}")
        assert answer.status_code == 200, row


async def test_a_read_before_its_time_fails_clearly(database18):
    async with api(database18, relay=False) as client:
        token = (await append(client, line(1))).json()["token"]
        wait = {"at_least": token, "timeout_seconds": 0.05}
        for path in ("/v1/views/orders/1", "/v1/views/orders", "/v1/events"):
            answer = await client.get(path, params=wait)
            assert (answer.status_code, answer.json()["code"]) == (504, "not_caught_up")
        log, epoch, _ = token.split(".")
        stale = await client.get("/v1/events", params={"at_least": f"{log}.{int(epoch) + 1}.1"})
        foreign = await client.get("/v1/events", params={"at_least": f"00000000.{epoch}.1"})
        assert (stale.status_code, foreign.status_code) == (409, 409)


WRONG = {
    "/v1/events?colour=red": 400,
    "/v1/events?after=x": 400,
    "/v1/events?after=-1": 400,
    "/v1/events?after=1&after=2": 400,
    "/v1/events?limit=0": 400,
    "/v1/events?limit=1001": 400,
    "/v1/events?at_least=yesterday": 400,
    "/v1/events?type=": 400,
    "/v1/views/nowhere": 404,
    "/v1/views/nowhere/1": 404,
    "/v1/views/orders/none": 404,
    "/v1/views/orders/%00": 404,
    "/v1/views/orders/%ff": 400,
    "/v1/views/sales/word": 400,
    "/v1/views/sales/99999999999999999999": 400,
    "/v1/views/sales/1,2": 400,
    "/v1/views/sales?after=word": 400,
    "/v1/nowhere": 404,
    "/nothing": 404,
}


async def test_mistakes_in_reads_are_explained(client):
    for path, status in WRONG.items():
        answer = await client.get(path)
        assert answer.status_code == status, (path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]
    refused = await client.delete("/v1/events")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "POST, GET, HEAD")


# Tenants and tokens ------------------------------------------------------------------------------


async def test_a_token_opens_one_tenant_only(client):
    _, other = await token_for(client, "other")
    mine = (await append(client, line(1))).json()["token"]
    theirs = await append(client, line(1), line(2), headers=NDJSON | other)
    token = theirs.json()["token"]
    for headers, at_least, count in (({}, mine, 1), (other, token, 2)):
        wait = {"at_least": at_least}
        events = (await client.get("/v1/events", params=wait, headers=headers)).json()["events"]
        assert len(events) == count
        total = await client.get("/v1/views/totals/", params=wait, headers=headers)
        assert total.json() == {"orders": count}
        rows = (await client.get("/v1/views/orders", params=wait, headers=headers)).json()["rows"]
        assert len(rows) == count
    assert (await client.get("/v1/views/orders/2")).status_code == 404
    assert (await client.get("/v1/streams/order/2")).json()["events"] == []


async def test_scopes_say_what_a_token_may_do(client):
    _, append_only = await token_for(client, scopes=["append"])
    _, read_only = await token_for(client, scopes=["read"])
    _, operate = await token_for(client, None, scopes=["operate"])
    for headers, may in ((append_only, "append"), (read_only, "read"), (operate, "operate")):
        appended = await append(client, line(1), headers=NDJSON | headers)
        read = await client.get("/v1/events", headers=headers)
        metrics = await client.get("/metrics", headers=headers)
        assert appended.status_code == (201 if may == "append" else 403)
        assert read.status_code == (200 if may == "read" else 403)
        assert metrics.status_code == (200 if may == "operate" else 403)


async def test_without_a_valid_token_nothing_is_answered(client):
    made, good = await token_for(client)
    expired, _ = await token_for(client, seconds=-1)
    wrong = f"{made.text[:-2]}{'aa' if made.text[-2:] != 'aa' else 'bb'}"
    for authorization in (
        None, "", "Basic YTpi", "Bearer", "Bearer hw_x", f"Bearer {wrong}", f"Bearer {expired.text}",
        f"Bearer hw_{'0' * 12}_{made.secret}",
    ):  # fmt: skip
        client.headers.pop("Authorization", None)
        headers = {} if authorization is None else {"Authorization": authorization}
        answer = await client.get("/v1/events", headers=headers)
        assert answer.status_code == 401, authorization
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert "hw_" not in answer.text.replace("hw_...", "").replace("hw_ID_SECRET", "")
    assert (await client.get("/v1/events", headers=good)).status_code == 200


async def test_what_monitors_ask(client):
    bare = {"Authorization": ""}
    assert (await client.get("/healthz", headers=bare)).status_code == 200
    ready = await client.get("/readyz", headers=bare)
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    assert (await client.get("/metrics", headers=bare)).status_code == 401
    metrics = (await client.get("/metrics")).text
    assert "headwater_safe_position" in metrics
    assert 'headwater_http_requests_total{operation="healthz",status="200"} 1' in metrics
    findings = (await client.get("/v1/doctor")).json()
    assert {f["check"] for f in findings} >= {"order", "relays"}


async def test_not_ready_when_the_database_is_older(database18):
    async with api(database18, relay=False) as client:
        with database18.admin() as admin:
            admin.execute("DELETE FROM headwater.migrations WHERE number > 6")
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["ready"]) == (503, False)
