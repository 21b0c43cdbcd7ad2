"""Notices: people are told once, by the channels that they want, and every outcome is a fact without an address."""

from __future__ import annotations

from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Annotated

import pytest
from certificates import Authority
from jobs_shop import idle, until
from mail_server import mailbox
from receiver import receiving

from headwater import (
    App,
    Event,
    Mail,
    Message,
    NoticeFailed,
    NoticePreferred,
    NoticeSent,
    NoticeWithheld,
    Reach,
    Retry,
    Saga,
    Settings,
    Templates,
    Webhook,
    this_job,
)
from headwater.errors import JobDefinitionError, JobRefused
from headwater.events import EventTypes, Personal
from headwater.jobs.outgoing.sending import NotTaken, trusting
from headwater.personal import MasterKeys
from headwater.testing.sagas import started

pytestmark = pytest.mark.postgres
ADDRESS = "ann@customers.example"
PEOPLE = {
    "ann": Reach({"mail": ADDRESS, "push": "device-1"}, "Ann", "de-AT", {"greeting": "Servus"}),
    "bob": Reach({"push": "device-2"}, "Bob"),
    "odd": Reach({"mail": "odd@customers.example\r\nBcc: all@customers.example"}, "Odd"),
}
SOON = Retry(attempts=3, first_seconds=0.01)


@pytest.fixture
def database(database18):
    """What is tested here does not hang on the version of Postgres."""
    return database18


class Placed(Event, type="order.placed", stream="order/{order}"):
    order: str
    customer: str


def make(database, box, hook):
    """An app with a notice about orders by both channels, and one about offers that is asked for."""
    app = App("shop", events=[Placed], tenant="main", settings=Settings(database_url=database.url))
    mail = app.channel(
        Mail("mail", "127.0.0.1", port=box.port, sender="shop@shop.example", tls="none")
    )
    push = app.channel(Webhook("push", hook.url, private=True))

    @app.reach
    async def reach(person: str) -> Reach | None:
        assert this_job().tenant == "main"
        return PEOPLE.get(person)

    @app.notice(channels=[mail, push], topic="orders", once=["order"], retry=SOON)
    def confirmed(to: Reach, order: str, total: Decimal) -> Message:
        text = f"Dear {to.name}, {order} over {total:,.2f} is on its way."
        return Message(f"Order {order} is confirmed", text, f"<p>{text}</p>", unsubscribe="https://shop.example/u/1")  # fmt: skip

    @app.notice(channels=[push], topic="offers", consent="opt-in", retry=SOON)
    def offer(to: Reach, what: str) -> Message:
        return Message(f"{what} for {to.name}", "Today only.")

    return app, confirmed, offer


def outcomes(database):
    """What became of notices, in order."""
    with database.admin() as admin:
        rows = admin.execute("SELECT type, data::text FROM headwater.events ORDER BY position").fetchall()  # fmt: skip
    types = EventTypes([NoticeSent, NoticeWithheld, NoticeFailed])
    known = {"notice.sent", "notice.withheld", "notice.failed"}
    return [types.named(name).decode(data) for name, data in rows if name in known]


@asynccontextmanager
async def working(app):
    """The app, deployed, and its notices at work."""
    async with app:
        await app.deploy()
        async with app.working("notices"):
            yield


async def settled(app):
    await idle(app, "notices")


async def test_a_person_is_told_once_by_each_channel(database):
    async with mailbox() as box, receiving() as hook:
        app, confirmed, _ = make(database, box, hook)
        async with working(app):
            for _ in range(3):
                await app.enqueue(confirmed("ann", order="7", total=Decimal("1234.5")))
            await settled(app)
        told = outcomes(database)
    assert sorted((type(one).__name__, one.channel) for one in told) == [("NoticeSent", "mail"), ("NoticeSent", "push")]  # fmt: skip
    (mail,) = box.got
    assert (mail["To"], mail["Subject"]) == (ADDRESS, "Order 7 is confirmed")
    assert mail["Message-ID"] == f"<{told[0].id}-mail@shop.example>"
    assert mail["List-Unsubscribe"] == "<https://shop.example/u/1>"
    assert "1,234.50" in mail.get_body(("plain",)).get_content()
    assert mail.get_body(("html",)).get_content().startswith("<p>Dear Ann")
    ((headers, _),) = hook.got
    (body,) = hook.bodies
    assert headers["webhook-id"] == f"{told[0].id}-push"
    assert body["type"] == "notice"
    assert (body["data"]["to"], body["data"]["order"], body["data"]["total"]) == ("device-1", "7", "1234.5")  # fmt: skip


async def test_who_refuses_a_topic_or_has_not_chosen_it_is_not_told(database):
    async with mailbox() as box, receiving() as hook:
        app, confirmed, offer = make(database, box, hook)
        async with working(app):
            await app.append(NoticePreferred("ann", "orders", ["mail"]), NoticePreferred("bob", "offers", ["push"]))  # fmt: skip
            for person in ("ann", "bob", "nobody"):
                await app.enqueue(confirmed(person, order="1", total=Decimal(1)), offer(person, what="Tea"))  # fmt: skip
            await settled(app)
            told = outcomes(database)
            sent = {(one.notice, one.person, one.channel) for one in told if isinstance(one, NoticeSent)}  # fmt: skip
            why = {(one.notice, one.person, one.channel): one.reason for one in told if isinstance(one, NoticeWithheld)}  # fmt: skip
            assert sent == {("confirmed", "ann", "mail"), ("confirmed", "bob", "push"), ("offer", "bob", "push")}  # fmt: skip
            assert why == {
                ("confirmed", "ann", "push"): "the person does not want notices about orders by it",
                ("confirmed", "bob", "mail"): "the person has no address for it",
                ("confirmed", "nobody", "mail"): "nobody knows how to reach the person",
                ("confirmed", "nobody", "push"): "nobody knows how to reach the person",
                ("offer", "ann", "push"): "the person has not chosen notices about offers",
                ("offer", "nobody", "push"): "nobody knows how to reach the person",
            }
            await app.append(NoticePreferred("bob", "offers", []))
            await app.enqueue(offer("bob", what="Cake"))
            await settled(app)
    assert [one["data"]["subject"] for one in hook.bodies if "for Bob" in one["data"]["subject"]] == ["Tea for Bob"]  # fmt: skip


async def test_a_channel_that_fails_is_tried_again_alone_and_the_address_stays_out_of_every_table(database):  # fmt: skip
    async with mailbox() as box, receiving() as hook:
        app, confirmed, _ = make(database, box, hook)
        answers = iter([f"451 <{ADDRESS}> later", "250 OK"])
        box.answer = lambda _: next(answers)
        async with working(app):
            await app.enqueue(confirmed("ann", order="1", total=Decimal(1)))
            await settled(app)
            assert [len(box.got), len(hook.got)] == [1, 1]

            box.answer = lambda _: f"550 <{ADDRESS}> nobody of that name"
            await app.enqueue(confirmed("ann", order="2", total=Decimal(1)))
            await settled(app)
            failed = [one for one in outcomes(database) if isinstance(one, NoticeFailed)]
            assert [(one.channel, one.reason) for one in failed] == [("mail", "the mail server refused the address: [550]")]  # fmt: skip
            assert not await app.jobs_now.dead()  # an address that is gone is no fault of the app's

            box.answer = lambda _: f"451 <{ADDRESS}> never"
            await app.enqueue(confirmed("ann", order="3", total=Decimal(1)))
            await settled(app)
            (dead,) = await app.jobs_now.dead()
            assert "451" in dead[5]
            assert (len(box.got), len(hook.got)) == (1, 3)
            # Replayed, it goes by the channel that did not take it.
            box.answer = lambda _: "250 OK"
            await app.jobs_now.replay([dead[0]])
            await settled(app)
            assert (len(box.got), len(hook.got)) == (2, 3)
        with database.admin() as admin:
            kept = everything(admin)
            assert "the mail server refused the address" in kept
            assert ADDRESS not in kept


def everything(admin):
    """Every row of every table of ours, as text."""
    tables = admin.execute("SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'headwater'::regnamespace AND relkind = 'r'").fetchall()  # fmt: skip
    rows = [admin.execute(f"SELECT t::text FROM {table} AS t").fetchall() for (table,) in tables]
    return str(rows)


async def test_what_would_forge_a_mail_is_refused(database):
    async with mailbox() as box, receiving() as hook:
        app, confirmed, _ = make(database, box, hook)
        async with working(app):
            await app.enqueue(confirmed("odd", order="1", total=Decimal(1)))
            await app.enqueue(confirmed("bob", order="2\nBcc: all@customers.example", total=Decimal(1)))  # fmt: skip
            await settled(app)
            (failed,) = [one for one in outcomes(database) if isinstance(one, NoticeFailed)]
            assert failed.reason.startswith("the address is malformed")
            (dead,) = await app.jobs_now.dead()
            assert "one line" in dead[5]
            assert dead[4] == 1
            assert box.got == []
        with pytest.raises(JobRefused):
            confirmed("two words", order="1", total=Decimal(1))
        with pytest.raises(JobRefused):
            confirmed("ann", order="1", total="much")


async def test_mail_goes_by_tls_to_a_server_that_proves_its_name(tmp_path, monkeypatch):
    authority = Authority(tmp_path)
    message = Message("Hello", "text")
    async with mailbox(tls=authority.serving("localhost")) as box:
        known = {"port": box.port, "user": "shop"}
        mail = Mail("mail", "localhost", "shop@shop.example", password="right", **known)
        with pytest.raises(NotTaken, match="SSLCertVerificationError"):
            await mail.send(message, message_id="1", to=ADDRESS)
        assert box.logins == []
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        trusting.cache_clear()
        await mail.send(message, message_id="1", to=ADDRESS)
        wrong = Mail("mail", "localhost", "shop@shop.example", password="wrong", **known)
        with pytest.raises(NotTaken, match="535 to the login") as refused:
            await wrong.send(message, message_id="2", to=ADDRESS)
        trusting.cache_clear()
    assert not refused.value.gone
    assert "right" not in repr(mail)
    assert [one["Subject"] for one in box.got] == ["Hello"]


async def test_a_saga_ends_by_telling_the_person(database):
    async with mailbox() as box, receiving() as hook:
        app, confirmed, _ = make(database, box, hook)

        @app.saga(key="order")
        async def fulfil(saga: Saga, placed: Placed) -> None:
            await saga.sleep(0.01)
            await saga.enqueue(confirmed(placed.customer, order=placed.order, total=Decimal(5)))

        story = started(fulfil, Placed("1", "ann")).asks("sleep").answer()
        story.asks(confirmed("ann", order="1", total=Decimal(5))).answer().ends()
        async with app:
            await app.deploy()
            async with app.relay(), app.working():
                await app.append(*[Placed(str(n), "bob") for n in range(5)])
                await until(lambda: len(hook.got) == 5)
                await settled(app)
        assert {one.person for one in outcomes(database)} == {"bob"}
    assert sorted(one["data"]["order"] for one in hook.bodies) == list("01234")


async def test_what_a_notice_is_told_of_a_person_is_sealed_on_its_way(database):
    """Marked as personal, an argument is in clear in the message alone, also where a saga tells."""
    async with mailbox() as box:
        settings = Settings(database_url=database.url, master_key=MasterKeys.new("m"))
        app = App("shop", events=[Placed], tenant="main", settings=settings)
        mail = app.channel(Mail("mail", "127.0.0.1", port=box.port, sender="shop@shop.example", tls="none"))  # fmt: skip

        @app.reach
        async def reach(person: str) -> Reach | None:
            return PEOPLE[person]

        @app.notice(channels=[mail], once=["order"])
        def diagnosed(to: Reach, order: str, finding: Annotated[str, Personal("person")]) -> Message:  # fmt: skip
            if order == "broken":
                raise ValueError(f"{to.addresses['mail']}: {finding}")
            return Message("Your results", finding)

        @app.saga(key="order")
        async def inform(saga: Saga, placed: Placed) -> None:
            await saga.enqueue(diagnosed(placed.customer, order=placed.order, finding="hay fever"))

        async with app:
            await app.deploy()
            await app.append(Placed("1", "ann"))
            async with app.relay(), app.working():
                await until(lambda: box.got)
                await app.enqueue(diagnosed("ann", order="broken", finding="hay fever"))
                await until(app.jobs_now.dead)
        assert "hay fever" in box.got[0].get_content()
        with database.admin() as admin:
            kept = everything(admin)
            assert "hay fever" not in kept
            assert ADDRESS not in kept
            assert "saga.step_done" in kept
        with pytest.raises(JobDefinitionError, match="personal"):
            app.notice(channels=[mail], once=["finding"])(diagnosed.template)


def test_templates_are_looked_for_by_language_and_escape_values(tmp_path):
    (tmp_path / "hello.txt").write_text("Hello {{ name }}\n\n{{ what }}\n")
    (tmp_path / "hello.de.txt").write_text("{{ greeting }} {{ name }}\n\n{{ what }} & mehr\n")
    (tmp_path / "hello.html").write_text("<p>{{ what }}</p>")
    templates = Templates(tmp_path)
    said = templates("hello", PEOPLE["ann"], what="<b>")
    assert (said.subject, said.text, said.html) == ("Servus Ann", "<b> & mehr", "<p>&lt;b&gt;</p>")
    assert templates("hello", PEOPLE["bob"], what="x").subject == "Hello Bob"
    with pytest.raises(Exception, match="'what' is undefined"):
        templates("hello", PEOPLE["bob"])
    for wrong in ("none", "../hello"):
        with pytest.raises(JobDefinitionError):
            templates(wrong, PEOPLE["bob"], what="x")
    with pytest.raises(JobDefinitionError):
        Templates(tmp_path / "none")


def test_what_cannot_be_a_notice_is_refused_when_declared():
    app = App("odd", tenant="main")
    mail = app.channel(Mail("mail", "localhost", sender="a@b.example"))
    other = App("other", tenant="main").channel(Mail("mail", "localhost", sender="a@b.example"))

    def fits(to: Reach, order: str) -> Message:
        raise NotImplementedError

    def odd(order: str) -> Message:
        raise NotImplementedError

    with pytest.raises(JobDefinitionError):
        app.notice(channels=[other])
    with pytest.raises(JobDefinitionError):
        app.notice(channels=[mail])(odd)
    with pytest.raises(JobDefinitionError):
        app.notice(channels=[mail], once=["customer"])(fits)
    with pytest.raises(JobDefinitionError):
        app.notice(channels=[mail], consent="opt-in")(fits)
    with pytest.raises(JobDefinitionError):
        app.alert("x", None, to=[mail])
    for wrong in ({"sender": "a@b.example\nx"}, {"sender": "nobody"}, {"sender": "a@b.example", "user": "u", "tls": "none"}):  # fmt: skip
        with pytest.raises(JobDefinitionError):
            Mail("more", "localhost", **wrong)
