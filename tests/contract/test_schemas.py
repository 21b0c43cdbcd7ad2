"""Before a deploy: what `headwater schema check` finds; and two versions of an app on one log."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any, Literal

import msgspec
import pytest

from headwater import App, Document, Event, Settings
from headwater.events import Cast, Computed, Default, EventType, EventTypes, Remove, Rename
from headwater.events.compatibility import fits, going_back, reading_old
from headwater.events.schema import schema_of
from headwater.operations.schemas import check_schemas
from headwater.testing.driving import publish

pytestmark = pytest.mark.postgres


class PaidOnce(Event, type="bill.paid", stream="bill/{bill}"):
    bill: str
    cents: int
    method: Literal["card", "cash"]
    note: str | None = None


def newest(upcasts, /, version=2, **fields):
    """Version 2 of the type, with other fields and steps."""
    annotations = {"bill": str, "cents": int, "method": Literal["card", "cash"], "note": str | None}
    annotations |= fields
    annotations = {name: kind for name, kind in annotations.items() if kind is not ...}
    made = type(Event)("Paid", (Event,), {"__annotations__": annotations}, type="bill.paid", stream="bill/{bill}", version=version, upcasts=upcasts)  # fmt: skip
    return EventType.of(made)


@pytest.mark.parametrize(
    ("declared", "old", "back"),
    [
        (newest({1: [Default("note", None)]}), [], []),
        (newest({}), ["the field note may be missing"], []),
        (newest({}, note=...), ["the field note was removed"], []),
        (newest({1: [Remove("note")]}, note=...), [], []),
        (newest({1: [Remove("note")]}, note=..., by=str), ["the field by is new, required, and has no default"], []),
        (newest({1: [Remove("note"), Default("by", "x")]}, note=..., by=str), [], []),
        (newest({1: [Remove("note"), Default("by", 3)]}, note=..., by=str), ["the field by was one of 3 and is string"], []),
        (newest({1: [Remove("note"), Rename("cents", "amount")]}, note=..., cents=..., amount=int), [], ["the field cents is gone"]),
        (newest({1: [Remove("note")]}, note=..., cents=str), ["the field cents was integer and is string"], ["the field cents is string and was integer"]),
        (newest({1: [Remove("note"), Cast("cents", str)]}, note=..., cents=str), [], ["the field cents is string and was integer"]),
        (newest({1: [Remove("note")]}, note=..., cents=float), [], ["the field cents is number and was integer"]),
        (newest({1: [Remove("note")]}, note=..., method=Literal["card", "cash", "gift"]), [],
         ["the field method is one of 'card', 'cash', 'gift' and was one of 'card', 'cash'"]),
        (newest({1: [Remove("note")]}, note=..., method=Literal["card"]), ["the field method was one of 'card', 'cash' and is one of 'card'"], []),
        (newest({1: [Remove("note"), Computed("euros", "round(cents * 0.01, 2)", {"cents": int})]}, note=..., euros=Decimal), [], []),
        (newest({1: [lambda data: data]}, note=..., whatever=str), [], []),
    ],
)  # fmt: skip
def test_what_stands_between_two_versions(declared, old, back):
    schema = EventType.of(PaidOnce).schema
    assert [issue.problem for issue in reading_old(declared, 1, schema)] == old
    assert [issue.problem for issue in going_back(declared, 1, schema)] == back


class Inner(msgspec.Struct, frozen=True):
    a: int


class Wider(msgspec.Struct, frozen=True):
    a: int | None
    b: str = ""


@pytest.mark.parametrize(
    ("given", "wanted", "fit"),
    [
        (int, Decimal, True), (str, Decimal, False), (Decimal, str, False), (int, int | None, True), (int | None, int, False),
        (Inner, Wider, True), (Wider, Inner, False), (list[Inner], list[Wider], True), (list[int], list[str], False),
        (dict[str, int], dict[str, float], True), (str, Any, True), (Any, str, False), (bool, int, False),
    ],
)  # fmt: skip
def test_which_values_fit(given, wanted, fit):
    def schema(kind):
        return schema_of(msgspec.defstruct("One", [("x", kind)], frozen=True))["properties"]["x"]

    assert fits(schema(given), schema(wanted)) is fit


async def test_history_is_read_by_python_and_by_sql(database):
    async with app_of(database, PaidOnce) as app:
        await app.deploy()
        await app.append(*(PaidOnce(str(n), n, "card") for n in range(30)))
        await publish(app)
        operator = app.database("headwater_operator")
        (same,) = await check_schemas(operator, app.events)
        assert (same.state, same.events, same.ok) == ("same", 30, True)

        def checked(declared, **options):
            return check_schemas(operator, EventTypes([declared.event_class]), **options)

        seen = []
        steps = {1: [Remove("note"), Computed("share", "cents * 2", {"cents": int})]}
        declared = newest(steps, note=..., share=int)
        older, new = await checked(declared, sample=7, report=lambda *told: seen.append(told))
        assert (new.state, new.version) == ("new", 2)
        assert (older.state, older.replayed, older.failed, older.ok) == ("older", 7, 0, True)
        assert seen == [("bill.paid", 7, 7)]
        (older, _) = await checked(declared, sample=None)
        assert older.replayed == 30

        # What the schemas cannot tell, the history does: this column has no room for one of them.
        declared = newest({1: [Remove("note"), Computed("cents", "cents * 9223372036854775807", {"cents": int})]}, note=...)  # fmt: skip
        (older, _) = await checked(declared)
        assert (older.failed, older.ok) == (28, False)
        assert "the event at" in older.issues[-1].problem

        changed = newest({}, version=1, cents=str)
        (found,) = await checked(changed)
        assert (found.state, found.ok) == ("changed", False)
    async with app_of(database, newest({1: [Remove("note")]}, note=...).event_class) as app:
        await app.deploy()
    async with app_of(database, PaidOnce) as app:
        states = {(c.version, c.state, c.ok) for c in await check_schemas(app.database("headwater_operator"), app.events)}  # fmt: skip
        assert states == {(1, "same", True), (2, "newer", True)}


def app_of(database, paid):
    return App("bills", events=[paid], tenant="main", settings=Settings(database_url=database.url))


class Paid(Event, type="bill.paid", stream="bill/{bill}", version=2, upcasts={1: [Default("currency", "EUR")]}):  # fmt: skip
    bill: str
    cents: int
    method: Literal["card", "cash"]
    note: str | None = None
    currency: str = "EUR"


class Bill(Document):
    cents: int = 0
    payments: int = 0


class BillToo(Document):
    cents: int = 0
    payments: int = 0
    currency: str = ""


def before(database):
    app = app_of(database, PaidOnce)

    @app.fold(key="bill")
    def bills(state: Bill, event: PaidOnce) -> Bill:
        return state.but(cents=state.cents + event.cents, payments=state.payments + 1)

    app.sql("methods", sql="SELECT method, sum(cents) AS cents FROM bill.paid GROUP BY 1")
    return app


def after(database):
    app = app_of(database, Paid)

    @app.fold(key="bill")
    def bills(state: BillToo, event: Paid) -> BillToo:
        return state.but(
            cents=state.cents + event.cents, payments=state.payments + 1, currency=event.currency
        )

    app.sql("methods", sql="SELECT method, currency, sum(cents) AS cents FROM bill.paid GROUP BY 1, 2")  # fmt: skip
    return app


class Traffic:
    """Appends by one version of the app, each read back at its token by a version that serves readers."""

    def __init__(self, writer, reader, made):
        self.writer, self.reader, self.made = writer, reader, made
        self.payments = 0
        self._task = None
        self._turned = asyncio.Event()

    def start(self):
        self._stopping = False
        self._task = asyncio.create_task(self._run())

    async def switch(self, **parts):
        """Goes on with other parts; returns once those before are no longer in use."""
        for name, part in parts.items():
            setattr(self, name, part)
        for _ in range(2):
            self._turned = asyncio.Event()
            waiting = asyncio.create_task(self._turned.wait())
            await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()

    async def stop(self):
        self._stopping = True
        await self._task

    async def _run(self):
        while not self._stopping:
            written = await self.writer.append(self.made())
            self.payments += 1
            found = await self.reader.view("bills").get(
                "b", at_least=written.token, timeout_seconds=60
            )
            assert found.payments == self.payments, "a reader saw a gap or a double"
            self._turned.set()


async def test_two_versions_of_an_app_side_by_side_and_back_again(database18):
    """Readers first, then writers, then back: no read is refused, none is from before its token."""
    async with before(database18) as old:
        await old.deploy()
        async with old.relay():
            traffic = Traffic(old, old, lambda: PaidOnce("b", 2, "card"))
            traffic.start()
            async with after(database18) as new, new.relay():
                # Readers first: the new code's views are built beside and swapped, while the old code writes.
                await new.deploy()
                for view in new.views:
                    assert (await new.rebuilding(view).run()).summary == "equal"
                await traffic.switch(reader=new)
                # Then writers. The old code's readers go on: what is new, they pass by.
                await traffic.switch(writer=new, made=lambda: Paid("b", 2, "cash", currency="USD"))
                written = await new.append(Paid("c", 5, "cash", currency="USD"))
                row = await new.view("bills").get("c", at_least=written.token, timeout_seconds=60)
                assert row.currency == "USD"
                seen = await old.view("bills").get("c", at_least=written.token, timeout_seconds=60)
                assert (seen.cents, seen.payments) == (5, 1)
                (newest_event,) = await old.log.stream("bill/c", tenant="main")
                assert newest_event.event == PaidOnce("c", 5, "cash")
                # And back: the old code writes and reads again, over a log that holds both.
                await traffic.switch(writer=old, made=lambda: PaidOnce("b", 2, "card"))
                for view in old.views:
                    assert (await old.rebuilding(view).run()).summary == "equal"
                await traffic.switch(reader=old)
            written = await old.append(PaidOnce("c", 1, "cash"))
            row = await old.view("bills").get("c", at_least=written.token, timeout_seconds=60)
            assert (row.cents, row.payments) == (6, 2)
            await traffic.stop()
            assert traffic.payments > 5
            for view in old.views:
                assert (await old.stored(view).verify()).summary == "equal"
