"""Views that open what is sealed: they declare it, what they hold is registered, and goes with the person."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import pytest

from headwater import App, Command, Document, Event, Settings
from headwater.errors import (
    CommandDefinitionError,
    KeyUnavailable,
    SettingError,
    ViewDefinitionError,
)
from headwater.events import Personal
from headwater.personal import FORGOTTEN, MasterKeys
from headwater.personal.signing import Signer
from headwater.relay import Batch
from headwater.testing.driving import drive, publish

pytestmark = pytest.mark.postgres
MASTER, SIGNING = MasterKeys.new("m1"), Signer.new()
ADA, BOB = "ada.unmistakable@example.org", "bob@example.org"


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


class Customer(Document):
    mail: str = ""
    phone: str | None = None
    domain: str = ""


class Meeting(Document):
    names: tuple[str, ...] = ()


class Rename(Command, stream="customer/{customer}"):
    customer: str


def declare(app, store=None):
    @app.fold(key="customer", opens=["mail"], store=store)
    def customers(state: Customer, event: Signed) -> Customer:
        return state.but(
            mail=event.mail, phone=event.phone, domain=event.mail.partition("@")[2].upper()
        )

    @app.fold(key="meeting", opens=["host_name", "guest_name"], store=store)
    def meetings(state: Meeting, event: Met) -> Meeting:
        return state.but(names=(*state.names, event.host_name, event.guest_name))

    @app.fold(key="customer", name="domains", opens=["mail"], store=store)
    def domains(state: Customer, event: Signed) -> Customer:
        return state.but(domain=event.mail.split("@")[1])  # no name has that

    return customers, meetings, domains


def make(database, tmp_path, **settings):
    given = {"master_key": MASTER, "signing_key": SIGNING, "forgotten_ledger": str(tmp_path / "ledger" / "forgotten")}  # fmt: skip
    return App("people", events=[Signed, Met], tenant="main", settings=Settings(database_url=database.url, **given | settings))  # fmt: skip


async def drive_all(app):
    await publish(app)
    for fence, view in enumerate(app.views, start=1):
        await drive(app, app.stored(view), fence)


async def summaries(app):
    return {view: (await app.stored(view).verify()).summary for view in app.views}


def registered(database):
    with database.admin() as admin:
        return admin.execute("SELECT count(*) FROM headwater.opened").fetchone()[0]


async def test_a_fold_opens_what_it_declares_and_is_purged(database, tmp_path):
    app = make(database, tmp_path)
    customers, meetings, _ = declare(app)
    async with app:
        await app.deploy()
        await app.append(
            Signed("1", ADA, "+44 1"), Signed("2", BOB), Met("m", "1", "2", "Ada", "Bob")
        )
        await app.append(Signed("1", "c@x"), tenant="other")
        await drive_all(app)
        ada = await customers.get("1")
        assert (ada.mail, ada.domain) == (ADA, "EXAMPLE.ORG")
        assert ada.phone.startswith("hw1.")  # not declared, so not opened
        assert (await meetings.get("m")).names == ("Ada", "Bob")
        assert (await app.stored("customers").explain(["1"], tenant="main")).changes[-1].row["mail"] == ADA  # fmt: skip
        assert await summaries(app) == dict.fromkeys(app.views, "equal")
        assert registered(database) == 8
        certificate = await (await app.forgetting()).forget("1", "main")
        assert certificate.holds
        purged = {
            found.where: (found.purged, found.left, found.note)
            for found in certificate.places
            if found.where.startswith("view ")
        }
        assert purged == {f"view {name}": (1, 0, "") for name in app.views}
        assert registered(database) == 5
        assert await customers.get("1") == Customer(FORGOTTEN, ada.phone, "")
        assert (await meetings.get("m")).names == (FORGOTTEN, "Bob")
        assert (await customers.get("2")).mail == BOB
        assert (await customers.get("1", tenant="other")).mail == "c@x"
        # A function that cannot take the word is parked, and its document goes.
        found = await summaries(app)
        assert found == {
            "customers": "equal",
            "meetings": "equal",
            "domains": "equal except 1 parked",
        }
        with database.admin() as admin:
            assert admin.execute(
                "SELECT key FROM headwater_views.domains WHERE tenant = 'main'"
            ).fetchall() == [("2",)]
            reasons = admin.execute("SELECT reason FROM headwater.parked").fetchall()
        assert reasons == [("IndexError, in a view that opens personal fields",)]
        await drive_all(app)
        again = await (await app.forgetting()).verify("1", "main")
        assert again.holds
        assert await summaries(app) == found


def test_what_would_carry_clear_text_on_is_refused_when_it_is_declared(tmp_path):
    app = App("people", events=[Signed, Met])
    customers, _, _ = declare(app)
    with pytest.raises(ViewDefinitionError, match="no event that it reads") as caught:
        app.fold(key="customer", opens=["plan"], name="other")(customers.fold.evolve)
    assert "mail, phone" in caught.value.hint
    with pytest.raises(ViewDefinitionError, match="opens personal fields") as caught:
        app.sql("sums", sql="SELECT domain, count(*) AS n FROM customers GROUP BY 1")
    assert "opens nothing" in caught.value.hint
    with pytest.raises(ViewDefinitionError, match="no SQL ever sees") as caught:
        app.sql(
            "sums", sql="SELECT mail, count(*) AS n FROM customer.signed GROUP BY 1", opens=["mail"]
        )
    assert "Make it a fold with opens=['mail']" in caught.value.hint
    with pytest.raises(CommandDefinitionError, match="opens personal fields"):

        @app.command(customers)
        def rename(state: Customer, command: Rename) -> Signed:
            return Signed(command.customer, "x")

    with pytest.raises(ViewDefinitionError, match="what is derived"):

        @app.derive(customers)
        def derived(before: Customer, after: Customer, event: Signed) -> Met | None:
            return None


@pytest.mark.parametrize(
    "query",
    [
        "SELECT upper(mail) AS m, count(*) AS n FROM customer.signed GROUP BY 1",
        "SELECT plan, count(*) AS n FROM customer.signed WHERE mail = 'a@x' GROUP BY 1",
        "SELECT plan, max(mail) AS m FROM customer.signed GROUP BY 1",
        "SELECT plan, count(*) FILTER (WHERE mail LIKE 'a%') AS n FROM customer.signed GROUP BY 1",
        "SELECT plan, count(DISTINCT lower(mail)) AS n FROM customer.signed GROUP BY 1",
        "SELECT x, max(m) AS n FROM (SELECT plan AS x, mail AS m FROM customer.signed) AS t GROUP BY 1",
    ],
)
def test_sql_over_what_a_sealed_text_says_is_refused_with_a_remedy(query):
    app = App("people", events=[Signed, Met])
    with pytest.raises(ViewDefinitionError, match="is of the sealed text") as caught:
        app.sql("sums", sql=query)
    assert "becomes a fold with opens=" in caught.value.hint


def test_sql_may_group_count_and_ask_for_null():
    app = App("people", events=[Signed, Met])
    app.sql("mails", sql="SELECT mail, count(*) AS n FROM customer.signed GROUP BY 1")
    app.sql(
        "plans",
        sql="SELECT plan, count(phone) AS n, count(DISTINCT mail) AS m FROM customer.signed WHERE phone IS NOT NULL GROUP BY 1",
    )
    app.sql(
        "both",
        sql="SELECT m, count(*) AS n FROM (SELECT mail AS m FROM customer.signed UNION ALL SELECT guest_name FROM customer.met) AS t GROUP BY 1",
    )


@pytest.mark.parametrize("when", ["before", "after"])
async def test_who_is_forgotten_while_a_batch_is_under_way_is_in_no_view(
    database18, tmp_path, when
):
    app = make(database18, tmp_path)
    customers, _, _ = declare(app)
    async with app:
        await app.deploy()
        await app.append(Signed("1", ADA), Signed("2", BOB))
        view = app.stored("customers")
        real, forgetting = view.record.register, []

        async def register(connection, opened):
            if when == "before" and not forgetting:  # opened already, and not registered
                forgetting.append(asyncio.create_task((await app.forgetting()).forget("1", "main")))
                await forgetting[0]
            await real(connection, opened)
            if when == "after" and not forgetting:  # registered, and not committed
                forgetting.append(asyncio.create_task((await app.forgetting()).forget("1", "main")))

        view.record.register = register
        await drive(app, view, 1)
        assert (await forgetting[0]).holds
        await drive(app, view, 2)
        assert (await customers.get("1")).mail == FORGOTTEN
        assert (await customers.get("2")).mail == BOB
        assert (await view.verify()).summary == "equal"


async def test_what_a_rebuild_kept_goes_too(database18, tmp_path):
    app = make(database18, tmp_path)
    customers, _, _ = declare(app)
    async with app:
        await app.deploy()
        await app.append(Signed("1", ADA), Signed("2", BOB))
        await drive_all(app)
        await app.rebuilding("customers").run()
        assert registered(database18) == 6
        with database18.admin() as admin:
            tables = "SELECT count(*) FROM pg_tables WHERE tablename ~ '^customers__[0-9]'"
            assert admin.execute(tables).fetchone() == (2,)
            certificate = await (await app.forgetting()).forget("1", "main")
            assert admin.execute(tables).fetchone() == (1,)
        assert certificate.holds
        await drive(app, app.stored("customers"), 9)
        assert (await customers.get("2")).mail == BOB


async def test_a_view_that_the_app_no_longer_has_is_named(database18, tmp_path):
    app = make(database18, tmp_path)
    declare(app)
    async with app:
        await app.deploy()
        await app.append(Signed("1", ADA))
        await drive_all(app)
    async with make(database18, tmp_path) as without:
        certificate = await (await without.forgetting()).forget("1", "main")
        assert not certificate.holds
        assert {f.where: f.left for f in certificate.places if f.left} == {
            "view customers": 1,
            "view domains": 1,
        }
        notes = {f.note for f in certificate.places if f.left}
        assert notes == {"The app has no such view: declare it, and forget again."}
    async with app:
        assert (await (await app.forgetting()).forget("1", "main")).holds


async def test_no_byte_of_the_tables_of_views_has_it_afterwards(database18, tmp_path):
    app = make(database18, tmp_path)
    customers, _, _ = declare(app)
    folder = folder_of(database18)
    async with app:
        await app.deploy()
        async with app.relay():
            people = [Signed(str(n), f"somebody{n}@x") for n in range(2, 200)]
            await app.append(*people)
            written = await app.append(Signed("1", ADA), Signed("1", f"2{ADA}"), Signed("2", BOB))
            assert (await customers.get("1", at_least=written.token)).mail == f"2{ADA}"
            with database18.admin() as admin:
                admin.execute("ANALYZE")
                admin.execute("CHECKPOINT")
                assert holding(folder, ADA)
                assert (await (await app.forgetting()).forget("1", "main")).holds
                admin.execute("VACUUM")
                admin.execute("CHECKPOINT")
            assert holding(folder, ADA) == []
            assert holding(folder, BOB)


def folder_of(database):
    """Where the server keeps the files of a test's database: tables, indexes, catalogs, statistics."""
    with database.admin() as admin:
        (oid,) = admin.execute(
            "SELECT oid FROM pg_database WHERE datname = current_database()"
        ).fetchone()
    return Path(database.server.postgres.data_folder) / "base" / str(oid)


def holding(folder, text):
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if text.encode() in path.read_bytes()]


async def test_a_restored_backup_brings_back_nothing_that_was_opened(database18, tmp_path):
    app = make(database18, tmp_path)
    customers, _, _ = declare(app)
    tables = ("headwater.subject_keys", "headwater.opened", "headwater_views.customers__1")
    async with app:
        await app.deploy()
        await app.append(Signed("1", ADA), Signed("2", BOB))
        await drive_all(app)
        with database18.admin() as admin:
            for number, table in enumerate(tables):
                admin.execute(f"CREATE TABLE public.backup_{number} AS SELECT * FROM {table}")
        assert (await (await app.forgetting()).forget("1", "main")).holds
        with database18.admin() as admin:  # as restoring does
            for number, table in enumerate(tables):
                admin.execute(f"DELETE FROM {table}")
                admin.execute(f"INSERT INTO {table} SELECT * FROM public.backup_{number}")
        assert (await customers.get("1")).mail == ADA
    async with app:
        async with app.relay():
            assert (await customers.get("1")).mail == FORGOTTEN
            assert (await customers.get("2")).mail == BOB
        assert (await app.stored("customers").verify()).summary == "equal"
        assert (await (await app.forgetting()).verify("1", "main")).holds


@pytest.mark.parametrize(
    ("master", "error"),
    [(MasterKeys.new("m1"), KeyUnavailable), ("", SettingError)],
    ids=["another", "none"],
)
async def test_without_the_right_master_key_a_view_that_opens_waits(
    database18, tmp_path, master, error
):
    app = make(database18, tmp_path)
    declare(app)
    async with app:
        await app.deploy()
        await app.append(Signed("1", ADA))
        upto = await publish(app)
    other = make(database18, tmp_path, master_key=master)
    customers, _, _ = declare(other)
    async with other:
        view = other.stored("customers")
        await view.open(1)
        with pytest.raises(error):  # the relay tries again, and says so
            await view.apply(Batch(0, upto))
        await view.close()
        assert await customers.get("1") is None
    async with app:
        await drive(app, app.stored("customers"), 2)
        assert (await app.view("customers").get("1")).mail == ADA
