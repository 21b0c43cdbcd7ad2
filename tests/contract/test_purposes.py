"""A view for a purpose has documents of those who agree to it, and follows them when they take it back."""

from __future__ import annotations

import pytest
from redis_server import RedisServer
from test_opening import ADA, BOB, Customer, Met, Signed, drive_all, make, summaries

from headwater import App, Document, Event, Purpose
from headwater.errors import CommandDefinitionError, ViewDefinitionError
from headwater.personal import FORGOTTEN
from headwater.stores.redis import Redis
from headwater.testing.driving import drive

pytestmark = pytest.mark.postgres


class Agreed(Event, type="consent.given", stream="consent/{customer}"):
    customer: str
    purpose: str


class TookBack(Event, type="consent.withdrawn", stream="consent/{customer}"):
    customer: str
    purpose: str


class Unmet(Event, type="customer.unmet", stream="meeting/{meeting}"):
    meeting: str
    host: str


class Plan(Document):
    plan: str = ""
    signed: int = 0


class Host(Document):
    name: str = ""


NEWSLETTER = Purpose("newsletter", Agreed, TookBack)


def declare(app, store=None):
    for event in (Agreed, TookBack):
        app.events.add(event)

    @app.fold(key="customer", opens=["mail"], purpose=NEWSLETTER, store=store)
    def readers(state: Customer, event: Signed) -> Customer | None:
        return None if event.plan == "none" else state.but(mail=event.mail)

    return readers


@pytest.mark.parametrize("where", ["postgres", "redis"])
async def test_documents_are_of_those_who_agree(database18, tmp_path, where):
    redis = RedisServer() if where == "redis" else None
    app = make(database18, tmp_path, stores={} if redis is None else {"quick": redis.url()})
    readers = declare(app, None if redis is None else Redis("quick"))
    try:
        async with app:
            await app.deploy()
            await app.append(
                Signed("1", "before@x"), Agreed("1", "newsletter"), Agreed("2", "profiling")
            )
            await app.append(Signed("1", ADA), Signed("2", BOB), Signed("3", "c@x"))
            await drive_all(app)
            assert (await readers.get("1")).mail == ADA
            assert await readers.get("2") is None  # for another purpose
            assert await readers.get("3") is None
            assert await summaries(app) == {"readers": "equal"}
            await app.append(
                TookBack("1", "profiling"), Agreed("2", "newsletter"), Signed("1", ADA, plan="none")
            )
            await drive(app, app.stored("readers"), 2)
            assert (await readers.get("1")) == Customer()  # what the function removed, is empty
            assert (await readers.get("2")) == Customer()
            await app.append(TookBack("1", "newsletter"), Signed("1", ADA), Signed("2", BOB))
            await drive(app, app.stored("readers"), 3)
            assert await readers.get("1") is None
            assert (await readers.get("2")).mail == BOB
            assert await summaries(app) == {"readers": "equal"}
            explained = await app.stored("readers").explain(["1"], tenant="main")
            assert [change.row is None for change in explained.changes] == [
                True,
                False,
                False,
                False,
                False,
                True,
                True,
            ]
            assert (await app.rebuilding("readers").run()).equal
            assert (await (await app.forgetting()).forget("2", "main")).holds
            assert (await readers.get("2")).mail == FORGOTTEN
    finally:
        if redis is not None:
            redis.close()


async def test_sums_for_a_purpose_are_of_those_who_agree_for_as_long_as_they_do(
    database18, tmp_path
):
    app = make(database18, tmp_path)
    for event in (Agreed, TookBack):
        app.events.add(event)

    @app.fold(key="customer", purpose=NEWSLETTER)
    def plans(state: Plan, event: Signed) -> Plan:
        return state.but(plan=event.plan, signed=state.signed + 1)

    app.sql(
        "people",
        sql="SELECT plan, count(*) AS people, sum(signed) AS signed FROM plans GROUP BY plan",
        purpose=NEWSLETTER,
    )

    async def sums(fence) -> dict[str, tuple[int, int]]:
        for view in (app.stored("plans"), app.stored("people")):
            await drive(app, view, fence)
        rows = await app.view("people").list(tenant="main")
        assert (await summaries(app)) == {"plans": "equal", "people": "equal"}
        return {row.plan: (row.people, row.signed) for row in rows}

    async with app:
        await app.deploy()
        await app.append(Signed("1", "a@x"), Signed("2", "b@x"), Signed("3", "c@x", plan="paid"))
        assert await sums(1) == {}
        await app.append(*(Agreed(who, "newsletter") for who in "123"))
        await app.append(Signed("1", "a@x"), Signed("2", "b@x"), Signed("2", "b@x", plan="paid"))
        # Who agrees has a document from then on, empty until the next event.
        assert await sums(2) == {"": (1, 0), "free": (1, 1), "paid": (1, 2)}
        await app.append(TookBack("2", "newsletter"), Signed("2", "b@x"))
        assert await sums(3) == {"": (1, 0), "free": (1, 1)}
        await app.append(Agreed("2", "newsletter"), Signed("2", "b@x", plan="paid"))
        before = await sums(4)
        assert before == {"": (1, 0), "free": (1, 1), "paid": (1, 1)}
        await app.stored("plans").rebuild()
        assert await sums(5) == before


def test_what_a_purpose_cannot_be_is_refused():
    app = App("people", events=[Signed, Met])
    readers = declare(app)
    app.events.add(Unmet)

    with pytest.raises(ViewDefinitionError, match="which is of 'guest'"):

        @app.fold(
            key="host", opens=["guest_name"], purpose=Purpose("lists", Met, Unmet), name="hosts"
        )
        def hosts(state: Host, event: Met) -> Host:
            return state

    with pytest.raises(ViewDefinitionError, match="malformed"):
        app.fold(key="customer", purpose=Purpose("lists", Agreed, Agreed), name="other")(
            readers.fold.evolve
        )

    def plain(state: Plan, event: Signed) -> Plan:
        return state

    app.fold(key="customer", name="plain")(plain)
    plans = app.fold(key="customer", name="plans", purpose=NEWSLETTER)(plain)
    counted = "SELECT plan, count(*) AS people FROM {} GROUP BY 1"
    for reads, purpose, why in (
        (plans.name, None, "for the purpose 'newsletter'"),
        (plans.name, Purpose("profiling", Agreed, TookBack), "for the purpose 'newsletter'"),
        ("plain", NEWSLETTER, "'plain' that it reads is for none"),
        ("customer.signed", NEWSLETTER, "do not say who agrees"),
        (readers.name, NEWSLETTER, "opens personal fields"),
    ):
        with pytest.raises(ViewDefinitionError, match=why):
            statement = counted.format(reads)
            if reads == readers.name:
                statement = statement.replace("plan", "mail")
            app.sql("sums", sql=statement, purpose=purpose)
    with pytest.raises(CommandDefinitionError, match="for a purpose"):
        app.command(readers)(lambda state, command: None)
