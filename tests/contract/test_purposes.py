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
    with pytest.raises(ViewDefinitionError, match="for a purpose"):
        app.sql("sums", sql="SELECT domain, count(*) AS n FROM readers GROUP BY 1")
    with pytest.raises(CommandDefinitionError, match="for a purpose"):
        app.command(readers)(lambda state, command: None)
