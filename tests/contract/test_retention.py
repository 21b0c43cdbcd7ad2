"""What is kept for a time is unreadable when its time is over, and a signed fact says so."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Annotated

import pytest
from test_opening import ADA, make, registered
from warm import warm

from headwater import Document, Event
from headwater.errors import EventDefinitionError, InvalidEvent, SubjectForgotten
from headwater.events import EventType, Personal
from headwater.personal import FORGOTTEN, Retention
from headwater.testing.driving import drive, publish

pytestmark = pytest.mark.postgres
ADDRESS = "198.51.100.7"
TODAY = datetime.now(UTC).date()
LATER = TODAY + timedelta(days=14)


class Visited(Event, type="visit.seen", stream="visit/{visit}"):
    visit: str
    customer: str
    mail: Annotated[str, Personal("customer")]
    address: Annotated[str, Personal("customer", keep_days=14)]


class Seen(Document):
    addresses: tuple[str, ...] = ()


def declare(app):
    app.events.add(Visited)

    @app.fold(key="customer", opens=["address"])
    def seen(state: Seen, event: Visited) -> Seen:
        return state.but(addresses=(*state.addresses, event.address))

    return seen


@pytest.fixture
def people(database18, tmp_path):
    app = make(database18, tmp_path)
    return app, declare(app)


async def opened(app):
    events = [e.event for e in await app.log.read(types=["visit.seen"], tenant="main")]
    return [(e.mail, e.address) for e in await app.open_sealed(events)]


async def test_what_is_due_is_sealed_off_with_proof(people, database18):
    app, seen = people
    async with app:
        await app.deploy()
        await app.append(
            Visited("a", "1", ADA, ADDRESS),
            Visited("b", "1", ADA, ADDRESS),
            Visited("c", "2", "b@x", ADDRESS),
        )
        await drive(app, app.stored("seen"), 1)
        assert (await seen.get("1")).addresses == (ADDRESS, ADDRESS)
        forgetting = await app.forgetting()
        before = await Retention(forgetting).apply(TODAY)
        assert (before.keys, before.places) == ({}, ())
        done = await Retention(forgetting).apply(LATER)
        assert done.keys == {"main": 2}
        assert sorted((f.where, f.purged) for f in done.places) == [
            ("view seen", 1),
            ("view seen", 1),
        ]
        assert await opened(app) == [(ADA, FORGOTTEN), (ADA, FORGOTTEN), ("b@x", FORGOTTEN)]
        assert (await seen.get("1")).addresses == (FORGOTTEN, FORGOTTEN)
        assert (await app.stored("seen").verify()).summary == "equal"
        assert registered(database18) == 0
        (fact,) = await app.log.stream(f"retention/{done.run}", tenant="main")
        parts = (forgetting.log_id, "main", done.run, str(LATER), "2", fact.event.at.isoformat())
        assert forgetting.signer.holds(fact.event.signature, "retention", *parts)
        assert len(list(forgetting.ledger)) == 2
        assert (await Retention(forgetting).apply(LATER)).keys == {}
        assert (await forgetting.forget("1", "main")).holds


async def test_a_run_that_was_killed_is_ended_by_the_next(people, database18):
    app, seen = people
    async with app:
        await app.deploy()
        await app.append(Visited("a", "1", ADA, ADDRESS))
        await drive(app, app.stored("seen"), 1)
        retention = Retention(await app.forgetting())
        assert await retention._destroy_some(LATER, "00000000-0000-4000-8000-000000000000") == [
            "main"
        ]
        assert (await seen.get("1")).addresses == (ADDRESS,)
        done = await retention.apply(LATER)
        assert (done.keys, [f.purged for f in done.places]) == ({}, [1])
        assert (await seen.get("1")).addresses == (FORGOTTEN,)


async def test_forgetting_takes_what_is_kept_for_a_time_too(people, database18):
    app, seen = people
    async with app:
        await app.deploy()
        await app.append(Visited("a", "1", ADA, ADDRESS), Visited("b", "2", "b@x", ADDRESS))
        await drive(app, app.stored("seen"), 1)
        certificate = await (await app.forgetting()).forget("1", "main")
        assert certificate.holds
        assert (certificate.sealed_events, certificate.canaries) == (1, 2)
        assert await opened(app) == [(FORGOTTEN, FORGOTTEN), ("b@x", ADDRESS)]
        assert (await seen.get("1")).addresses == (FORGOTTEN,)
        # A process that has the person's key in memory makes one for the next week: nobody opens by it.
        cache = app._open.personal.sealing.keys._by_subject
        cache.pop(next(name for name in cache if name[1].startswith("1\x1f")))
        with database18.admin() as admin:
            admin.execute("DELETE FROM headwater.subject_keys WHERE subject ~ '^1\x1f'")
        await app.append(Visited("c", "1", ADA, ADDRESS))
        await publish(app)
        assert (await opened(app))[2] == (FORGOTTEN, FORGOTTEN)
        with pytest.raises(InvalidEvent, match="control character"):
            await app.append(Visited("d", "3\x1f2020-01-01", ADA, ADDRESS))
    async with app:
        with pytest.raises(SubjectForgotten):
            await app.append(Visited("d", "1", ADA, ADDRESS))


def test_a_field_that_cannot_be_kept_so_is_refused():
    class Brief(Event, type="a.brief", stream="a/{x}"):
        x: str
        y: Annotated[str, Personal("x", keep_days=3)]

    class Found(Event, type="a.found", stream="a/{x}"):
        x: str
        y: Annotated[str, Personal("x", blind="y", keep_days=30)]

    for event in (Brief, Found):
        with pytest.raises(EventDefinitionError, match="cannot be kept"):
            EventType.of(event)


async def test_retaining_by_the_command_line(database18, tmp_path):
    (tmp_path / "people.py").write_text("""
from headwater import App
app = App("people", events=[], tenant="main")
""")
    async with make(database18, tmp_path) as app:
        await app.deploy()
        settings = app.settings
    environment = {
        "HEADWATER_DATABASE_URL": database18.url, "HEADWATER_APP": "people:app", "PATH": "/usr/bin:/bin",
        "HEADWATER_MASTER_KEY": settings.master_key, "HEADWATER_SIGNING_KEY": settings.signing_key,
        "HEADWATER_FORGOTTEN_LEDGER": settings.forgotten_ledger,
    }  # fmt: skip
    done = await asyncio.to_thread(warm().run, ["retain", "--json"], cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["keys"] == {}
    shown = await asyncio.to_thread(warm().run, ["retain"], cwd=tmp_path, env=environment)
    assert "0 keys" in shown.stdout
