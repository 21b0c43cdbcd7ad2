"""HTTP as its users meet it: `headwater up` in a process of its own, and tokens by the command line."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from contextlib import asynccontextmanager

import httpx
import pytest

from headwater.entrances.http import asgi
from tests.acceptance.test_cli import SECONDS, CommandLine
from tests.support.web import NDJSON, api, line

pytestmark = pytest.mark.postgres


@pytest.fixture
def headwater(database18):
    return CommandLine(database18.url)


@pytest.fixture
def served(headwater):
    """`headwater up` on a free port, and a client with its local token."""
    process = subprocess.Popen(
        headwater.command("up", "--http", "127.0.0.1:0"),
        env=headwater.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert "driving" in process.stdout.readline(), process.stderr.read()
        url = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())[0]
        token = re.search(r"hw_\w{12}_[\w-]{43}", process.stdout.readline())[0]
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=url, headers=headers, timeout=SECONDS) as client:
            client.process = process
            yield client
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(SECONDS)
        finally:
            process.kill()
            process.communicate()


def test_up_serves_what_it_drives_and_ends_on_sigint(served):
    receipt = served.post("/v1/events", content=line(1), headers=NDJSON).json()
    row = served.get(
        "/v1/views/orders/1", params={"at_least": receipt["token"], "timeout_seconds": 30}
    )
    assert row.json() == {"total": "5", "events": 1}
    assert served.get("/readyz").json()["ready"]
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(SECONDS) == 130
    assert "Traceback" not in served.process.stderr.read()


def test_a_token_is_created_listed_rotated_and_revoked(served, headwater):
    def status(token):
        return served.get("/v1/events", headers={"Authorization": f"Bearer {token}"}).status_code

    made = headwater.json("token", "create", "shop front", "--scope", "read", "--days", "30")
    assert status(made["token"]) == 200
    (listed,) = headwater.json("token", "list")
    assert (listed["id"], listed["name"], listed["scopes"]) == (made["id"], "shop front", "read")
    assert (listed["tenant"], listed["status"]) == ("main", "valid")
    assert made["token"] not in headwater("token", "list").stdout
    fresh = headwater.json("token", "rotate", made["id"], "--overlap-hours", "1")
    assert [status(made["token"]), status(fresh["token"])] == [200, 200]
    assert "is revoked" in headwater("token", "revoke", fresh["id"]).stdout
    assert {row["status"] for row in headwater.json("token", "list")} == {"valid", "revoked"}


def test_mistakes_with_tokens_are_explained(headwater):
    for arguments, words in {
        ("create", "a", "--scope", "operate", "--tenant", "main"): "no tenant's data",
        ("create", "a", "--scope", "operate", "--scope", "read"): "no tenant's data",
        ("create", "a", "--tenant", "not one"): "malformed",
        ("create", ""): "name",
        ("create", "a", "--scope", "admin"): "admin",
        ("revoke", "nobody"): "no valid access token",
        ("rotate", "nobody"): "no valid access token",
    }.items():
        assert words in headwater("token", *arguments, exits=2).stderr
    assert headwater("token", "list").stderr.startswith("There are no tokens")


def test_an_address_that_is_taken(headwater):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert "Nothing can listen" in headwater("up", "--http", address, exits=2).stderr


async def test_it_is_mounted_into_a_teams_own_application(database18):
    from starlette.applications import Starlette
    from starlette.routing import Mount

    async with api(database18) as client:
        whole = Starlette(routes=[Mount("/facts", asgi(client.app))])
        transport = httpx.ASGITransport(whole)
        headers = {"Authorization": client.headers["authorization"]}
        async with mounted(transport) as inside:
            assert (await inside.get("/facts/healthz")).status_code == 200
            refused = await inside.get("/facts/v1/views/orders/1", headers=headers)
            assert refused.status_code == 401  # the local token is another server's
            from tests.support.web import token_for

            _, own = await token_for(client)
            await inside.post("/facts/v1/events", content=line("a,b"), headers=NDJSON | own)
            page = await inside.get("/facts/v1/events", params={"wait_seconds": 10}, headers=own)
            assert len(page.json()["events"]) == 1


@asynccontextmanager
async def mounted(transport):
    async with httpx.AsyncClient(transport=transport, base_url="http://team") as client:
        yield client
