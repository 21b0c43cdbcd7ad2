"""What several files of contract tests begin with."""

from __future__ import annotations

import jobs_shop
import pytest


@pytest.fixture
async def jobs_app(database):
    """The app with queues, deployed, on every supported Postgres."""
    jobs_shop.events.clear()
    async with jobs_shop.make(database) as app:
        await app.deploy()
        with database.admin() as admin:
            admin.execute(jobs_shop.LOG)
        yield app


@pytest.fixture
async def jobs_app18(database18):
    """The same on the wheel's Postgres."""
    jobs_shop.events.clear()
    async with jobs_shop.make(database18) as app:
        await app.deploy()
        with database18.admin() as admin:
            admin.execute(jobs_shop.LOG)
        yield app
