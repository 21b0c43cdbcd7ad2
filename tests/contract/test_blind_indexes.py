"""Sealed text is found, and constrained, by declared keyed hashes of what it says."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
import pytest
from test_opening import ADA, make

from headwater import Accepted, App, Command, Document, Event, Rejection, over
from headwater.errors import EventDefinitionError
from headwater.events import EventType, Personal
from headwater.events.personal import is_sealed
from tests.support.web import CLOUD_EVENT, NDJSON, serving_of

pytestmark = pytest.mark.postgres


class Opened(Event, type="account.opened", stream="account/{account}", keys=("account:{account}",)):
    account: str
    mail: Annotated[str, Personal("account", blind="mail")]
    name: Annotated[str | None, Personal("account")] = None


class Account(Document):
    account: str = ""


class Open(Command):
    account: str
    mail: str
    mail_key: str


class Taken(Rejection, frozen=True):
    """Another account has this address."""


@pytest.fixture
async def app(database18, tmp_path):
    app = make(database18, tmp_path)
    app.events.add(Opened)

    @app.fold(key="account")
    def accounts(state: Account, event: Opened) -> Account:
        return state.but(account=event.account)

    @app.command(over(accounts, key="{mail_key}"))
    def open_account(state: Account, command: Open) -> Opened | Taken:
        return Taken() if state.account else Opened(command.account, command.mail)

    async with app:
        await app.deploy()
        yield app


async def test_events_are_found_by_what_a_sealed_text_says(app, database18):
    await app.append(Opened("1", ADA, "Ada"), Opened("2", "bob@example.org"))
    await app.append(Opened("3", f" {ADA.upper()} "))
    await app.append(Opened("4", ADA), tenant="other")
    found = await app.find("mail", ADA)
    assert [each.event.account for each in found] == ["1", "3"]
    assert all(is_sealed(each.event.mail) for each in found)
    assert [each.event.account for each in await app.find("mail", ADA, tenant="other")] == ["4"]
    assert await app.find("mail", "nobody@example.org") == []
    assert await app.find("name", "Ada") == []  # not declared
    with database18.admin() as admin:
        keys = [
            row[0]
            for row in admin.execute(
                "SELECT keys FROM headwater.events WHERE stream ~ '^account/' ORDER BY position"
            )
        ]
        kept = str(admin.execute("SELECT array_agg(key) FROM headwater.keys").fetchone())
    assert [len(each) for each in keys] == [2] * 4
    assert len({each[1] for each in keys}) == 3  # another key for another tenant
    assert "ada" not in str(keys).lower() + kept.lower()


async def test_a_constraint_holds_whoever_comes_at_once(app):
    key = await app.blind("mail", ADA)
    answers = await asyncio.gather(*(app.do(Open(str(n), ADA, key)) for n in range(6)))
    assert sorted(type(answer).__name__ for answer in answers) == ["Accepted", *["Taken"] * 5]
    (first,) = [answer for answer in answers if isinstance(answer, Accepted)]
    assert isinstance(first.events[0], Opened)
    assert isinstance(await app.do(Open("9", ADA, key), idempotency_key="k"), Taken)


async def test_the_hashes_go_with_the_person(app, database18):
    key = await app.blind("mail", ADA)
    await app.do(Open("1", ADA, key))
    await app.append(Opened("2", "bob@example.org"))
    certificate = await (await app.forgetting()).forget("1", "main")
    assert certificate.holds
    assert [(f.purged, f.left) for f in certificate.places if f.where == "blind indexes"] == [
        (1, 0)
    ]
    assert await app.find("mail", ADA) == []
    assert len(await app.find("mail", "bob@example.org")) == 1
    with database18.admin() as admin:
        for table in ("events", "keys", "key_events"):
            rows = admin.execute(f"SELECT t::text FROM headwater.{table} AS t").fetchall()
            assert not [row for row in rows if key in row[0]], table
        (keys,) = admin.execute(
            "SELECT keys FROM headwater.events WHERE stream = 'account/1'"
        ).fetchone()
    assert keys == ["account:1"]
    assert isinstance(await app.do(Open("3", ADA, key)), Accepted)  # the address is free again


def test_an_index_with_a_malformed_name_is_refused():
    class Named(Event, type="a.named", stream="a/{x}"):
        x: str
        y: Annotated[str, Personal("x", blind="A B")]

    with pytest.raises(EventDefinitionError, match="malformed name"):
        EventType.of(Named)
    assert App("people", events=[Opened]).events.named("account.opened").blind == {"mail": "mail"}


async def test_what_comes_by_http_is_sealed_on_its_way(database18, tmp_path):
    app = make(database18, tmp_path)
    app.events.add(Opened)

    def line(account, **data):
        data = {"account": account, "mail": None, "name": None} | data
        return {"stream": f"account/{account}", "type": "account.opened", "data": data}

    def sent(*lines):
        return b"\n".join(map(msgspec.json.encode, lines))

    async with app, serving_of(app) as client:
        for _ in range(2):  # a repeated request is recognised
            answer = await client.post(
                "/v1/events",
                content=sent(line("1", mail=ADA, name="Ada"), line("2", mail="b@x")),
                headers=NDJSON | {"Idempotency-Key": "k"},
            )
            assert answer.status_code in {200, 201}, answer.text
        cloud = {
            "specversion": "1.0",
            "id": "c",
            "source": "x",
            "type": "account.opened",
            "subject": "account/3",
            "data": line("3", mail=ADA)["data"],
        }
        assert (await client.post("/v1/events", json=cloud, headers=CLOUD_EVENT)).status_code in {
            200,
            201,
        }
        for bad in ({"mail": 7}, {"mail": None}, {"account": None, "mail": ADA}):
            refused = await client.post(
                "/v1/events",
                content=sent(line("4") | {"data": {"account": "4", "name": None} | bad}),
                headers=NDJSON,
            )
            assert refused.status_code == 422, refused.text
            assert ADA not in refused.text
        assert [each.event.account for each in await app.find("mail", ADA)] == ["1", "3"]
        read = (await client.get("/v1/events")).text
        assert "hw1." in read
        assert ADA not in read
        await (await app.forgetting()).forget("1", "main")
    async with make(database18, tmp_path) as fresh:
        fresh.events.add(Opened)
        async with serving_of(fresh) as client:
            gone = await client.post(
                "/v1/events", content=sent(line("1", mail=ADA)), headers=NDJSON
            )
            assert (gone.status_code, gone.json()["code"]) == (410, "subject_forgotten")
    async with make(database18, tmp_path, master_key="") as keyless:
        keyless.events.add(Opened)
        async with serving_of(keyless) as client:
            refused = await client.post(
                "/v1/events", content=sent(line("5", mail="c@x")), headers=NDJSON
            )
            assert refused.status_code == 422
