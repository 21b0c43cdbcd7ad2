"""What every bus owes a publication: the tests that each passes, and the app that they are about."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from decimal import Decimal

import msgspec
import pytest
from jobs_shop import until

from headwater import Settings
from headwater.errors import LeaseLost, ViewStale
from headwater.relay import Batch
from headwater.testing.contract_app import Placed, published
from headwater.testing.driving import drive, publish
from headwater.views.messages import Message

SECONDS = 60


def settings_of(database, url, **given):
    return Settings(database_url=database.url, stores={"bus": url}, **given)


class PublicationGround:
    """An app with a publication, deployed and open. Subclasses say how its channel looks to another program."""

    def __init__(self, app, server):
        self.app = app
        self.server = server
        self.engine = app._open.engines["bus"]
        self.view = app.stored("orders")
        self.channel = self.view.publication.channel

    async def append(self, *orders, text=None):
        events = [Placed(order=n, keyed=f"k{n % 7}", total=Decimal(n), text=text) for n in orders]
        return await self.app.append(*events)

    async def kept(self):
        """The messages of events, in order."""
        raise NotImplementedError

    async def orders(self):
        return [msgspec.json.decode(m.body)["data"]["order"] for m in await self.kept()]

    async def end_with(self, message):
        """Has the channel end with a message, as another relay would leave it."""
        raise NotImplementedError

    async def clear(self):
        """The channel as if nothing had ever been published."""

    async def another(self):
        """The view as another process sees it."""
        view = self.app._open.views()["orders"]
        await self.app.database("headwater_relay").open()
        return view

    async def reached(self, position):
        async def has():
            async with self.app.database().connection() as connection:
                return await self.view.record.checkpoint(connection) >= position

        await until(has, seconds=SECONDS)


class PublicationContract:
    """``bus`` is declared at ``reference``, for processes; the fixtures ``ground`` and, of a channel that takes 3,000 bytes,
    ``small`` are the file's."""

    bus = None
    reference = ""

    @pytest.mark.parametrize("point", ["before publish", "after publish"])
    async def test_killed_around_a_publish_nothing_is_lost_or_doubled(self, ground, point):
        await ground.append(*range(150))
        await publish(ground.app)
        environment = {
            **os.environ,
            "HEADWATER_DATABASE_URL": ground.app.database().url,
            "HEADWATER_STORE_BUS_URL": ground.server.url,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headwater.testing.driving", self.reference, "orders", "1", point, "3",
            env=environment, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, said = await process.communicate()
        assert process.returncode == -signal.SIGKILL, said.decode()
        async with ground.app.database("headwater_relay").connection() as connection:
            recorded = await ground.view.record.checkpoint(connection)
        if point == "after publish":  # accepted, and the record does not know
            assert (await ground.kept())[-1].mark.position > recorded
        await drive(ground.app, ground.view, 2)
        assert await ground.orders() == [*range(150)]
        assert (await ground.view.verify()).summary == "equal"

    async def test_whoever_lost_the_lease_is_refused_at_once_and_later(self, ground):
        await ground.append(*range(10))
        upto = await publish(ground.app)
        earlier, later = await ground.another(), await ground.another()
        assert await earlier.open(1) == 0
        assert await later.open(2) == 0
        with pytest.raises(LeaseLost):
            await earlier.apply(Batch(0, upto))
        assert await ground.orders() == []
        with pytest.raises(LeaseLost):
            await later.open(1)
        await later.open(3)
        await later.apply(Batch(0, upto))
        with pytest.raises(LeaseLost):
            await earlier.apply(Batch(0, upto))
        assert await ground.orders() == [*range(10)]
        await earlier.close()
        await later.close()

    async def test_a_publish_that_expects_another_end_leaves_nothing(self, ground):
        await ground.append(*range(3))
        upto = await publish(ground.app)
        view = await ground.another()
        await view.open(1)
        view._sequence -= 1
        with pytest.raises(LeaseLost):
            await view.apply(Batch(0, upto))
        assert await ground.orders() == []
        await view.close()

    async def test_a_rebuild_publishes_nothing_again_and_another_edition_everything(self, ground):
        await ground.append(*range(3))
        await drive(ground.app, ground.view, 1)
        await ground.view.rebuild()
        await ground.append(3)
        await drive(ground.app, ground.view, 2)
        assert await ground.orders() == [0, 1, 2, 3]
        settings = settings_of(ground.app.database(), ground.server.url)
        async with published(settings, self.bus, edition=2) as app:
            second = type(ground)(app, ground.server)
            assert (await app.deploy())["orders"] == "stale"
            await second.view.rebuild()
            await second.clear()
            await drive(app, second.view, 3)
            assert await second.orders() == [0, 1, 2, 3]
        assert await ground.orders() == [0, 1, 2, 3]

    async def test_a_message_too_large_is_parked_and_the_next_one_goes_out(self, small):
        await small.append(0)
        await small.append(1, text="x" * 4_000)
        await small.append(2)
        await drive(small.app, small.view, 1)
        assert await small.orders() == [0, 2]
        assert (await small.view.verify()).summary == "equal except 1 parked"

    @pytest.mark.parametrize(
        ("told", "wrong"), [("another log", {"log": "another"}), ("restored", {"event": "0" * 32})]
    )
    async def test_a_log_without_the_last_message_is_told_so(self, ground, told, wrong):
        """The last message as another log, or this one before it was restored, would have left it."""
        await ground.append(*range(3))
        await drive(ground.app, ground.view, 1)
        tail = await ground.engine.messages.tail(ground.channel)
        await ground.end_with(Message(ground.channel.holds, replace(tail.mark, **wrong)))
        with pytest.raises(ViewStale, match=told):
            await drive(ground.app, ground.view, 2)
