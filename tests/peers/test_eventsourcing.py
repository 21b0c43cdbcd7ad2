"""The conformance tests that the library eventsourcing publishes for its recorders, run against Headwater.

Left out: recorders that track what other applications have processed (here a view's checkpoint does that), and the
infrastructure factory, which is about that library's own settings.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from uuid import UUID

import pytest
from eventsourcing.tests.persistence import (
    AggregateRecorderTestCase,
    ApplicationRecorderTestCase,
    NonInterleavingNotificationIDsBaseCase,
)

from headwater import App, Settings
from tests.peers.eventsourcing_recorder import HeadwaterRecorder, OneAtATime, Stored

pytestmark = pytest.mark.postgres


@contextmanager
def followed(url):
    """A relay in a thread: it publishes the watermark that readers follow."""
    ready, ended = threading.Event(), threading.Event()
    app = App("peer", events=[Stored], tenant="main", settings=Settings(database_url=url))

    async def drive():
        async with app:
            await app.deploy()
            async with app.relay():
                ready.set()
                await asyncio.to_thread(ended.wait)

    thread = threading.Thread(target=lambda: asyncio.run(drive()))
    thread.start()
    try:
        assert ready.wait(60)
        yield
    finally:
        ended.set()
        thread.join()


class OnHeadwater:
    """A log of the test's own."""

    @pytest.fixture(autouse=True)
    def _log(self, database18):
        self.recorders = []
        with followed(database18.url):
            self.url = database18.url
            yield
            for recorder in self.recorders:
                recorder.close()

    recorder = HeadwaterRecorder

    def create_recorder(self):
        made = self.recorder(self.url, UUID)
        self.recorders.append(made)
        return made


class AsAggregates(HeadwaterRecorder):
    """Tells no notification ids: the tests of recorders without notifications ask for none."""

    def insert_events(self, stored_events, **options):
        super().insert_events(stored_events, **options)


class TestAggregateRecorder(OnHeadwater, AggregateRecorderTestCase):
    recorder = AsAggregates


class TestApplicationRecorder(OnHeadwater, ApplicationRecorderTestCase):
    def test_insert_subscribe(self):
        self.optional_test_insert_subscribe()


class TestNotificationIdsOfInsertsInTurn(OnHeadwater, NonInterleavingNotificationIDsBaseCase):
    """The library wants the ids of one insert apart from those of another.

    Headwater's writers draw positions without waiting for each other, so those of two commits may interleave, each stream's
    in order. Whoever wants them apart takes a lock of their own, as here.
    """

    recorder = OneAtATime
