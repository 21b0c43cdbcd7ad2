"""Events sent to other people's endpoints: signed, in order per stream, parked, replayed, never inside."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import signal
import sys
from itertools import pairwise
from pathlib import Path

import jobs_shop
import pytest
from certificates import Authority
from jobs_shop import Ordered, until
from receiver import receiving

from headwater import App, Retry, Settings
from headwater.errors import EndpointRefused, UnknownEndpoint
from headwater.examined import examined
from headwater.jobs.outgoing import sending
from headwater.jobs.outgoing.addresses import address_of, is_public, target_of
from headwater.jobs.outgoing.sending import NotTaken, post
from headwater.jobs.outgoing.signing import key_of, new_secret, signed

pytestmark = pytest.mark.postgres
RETRY = Retry(attempts=3, first_seconds=0.02, factor=1, jitter=0)


@pytest.fixture
def database(database18):
    """What is tested here does not hang on the version of Postgres."""
    return database18


def make(database, retry=RETRY):
    app = App("sender", events=[Ordered], tenant="main", settings=Settings(database_url=database.url))  # fmt: skip
    app.webhooks([Ordered], retry=retry)
    return app


def orders(receiver):
    return [(one["data"]["order"], one["data"]["total"]) for one in receiver.bodies]


async def standing(app):
    ((_, _, _, _, state, _, pending, _, detail),) = await app.outgoing_now.endpoints()
    return state, pending, detail


async def test_events_are_sent_signed_by_both_secrets_in_order_per_stream(database):
    async with make(database) as app, receiving() as receiver, app.relay():
        await app.deploy()
        old = await app.outgoing_now.add("acme", receiver.url, tenant="main", private=True)
        new = await app.outgoing_now.rotate("acme")
        refused = set()

        def once(headers, body):
            """The first message of each stream fails once, so what follows it has to wait."""
            order = json.loads(body)["data"]["order"]
            if order in refused:
                return 204
            refused.add(order)
            return 503

        receiver.answer = once
        for n in range(5):
            await app.append(Ordered("a", n), Ordered("b", n))
        await app.append(Ordered("theirs", 1), tenant="other")
        async with app.working():

            async def all_taken():
                return len(receiver.got) == 12 and await standing(app) == ("active", 0, None)

            await until(all_taken)
        for order in "ab":
            assert [n for o, n in orders(receiver) if o == order] == [0, 0, 1, 2, 3, 4]
        headers, body = receiver.got[0]
        for secret, told in zip((new, old), headers["webhook-signature"].split(), strict=True):
            content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
            mac = hmac.digest(base64.b64decode(secret[6:]), content, hashlib.sha256)
            assert told == "v1," + base64.b64encode(mac).decode()
        ids = [headers["webhook-id"] for headers, _ in receiver.got]
        assert len(set(ids)) == 10
        assert receiver.bodies[0]["type"] == "order.placed"


async def test_a_receiver_that_stays_down_is_parked_and_goes_on_where_it_was(database):
    async with make(database) as app, receiving() as receiver, app.relay():
        await app.deploy()
        await app.outgoing_now.add("acme", receiver.url, tenant="main", private=True)
        receiver.answer = lambda *_: 500
        await app.append(*[Ordered("a", n) for n in range(3)], Ordered("b", 9))
        async with app.working():

            async def parked():
                return (await standing(app))[0] == "parked"

            await until(parked)
            _, pending, detail = await standing(app)
            assert (pending, "answered 500" in detail) == (4, True)
            told = [f for f in await examined(app) if f.check == "endpoint acme"]
            assert [f.level for f in told] == ["warn"]
            await app.append(Ordered("a", 3))
            receiver.answer = lambda *_: 200
            receiver.got.clear()
            await app.outgoing_now.resume("acme")

            async def all_taken():
                return len(receiver.got) >= 5 and await standing(app) == ("active", 0, None)

            await until(all_taken)
            assert [n for o, n in orders(receiver) if o == "a"] == [0, 1, 2, 3]
            assert len(receiver.got) == 5
            receiver.got.clear()
            position = int((await app.log.read(tenant="main"))[1].position)
            await app.outgoing_now.replay("acme", position)
            await until(all_again(receiver, 3))
            assert [n for o, n in orders(receiver) if o == "a"] == [2, 3]
            receiver.answer = lambda *_: 410
            await app.append(Ordered("c", 1))
            await until(parked)
            await app.outgoing_now.remove("acme")
            with pytest.raises(UnknownEndpoint):
                await app.outgoing_now.pause("acme")


def all_again(receiver, count):
    return lambda: len(receiver.got) >= count


async def test_private_addresses_and_redirects_are_refused(database18):
    async with make(database18, Retry(attempts=1)) as app, receiving() as receiver, app.relay():
        await app.deploy()
        # The name is public to look at, and leads inside.
        await app.outgoing_now.add("inside", f"http://localhost:{receiver.port}/", tenant="main")
        await app.append(Ordered("a", 1))
        async with app.working():

            async def parked():
                return (await standing(app))[0] == "parked"

            await until(parked)
        assert "private network" in (await standing(app))[2]
        assert receiver.got == []
        for url in ("ftp://x.example", "http://u:p@x.example", "https://", "http://x:99999/", "http://x/ä"):  # fmt: skip
            with pytest.raises(EndpointRefused):
                await app.outgoing_now.add("other", url, tenant="main")
        with pytest.raises(EndpointRefused):
            await app.outgoing_now.add("inside", "https://example.com", tenant="main")
    async with receiving() as receiver, receiving() as elsewhere:
        receiver.answer = lambda *_: 302
        receiver.extra = f"Location: {elsewhere.url}\r\n"
        with pytest.raises(NotTaken, match="302"):
            await post(receiver.url, b"{}", {}, private=True)
        assert (len(receiver.got), elsewhere.got) == (1, [])
        assert receiver.got[0][0]["host"] == f"127.0.0.1:{receiver.port}"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
        ("93.184.215.14", True),
        ("2606:4700::1111", True),
    ],
)
def test_which_addresses_are_public(address, public):
    assert is_public(address) is public


async def test_odd_ways_to_write_an_inner_address_lead_nowhere():
    for host in ("2130706433", "0x7f.1", "127.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"):
        with pytest.raises(EndpointRefused):
            await address_of(target_of(f"http://{host}/"), private=False)


async def test_a_pinned_address_must_show_the_certificate_of_its_name(tmp_path, monkeypatch):
    authority = Authority(tmp_path)
    for trusted, shown, refused in (
        (True, "localhost", None),
        (True, "other.example", "Hostname mismatch"),
        (False, "localhost", "unable to get local issuer certificate"),
    ):
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file) if trusted else os.devnull)
        sending.trusting.cache_clear()
        async with receiving(authority.serving(shown)) as receiver:
            url = f"https://localhost:{receiver.port}/hook"
            if refused is None:
                await post(url, b"{}", {}, private=True)
                ((headers, _),) = receiver.got
                assert headers["host"] == f"localhost:{receiver.port}"
            else:
                with pytest.raises(NotTaken, match=refused):
                    await post(url, b"{}", {}, private=True)
                assert not receiver.got
    sending.trusting.cache_clear()


async def test_processes_that_send_are_killed_and_every_event_arrives_in_order(database):
    """Killed by SIGKILL while the receiver has a message in hand, so that nobody hears its answer."""
    support = Path(jobs_shop.__file__).parent
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")} | {
        "HEADWATER_DATABASE_URL": database.url, "HEADWATER_APP": "sender_app:app", "PYTHONPATH": str(support),
    }  # fmt: skip
    arguments = [sys.executable, "-m", "headwater", "work", "--lease", "1"]
    async with make(database) as app, receiving() as receiver, app.relay():
        await app.deploy()
        await app.outgoing_now.add("acme", receiver.url, tenant="main", private=True)
        for n in range(10):
            await app.append(Ordered("a", n), Ordered("b", n))
        for kills_at in (1, 7, 13, None):
            process = await asyncio.create_subprocess_exec(
                *arguments, env=environment, stdout=asyncio.subprocess.DEVNULL
            )

            def answer(*_, process=process, kills_at=kills_at):
                if len(receiver.got) == kills_at:
                    process.kill()
                return 204

            receiver.answer = answer
            try:
                if kills_at is not None:
                    assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL
                    continue

                async def all_taken():
                    return {(o, 9) for o in "ab"} <= set(orders(receiver)) and await standing(app) == ("active", 0, None)  # fmt: skip

                await until(all_taken, seconds=90)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
    assert len(receiver.got) > 20, "what was in hand is sent again"
    ids = {}
    for (headers, _), (order, n) in zip(receiver.got, orders(receiver), strict=True):
        assert ids.setdefault((order, n), headers["webhook-id"]) == headers["webhook-id"]
    for order in "ab":
        first = list(dict.fromkeys(n for o, n in orders(receiver) if o == order))
        assert first == list(range(10))
        # A receiver that passes by what it has seen, by its id, is in order throughout.
        told = [n for o, n in orders(receiver) if o == order]
        assert all(later >= earlier - 1 for earlier, later in pairwise(told))


def test_signatures_are_those_of_the_specification():
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = signed("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', [secret])
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert len(key_of(new_secret())) == 32
    for wrong in ("whsec_x", "whsec_" + base64.b64encode(b"short").decode()):
        with pytest.raises(EndpointRefused):
            key_of(wrong)
