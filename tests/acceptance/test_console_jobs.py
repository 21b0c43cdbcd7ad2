"""Jobs on the page: what waits, what died, replayed one by one and all at once, queues paused, schedules."""

from __future__ import annotations

import jobs_shop
import pytest
import pytest_asyncio
from jobs_shop import until

from tests.support import browser
from tests.support.web import serving_of

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(browser.CHROMIUM is None, reason="no chromium is installed: apt-get install chromium"),
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium():
    async with browser.chromium() as started:
        yield started


async def dead_letters(app, count):
    """One of its own job, the others of another."""
    await app.enqueue(app.jobs["fail"](9, poison=True))
    await app.enqueue(*[app.jobs["refuse"]() for _ in range(count - 1)])
    async with app.working("plain"):

        async def dead():
            return len(await app.jobs_now.dead()) == count

        await until(dead)


async def test_operators_see_work_and_replay_one_many_and_all(database18, chromium):
    app = jobs_shop.make(database18)
    app.schedule("nightly", app.jobs["note"]("<b>"), cron="30 2 * * *", zone="Europe/Berlin")
    async with app, serving_of(app) as client, chromium.visit(client.server.url) as tab:
        await dead_letters(app, 4)
        # The list and each row come to be by polls of the page; locators wait for them.
        await tab.goto(f"{client.server.url}/#token={client.server.local_token}")
        await tab.locator("main table").first.wait_for()
        await tab.keyboard.press("g")
        await tab.keyboard.press("j")
        letters = tab.locator("section", has=tab.locator("h2", has_text="Dead letters"))
        await letters.locator("tbody tr").nth(3).wait_for()
        assert await letters.locator("tbody tr").count() == 4
        await tab.locator("td", has_text="30 2 * * *").wait_for()
        row = letters.locator("tr", has_text="poison")
        await row.locator("summary").click()
        await row.locator("pre", has_text="Attempt 3").wait_for()

        await row.get_by_role("button", name="Replay").click()
        await row.wait_for(state="detached")
        assert await letters.locator("tbody tr").count() == 3
        await letters.locator("select").select_option("plain")
        await letters.get_by_role("button", name="Replay all of plain").click()
        await tab.locator("dialog.question").get_by_role("button", name="Cancel").click()
        assert len(await app.jobs_now.dead()) == 3
        await letters.get_by_role("button", name="Replay all of plain").click()
        await tab.locator("dialog.question").get_by_role("button", name="Replay").click()
        await letters.locator(".empty").wait_for()
        assert await app.jobs_now.dead() == []
        (plain,) = [one for one in await app.jobs_now.queues() if one.queue == "plain"]
        assert plain.waiting == 4

        await tab.get_by_role("button", name="Pause the queue plain").click()
        await tab.get_by_role("button", name="Resume the queue plain").wait_for()
        (plain,) = [one for one in await app.jobs_now.queues() if one.queue == "plain"]
        assert plain.paused
        assert (tab.strays, tab.complaints) == ([], [])
