"""Endpoints of an application's own that do what they are asked once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from headwater.entrances.asgi import Idempotency, refusals
from headwater.operations.migrate import admit_application
from tests.contract.test_commands import Deposited, NoFunds, Withdraw, bank
from tests.support.idempotent_shop import api_of
from tests.support.web import shop_app

pytestmark = pytest.mark.postgres

DRIVERS = ["asyncpg", "psycopg", "sqlalchemy", "blocking"]
ORDER = {"order": "1", "total": "9.50"}


@pytest.fixture
async def url(database18):
    """The application's own login."""
    with database18.admin() as admin:
        if not admin.execute("SELECT FROM pg_roles WHERE rolname = 'shop'").fetchall():
            admin.execute("CREATE ROLE shop LOGIN")
    await admit_application(database18.admin_url, "shop")
    async with shop_app(database18, tenant="main") as app:
        await app.deploy()
    return database18.server.postgres.url(database18.name, user="shop")


@asynccontextmanager
async def client_of(api):
    transport = httpx.ASGITransport(api)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        yield client


@pytest.fixture
async def client(url):
    async with client_of(api_of(url)) as client:
        yield client


def key(text, caller="ada"):
    return {"Idempotency-Key": text, "Authorization": caller}


def placed(database):
    """The orders placed, as the log has them."""
    with database.admin() as admin:
        rows = admin.execute("SELECT data->>'order' FROM headwater.events ORDER BY position")
        return [row[0] for row in rows.fetchall()]


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_request_that_comes_again_is_given_the_first_answer(client, database18, driver):
    first = await client.post(f"/{driver}", json=ORDER, headers=key("a"))
    again = await client.post(f"/{driver}", json=ORDER, headers=key('"a"'))
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["content-type"] == first.headers["content-type"]
    assert placed(database18) == ["1"]


async def test_keys_are_their_callers_own(client, database18):
    for caller in ("ada", "bob"):
        answer = await client.post("/psycopg", json=ORDER, headers=key("a", caller))
        assert answer.status_code == 201
    assert placed(database18) == ["1", "1"]


async def test_another_request_under_a_key_is_refused(client, database18):
    await client.post("/psycopg", json=ORDER, headers=key("a"))
    for path, body in (("/psycopg", ORDER | {"total": "1"}), ("/asyncpg", ORDER)):
        answer = await client.post(path, json=body, headers=key("a"))
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
        assert answer.headers["content-type"] == "application/problem+json"
    assert placed(database18) == ["1"]


async def test_a_key_is_required_and_well_formed(client, database18):
    missing = await client.post("/psycopg", json=ORDER)
    assert (missing.status_code, missing.json()["code"]) == (400, "idempotency_key_missing")
    for text in ("", "a b", "x" * 201, '"'):
        answer = await client.post("/psycopg", json=ORDER, headers={"Idempotency-Key": text})
        assert (answer.status_code, answer.json()["code"]) == (400, "request_refused"), text
    assert (await client.post("/optional", json=ORDER)).status_code == 200
    assert placed(database18) == ["1"]


async def test_a_request_under_way_is_told_so(url, database18):
    held, go = asyncio.Event(), asyncio.Event()

    async def gate():
        held.set()
        await go.wait()

    async with client_of(api_of(url, gate)) as client:
        first = asyncio.create_task(client.post("/psycopg", json=ORDER, headers=key("a")))
        await held.wait()
        second = await client.post("/psycopg", json=ORDER, headers=key("a"))
        assert (second.status_code, second.json()["code"]) == (409, "request_in_flight")
        assert second.headers["retry-after"] == "1"
        go.set()
        assert (await first).status_code == 201
        assert (await client.post("/psycopg", json=ORDER, headers=key("a"))).status_code == 201
    assert placed(database18) == ["1"]


async def test_what_left_no_facts_runs_again(client, database18):
    refused = await client.post("/psycopg", json=ORDER | {"note": "refuse"}, headers=key("a"))
    assert refused.status_code == 418
    assert (await client.post("/psycopg", json=ORDER, headers=key("a"))).status_code == 201
    assert placed(database18) == ["1"]


async def test_a_key_is_derived_from_chosen_fields(client, database18):
    first = await client.post("/derived", json=ORDER | {"note": "x"})
    again = await client.post("/derived", json={"note": "y", "total": "9.50", "order": "1"})
    other = await client.post("/derived", json=ORDER | {"order": "2"})
    # Another note is another request under the same key.
    assert (first.status_code, again.status_code, other.status_code) == (201, 422, 201)
    same = await client.post("/derived", json=ORDER | {"note": "x"})
    assert same.headers["location"] == first.headers["location"] == "/orders/1"
    missing = await client.post("/derived", json={"order": "1"})
    assert (missing.status_code, missing.json()["code"]) == (400, "request_refused")
    assert placed(database18) == ["1", "2"]


async def test_a_key_expires(client, database18):
    await client.post("/psycopg", json=ORDER, headers=key("a"))
    with database18.admin() as admin:
        admin.execute("UPDATE headwater.idempotency SET expires_at = now() - interval '2 minutes'")
    again = await client.post("/psycopg", json=ORDER, headers=key("a"))
    assert "idempotent-replayed" not in again.headers
    assert placed(database18) == ["1", "1"]


async def test_many_at_once_leave_one_fact(client, database18):
    answers = await asyncio.gather(
        *(client.post("/sqlalchemy", json=ORDER, headers=key("a")) for _ in range(12))
    )
    statuses = {answer.status_code for answer in answers}
    assert statuses <= {201, 409}
    assert 201 in statuses
    assert placed(database18) == ["1"]


@pytest.mark.parametrize(
    ("point", "facts"), [("claimed", 0), ("appended", 0), ("settled", 0), ("committed", 1)]
)
async def test_a_crash_anywhere_between_claim_and_answer(url, database18, point, facts):
    """Promise 1 at the entrance: the retry finds nothing done, or all of it and the first answer."""
    async with served(url, point) as client:
        with pytest.raises(httpx.TransportError):
            await client.post("/sqlalchemy", json=ORDER, headers=key("a"))
    assert len(placed(database18)) == facts
    async with served(url, "") as client:
        answer = await client.post("/sqlalchemy", json=ORDER, headers=key("a"))
        assert answer.status_code == 201
        assert answer.json()["order"] == "1"
        assert ("idempotent-replayed" in answer.headers) == bool(facts)
    assert placed(database18) == ["1"]


async def test_a_command_behind_a_key_is_decided_once(database):
    async with bank(database) as app:
        await app.deploy()
        await app.append(Deposited("a", 10))
        async with client_of(withdrawing(app)) as client:
            first = await client.post("/a/withdrawals", json={"amount": 4}, headers=key("k"))
            again = await client.post("/a/withdrawals", json={"amount": 4}, headers=key("k"))
            assert (first.status_code, again.status_code) == (201, 201)
            assert (first.json(), "idempotent-replayed" in again.headers) == (again.json(), True)
            many = await asyncio.gather(
                *(
                    client.post("/a/withdrawals", json={"amount": 2}, headers=key(f"k{n}"))
                    for n in range(8)
                )
            )
            assert sorted(answer.status_code for answer in many) == [201] * 3 + [409] * 5
            refused = next(a for a in many if a.status_code == 409)
            assert refused.json() == {"balance": 0}
            await app.append(Deposited("a", 2))
            name = refused.request.headers["Idempotency-Key"]
            later = await client.post("/a/withdrawals", json={"amount": 2}, headers=key(name))
            assert later.status_code == 201  # what left no facts was not kept
        assert len(await app.log.stream("account/a", tenant="main")) == 7


@pytest.mark.parametrize(("point", "facts"), [("decided", 0), ("settled", 0), ("committed", 1)])
async def test_a_command_killed_between_decision_and_answer(database18, point, facts):
    async with bank(database18) as app:
        await app.deploy()
        await app.append(Deposited("a", 10))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _KILLED.format(point=point),
            env=os.environ | {"HEADWATER_TEST_URL": database18.url, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL
        assert len(await app.log.stream("account/a", tenant="main")) == 1 + facts
        async with client_of(withdrawing(app)) as client:
            again = await client.post("/a/withdrawals", json={"amount": 8}, headers=key("k"))
            assert again.status_code == 201
            assert ("idempotent-replayed" in again.headers) == bool(facts)
        (_, withdrawn) = await app.log.stream("account/a", tenant="main")
        assert again.json()["token"].endswith(f".{withdrawn.position}")


_KILLED = """
import asyncio, os, signal
from headwater.commands.deciding import Deciding
from headwater.entrances.asgi import idempotency
from tests.contract.test_commands import bank
from tests.contract.test_idempotent_api import client_of, key, withdrawing

class Database: url = os.environ["HEADWATER_TEST_URL"]

def dying(called):
    async def call(*given, **named):
        await called(*given, **named)
        os.kill(os.getpid(), signal.SIGKILL)
    return call

point = "{point}"
if point == "decided":
    idempotency.decide_within = dying(idempotency.decide_within)
elif point == "settled":
    idempotency.Once.settle = dying(idempotency.Once.settle)
else:
    Deciding.again = dying(Deciding.again)

async def main():
    async with bank(Database) as app, client_of(withdrawing(app)) as client:
        await client.post("/a/withdrawals", json={{"amount": 8}}, headers=key("k"))

asyncio.run(main())
"""


def withdrawing(app):
    once = Idempotency(tenant="main")

    def told(outcome):
        if isinstance(outcome, NoFunds):
            return JSONResponse({"balance": outcome.balance}, 409)
        return {"token": str(outcome.token)}

    async def withdraw(request):
        amount = (await request.json())["amount"]
        claimed = await once(request)
        command = Withdraw(request.path_params["account"], amount)
        return await claimed.do(app, command, told, status=201)

    routes = [Route("/{account}/withdrawals", withdraw, methods=["POST"])]
    return Starlette(routes=routes, exception_handlers=refusals())


@asynccontextmanager
async def served(url, point):
    """The application in a process of its own, which dies at a point."""
    environment = os.environ | {
        "HEADWATER_TEST_URL": url,
        "HEADWATER_TEST_DIE": point,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.idempotent_shop",
        env=environment, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        port = int(await process.stdout.readline())
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            yield client
    finally:
        if process.returncode is None and not point:
            process.terminate()
        ended = await asyncio.wait_for(process.wait(), 60)
    if point:
        assert ended == -signal.SIGKILL


async def test_a_key_whose_time_is_over_keeps_a_new_answer(client, database18):
    """Before the hourly purge too: the old answer is nobody's answer to the new request."""
    await client.post("/psycopg", json=ORDER, headers=key("a"))
    with database18.admin() as admin:
        admin.execute("UPDATE headwater.idempotency SET expires_at = now() - interval '1 s'")
    for replayed in (None, "true"):
        answer = await client.post("/psycopg", json={"order": "2", "total": "3"}, headers=key("a"))
        assert (answer.status_code, answer.json()["order"]) == (201, "2")
        assert answer.headers.get("idempotent-replayed") == replayed
    assert placed(database18) == ["1", "2"]


@pytest.mark.parametrize(
    "value", [b'"\xff"', b'"\\ud800"', b"[" * 5000 + b"]" * 5000], ids=["bytes", "half", "deep"]
)
async def test_a_body_that_is_no_json_derives_no_key(client, value):
    answer = await client.post("/derived", content=b'{"order": %b, "total": "1"}' % value)
    assert answer.status_code in {400, 422}
