"""Promise 7: what is of a person is sealed before it enters the log, and unreadable once they are forgotten."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import psycopg
import pytest
from warm import warm

from headwater import App, Command, Document, Event, Settings
from headwater.errors import (
    EventDefinitionError,
    InvalidEvent,
    KeyUnavailable,
    LedgerBroken,
    SettingError,
    SubjectForgotten,
    SubjectUnknown,
)
from headwater.events import EventType, Personal
from headwater.events.personal import is_sealed
from headwater.personal import FORGOTTEN, MasterKeys, is_genuine
from headwater.personal.signing import Signer
from headwater.testing.driving import drive, publish

pytestmark = pytest.mark.postgres
MASTER, SIGNING = MasterKeys.new("m1"), Signer.new()
ROOT = Path(__file__).parents[2]
MAIL = "ada.unmistakable@example.org"


class Signed(Event, type="customer.signed", stream="customer/{customer}"):
    customer: str
    mail: Annotated[str, Personal("customer")]
    phone: Annotated[str | None, Personal("customer")] = None
    plan: str = "free"


class Met(Event, type="customer.met", stream="meeting/{meeting}"):
    meeting: str
    host: str
    guest: str
    host_name: Annotated[str, Personal("host")]
    guest_name: Annotated[str, Personal("guest")]


class SignUp(Command, stream="customer/{customer}"):
    customer: str
    mail: str


class Customer(Document):
    mail: str = ""
    signed: int = 0


def make(database, tmp_path, master=MASTER, **settings):
    given = {
        "master_key": master, "signing_key": SIGNING, "forgotten_ledger": str(tmp_path / "ledger" / "forgotten"),
    } | settings  # fmt: skip
    app = App("people", events=[Signed, Met], tenant="main", settings=Settings(database_url=database.url, **given))  # fmt: skip

    @app.fold(key="customer")
    def customers(state: Customer, event: Signed) -> Customer:
        return state.but(mail=event.mail, signed=state.signed + 1)

    @app.command(customers)
    def sign_up(state: Customer, command: SignUp) -> Signed:
        return Signed(command.customer, command.mail)

    app.sql("plans", sql="SELECT plan, count(*) AS customers FROM customer.signed GROUP BY 1")
    return app


@pytest.fixture
async def app(database18, tmp_path):
    async with make(database18, tmp_path) as app:
        await app.deploy()
        yield app


def data_of(database, field="mail"):
    with database.admin() as admin:
        return [row[0] for row in admin.execute("SELECT data ->> %s FROM headwater.events WHERE data ? %s ORDER BY position", [field, field])]  # fmt: skip


async def test_every_way_in_seals_or_is_refused(database, tmp_path):
    async with make(database, tmp_path) as app:
        await app.deploy()
        await app.append(Signed("1", MAIL, "+44 1"), Signed("2", "b@x"))
        async with app.transaction() as tx:
            await tx.append(Signed("3", MAIL))
        await app.do(SignUp("4", MAIL))
        await app.do(SignUp("5", MAIL), idempotency_key="k")
        async with app.database().transaction("main") as connection:
            (sealed,) = await app.seal(Signed("6", MAIL))
            await app.on(connection).append(sealed)
        mails = data_of(database)
        assert len(mails) == 6
        assert all(map(is_sealed, mails))
        assert is_sealed(data_of(database, "phone")[0])
        assert len(set(mails)) == 6  # one text of six persons is never the same
        with pytest.raises(InvalidEvent, match="in clear"):
            async with app.database().transaction("main") as connection:
                await app.on(connection).append(Signed("7", MAIL))
        for clear in (MAIL, "hw1.x.y", None, "hw2." + mails[0][4:]):
            data = json.dumps({"customer": "8", "mail": clear, "phone": None, "plan": "free"})
            with pytest.raises(InvalidEvent, match="field mail does not fit"):
                async with app.database().transaction("main") as connection:
                    await connection.execute("SELECT headwater.append('customer/8', 'customer.signed', %s)", [data])  # fmt: skip
        assert len(data_of(database)) == 6


async def test_what_is_repeated_is_recognised(app, database18):
    first = await app.append(Signed("1", MAIL), idempotency_key="k")
    again = await app.append(Signed("1", MAIL), idempotency_key="k")
    assert (again.duplicate, again.position) == (True, first.position)


async def test_views_hold_what_is_sealed_and_readers_open_it(app):
    await app.append(Signed("1", MAIL), Met("m", "1", "2", "Ada", "Charles"))
    await app.append(Signed("1", "other@x"), tenant="other")
    await publish(app)
    for view in app.views:
        await drive(app, app.stored(view), 1)
        assert (await app.stored(view).verify()).summary == "equal"
    document = await app.view("customers").get("1")
    assert is_sealed(document.mail)
    assert await app.open_sealed(document) == Customer(MAIL, 1)
    events = [each.event for each in await app.log.read(tenant="main")]
    opened = await app.open_sealed(events)
    assert [opened[0].mail, opened[1].host_name, opened[1].guest_name] == [MAIL, "Ada", "Charles"]
    assert await app.open_sealed({"a": [document.mail], "b": 3}) == {"a": [MAIL], "b": 3}
    assert (await app.open_sealed(document, tenant="other")).mail == FORGOTTEN
    changed = document.mail[:-2] + ("AA" if document.mail[-2:] != "AA" else "BB")
    with pytest.raises(KeyUnavailable, match="was changed"):
        await app.open_sealed(changed)


async def test_a_forgotten_person_is_unreadable_and_nobody_else_is(app, database18, tmp_path):
    await app.append(Signed("1", MAIL), Signed("2", "b@x"), Met("m", "1", "2", "Ada", "Charles"))
    await app.append(Signed("1", "c@x"), tenant="other")
    assert await app.open_sealed(data_of(database18)[0]) == MAIL  # its key is in memory now
    forgetting = await app.forgetting()
    with pytest.raises(SubjectUnknown):
        await forgetting.verify("1", "main")
    certificate = await forgetting.forget("1", "main", "asked by mail")
    assert certificate.holds
    assert (certificate.sealed_events, certificate.canaries, certificate.opened) == (2, 2, 0)
    assert not certificate.late
    assert is_genuine(certificate, Signer.of(SIGNING))
    assert not is_genuine(certificate, Signer.of(Signer.new()))
    await publish(app)
    events = await app.open_sealed([each.event for each in await app.log.read(tenant="main")])
    assert [events[0].mail, events[1].mail] == [FORGOTTEN, "b@x"]
    assert (events[2].host_name, events[2].guest_name) == (FORGOTTEN, "Charles")
    (others,) = await app.open_sealed(await app.log.stream("customer/1", tenant="other"), tenant="other")  # fmt: skip
    assert others.event.mail == "c@x"
    assert (events[3].subject, events[3].request) == ("1", str(certificate.request))
    with pytest.raises(SubjectForgotten):
        async with make(database18, tmp_path) as fresh:
            await fresh.append(Signed("1", MAIL))
    for view in app.views:
        await drive(app, app.stored(view), 1)
        assert (await app.stored(view).verify()).summary == "equal"
    again = await forgetting.forget("1", "main")
    assert (again.request, again.forgotten_at) == (certificate.request, certificate.forgotten_at)
    assert len(await app.log.stream(f"erasure/{again.request}", tenant="main")) == 1
    assert (await forgetting.forget("nobody", "main")).holds
    with pytest.raises(SubjectForgotten):
        await app.append(Signed("nobody", MAIL))


_KILLED = """
import asyncio, os
from pathlib import Path
from types import SimpleNamespace
from headwater.personal.forgetting import Forgetting
from headwater.testing.faults import kill_at
from tests.contract import test_personal as t

async def main():
    folder, url = Path(os.environ["HEADWATER_TEST_FOLDER"]), os.environ["HEADWATER_TEST_URL"]
    keys = {{"master_key": os.environ["HEADWATER_TEST_MASTER"], "signing_key": os.environ["HEADWATER_TEST_SIGNING"]}}
    async with t.make(SimpleNamespace(url=url), folder, **keys) as app:
        kill_at(Forgetting, {step!r}, {when!r}, 1)
        await (await app.forgetting()).forget("1", "main")

asyncio.run(main())
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["_request", "_note", "_destroy", "_tell", "_purge", "_certify"])
async def test_a_forget_that_is_killed_goes_on(app, database18, tmp_path, step, when):
    await app.append(Signed("1", MAIL))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _KILLED.format(step=step, when=when),
        env=os.environ | {
            "HEADWATER_TEST_URL": database18.url, "HEADWATER_TEST_FOLDER": str(tmp_path),
            "HEADWATER_TEST_MASTER": MASTER, "HEADWATER_TEST_SIGNING": SIGNING, "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT)]),
        },
    )  # fmt: skip
    assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL
    assert (await (await app.forgetting()).forget("1", "main")).holds
    (sealed,) = data_of(database18)
    assert await app.open_sealed(sealed) == FORGOTTEN
    with database18.admin() as admin:
        (facts,) = admin.execute("SELECT count(*) FROM headwater.events WHERE type = 'subject.forgotten'").fetchone()  # fmt: skip
    assert facts == 1


async def test_a_restored_backup_leaves_the_person_forgotten(database18, tmp_path):
    async with make(database18, tmp_path) as app:
        await app.deploy()
        await app.append(Signed("1", MAIL))
        with database18.admin() as admin:
            admin.execute("CREATE TABLE backup AS SELECT * FROM headwater.subject_keys")
        await (await app.forgetting()).forget("1", "main")
        with database18.admin() as admin:
            admin.execute("UPDATE headwater.subject_keys AS k SET wrapped = b.wrapped, master = b.master, forgotten_at = NULL FROM backup AS b WHERE b.key_id = k.key_id")  # fmt: skip
        (sealed,) = data_of(database18)
        assert (
            await app.open_sealed(sealed) == FORGOTTEN
        )  # the ledger says so, whatever the database holds
    async with make(database18, tmp_path, forgotten_ledger="") as app:
        assert (
            await app.open_sealed(sealed) == MAIL
        )  # and without it, the backup would bring it back
    async with make(database18, tmp_path) as app, app.relay():
        pass
    async with make(database18, tmp_path, forgotten_ledger="") as app:
        assert await app.open_sealed(sealed) == FORGOTTEN
    async with make(database18, tmp_path) as app:
        async with app.relay():
            assert await app.open_sealed(sealed) == FORGOTTEN
        assert await app._open.personal.hold_to_ledger(app.database("headwater_operator")) == 0
    ledger = tmp_path / "ledger" / "forgotten"
    assert ledger.stat().st_mode & 0o777 == 0o600
    lines = ledger.read_bytes()
    ledger.write_bytes(lines + b'{"half a line"')  # a crash while it was written
    async with make(database18, tmp_path) as app:
        await app.deploy()
    ledger.write_bytes(lines.replace(b'"key_id":"', b'"key_id":"0')[:-1] + b"\n")
    async with make(database18, tmp_path) as app:
        with pytest.raises(LedgerBroken, match="Line 1"):
            await app.deploy()


async def test_a_wrong_a_lost_and_a_new_master_key(database18, tmp_path):
    async with make(database18, tmp_path) as app:
        await app.deploy()
        await app.append(Signed("1", MAIL))
        (sealed,) = data_of(database18)
    other = MasterKeys.new("m1")
    for master, said in ((other, "another than the one"), (MasterKeys.new("m2"), "no master key 'm1'")):  # fmt: skip
        async with make(database18, tmp_path, master) as app:
            with pytest.raises(KeyUnavailable, match=said):
                await app.open_sealed(sealed)
            with pytest.raises(KeyUnavailable, match=said):
                await app.append(Signed("1", MAIL))
    async with make(database18, tmp_path, "") as app:
        with pytest.raises(SettingError, match="no master key"):
            await app.append(Signed("1", MAIL))
    newest = MasterKeys.new("m2")
    async with make(database18, tmp_path, f"{newest},{MASTER}") as app:
        await app.append(Signed("2", "b@x"))
        forgetting = await app.forgetting()
        assert (await forgetting.rotate(), await forgetting.rotate()) == (1, 0)
    async with make(database18, tmp_path, newest) as app:
        assert await app.open_sealed(data_of(database18)) == [MAIL, "b@x"]
    (tmp_path / "key").write_text(newest + "\n")
    async with make(database18, tmp_path, "", master_key_file=str(tmp_path / "key")) as app:
        assert await app.open_sealed(sealed) == MAIL
    assert newest.partition(":")[2] not in repr(app.settings)
    assert SIGNING not in repr(app.settings)


async def test_no_byte_of_the_server_ever_holds_the_text(own_server, tmp_path):
    async with make(own_server, tmp_path) as app:
        await app.deploy()
        async with app.relay():
            written = await app.append(*(Signed(str(n), MAIL) for n in range(50)))
            await app.view("customers").get("1", at_least=written.token)
            await app.view("plans").list(at_least=written.token)
            await (await app.forgetting()).forget("1", "main")
        with own_server.admin() as admin:
            admin.execute("CHECKPOINT")
        folder = Path(own_server.server.postgres.data_folder)
        found = [
            path
            for path in folder.rglob("*")
            if path.is_file() and MAIL.encode() in path.read_bytes()
        ]
        assert found == []
        assert any(b"hw1." in path.read_bytes() for path in (folder / "pg_wal").glob("0*"))


async def test_tenants_and_roles_have_their_own_keys_only(app, database18):
    await app.append(Signed("1", MAIL), tenant="other")
    async with app.database().transaction("main") as connection:
        cursor = await connection.execute("SELECT count(*) FROM headwater.subject_keys")
        assert await cursor.fetchone() == (0,)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with app.database().transaction("other") as connection:
            await connection.execute("UPDATE headwater.subject_keys SET wrapped = NULL")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with app.database("headwater_relay").connection() as connection:
            await connection.execute("SELECT wrapped FROM headwater.subject_keys")


async def test_transactions_that_hold_all_connections_still_get_keys(database18, tmp_path):
    async with make(database18, tmp_path, pool_size=2) as app:
        await app.deploy()
        both = asyncio.Barrier(2)

        async def write(number):
            async with app.transaction() as tx:
                await both.wait()
                await tx.append(Signed(str(number), MAIL))

        async with asyncio.timeout(60):
            await asyncio.gather(write(1), write(2))


async def test_many_at_once_make_one_key_for_a_person(app, database18):
    await asyncio.gather(*(app.append(Signed("1", f"{n}@x")) for n in range(20)))
    with database18.admin() as admin:
        assert admin.execute("SELECT count(*) FROM headwater.subject_keys").fetchone() == (1,)
    assert sorted(await app.open_sealed(data_of(database18))) == sorted(f"{n}@x" for n in range(20))


PEOPLE = """
from typing import Annotated
from headwater import App, Event
from headwater.events import Personal

class Signed(Event, type="customer.signed", stream="customer/{customer}"):
    customer: str
    mail: Annotated[str, Personal("customer")]

app = App("people", events=[Signed], tenant="main")
"""


async def test_keys_and_forgetting_by_the_command_line(database18, tmp_path):
    (tmp_path / "people.py").write_text(PEOPLE)
    environment = {
        "HEADWATER_DATABASE_URL": database18.url, "HEADWATER_ADMIN_DATABASE_URL": database18.admin_url,
        "HEADWATER_APP": "people:app", "HEADWATER_FORGOTTEN_LEDGER": str(tmp_path / "ledger"), "PATH": "/usr/bin:/bin",
    }  # fmt: skip

    async def headwater(*arguments, exits=0):
        done = await asyncio.to_thread(warm().run, arguments, cwd=tmp_path, env=environment)
        assert done.returncode == exits, done.stderr
        return done.stdout + done.stderr

    environment["HEADWATER_MASTER_KEY"] = (await headwater("keys", "new", "m1")).strip()
    assert "HEADWATER_SIGNING_KEY" in (await headwater("forget", "1", exits=2))
    environment["HEADWATER_SIGNING_KEY"] = (await headwater("keys", "signing")).strip()
    async with make(database18, tmp_path, environment["HEADWATER_MASTER_KEY"]) as app:
        await app.deploy()
        await app.append(Signed("1", MAIL), Signed("2", MAIL))
    newest = (await headwater("keys", "new", "m2")).strip()
    environment["HEADWATER_MASTER_KEY"] = f"{newest},{environment['HEADWATER_MASTER_KEY']}"
    assert "2 keys" in await headwater("keys", "rotate")
    environment["HEADWATER_MASTER_KEY"] = newest
    assert "no request" in await headwater("forget", "1", "--verify", exits=2)
    told = json.loads(await headwater("forget", "1", "--reason", "a letter", "--json"))
    assert (told["opened"], told["canaries"], told["key_destroyed"]) == (0, 1, True)
    shown = await headwater("forget", "1", "--verify")
    assert "could be opened" in shown
    assert "in WAL and backups" in shown
    assert MAIL not in shown


def test_what_cannot_be_personal_is_refused_when_the_class_is_read():
    class Number(Event, type="a.number", stream="a/{x}"):
        x: str
        y: Annotated[int, Personal("x")]

    class Nobody(Event, type="a.nobody", stream="a/{x}"):
        x: str
        y: Annotated[str, Personal("z")]

    class Itself(Event, type="a.itself", stream="a/{x}"):
        x: str
        y: Annotated[str, Personal("y")]

    class Named(Event, type="a.named", stream="a/{x}", keys=("mail:{y}",)):
        x: str
        y: Annotated[str, Personal("x")]

    for event, said in ((Number, "is not text"), (Nobody, "no required field"), (Itself, "no required field"), (Named, "part of a stream")):  # fmt: skip
        with pytest.raises(EventDefinitionError, match=said):
            EventType.of(event)
    for text in ("", "m1", "m1:short", "M1:" + "a" * 43):
        with pytest.raises(SettingError, match="malformed"):
            MasterKeys.of(text)
