"""The page as an operator meets it, in headless Chromium."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from decimal import Decimal

import httpx
import pytest
import pytest_asyncio

from headwater.entrances.console import HEADERS
from headwater.entrances.http import asgi
from tests.support import browser, shop
from tests.support.web import NDJSON, api, line, serving_of, shop_app, token_for

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]
seen = pytest.mark.skipif(
    browser.CHROMIUM is None, reason="no chromium is installed: apt-get install chromium"
)
HOSTILE = "<script>document.title='owned'</script><img/src=x/onerror=alert(1)>"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium():
    async with browser.chromium() as started:
        yield started


async def append(client, *lines):
    response = await client.post("/v1/events", content=b"".join(lines), headers=NDJSON)
    response.raise_for_status()
    return response.json()["token"]


async def shows(tab, selector, text):
    """Waits until an element has a text."""
    await tab.locator(selector).filter(has_text=text).first.wait_for()


@asynccontextmanager
async def looking(chromium, client, place="", **options):
    """The page of a served shop, opened by the link that `headwater up` prints."""
    async with chromium.visit(client.server.url, **options) as tab:
        await tab.goto(f"{client.server.url}/#token={client.server.local_token}")
        await tab.locator("main table").first.wait_for()
        if place:
            await tab.evaluate(f"location.hash = {place!r}")
        yield tab
        assert (tab.strays, tab.complaints) == ([], [])


# Without a browser -------------------------------------------------------------------------------


async def test_the_page_is_files_of_the_package_under_a_strict_policy(database18):
    async with api(database18, relay=False) as client:
        page = await client.get("/", headers={"Authorization": ""})
        assert page.status_code == 200
        named = re.findall(r'(?:src|href)="(console/[^"]+)"', page.text)
        assert len(named) > 10
        for path in ["", *named]:
            response = await client.get(f"/{path}")
            assert {name: response.headers[name] for name in HEADERS} == HEADERS
            same = await client.get(f"/{path}", headers={"If-None-Match": response.headers["etag"]})
            assert (response.status_code, same.status_code) == (200, 304)
            for word in ("innerHTML", "insertAdjacentHTML", "document.write", "eval(", " style="):
                assert word not in response.text
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert (await client.post("/")).status_code == 405
        assert (await client.get("/console/absent.js")).status_code == 404


async def test_a_mounted_api_may_leave_the_page_out(database18):
    app = shop_app(database18)
    async with app:
        for console, status in ((True, 200), (False, 404)):
            transport = httpx.ASGITransport(asgi(app, console=console))
            async with httpx.AsyncClient(transport=transport, base_url="http://team") as inside:
                assert (await inside.get("/")).status_code == status


# In a browser ------------------------------------------------------------------------------------


@seen
async def test_it_shows_the_log_the_doctor_and_the_views(database18, chromium):
    async with api(database18) as client:
        await append(client, *(line(n) for n in range(20)))
        async with looking(chromium, client) as tab:
            assert "hw_" not in tab.url  # the token left the address
            assert not [url for url in tab.asked if "hw_" in url]
            await shows(tab, "tr:has-text('orders')", "current")
            await shows(tab, ".log", "Relays alive")
            await shows(tab, ".heading:has(#doctor)", "attention")
            await append(client, *(line(n) for n in range(50)))
            await tab.locator(".figure").filter(has_text=re.compile(r"[1-9]")).wait_for()
            assert await tab.locator(".spark .line").get_attribute("d")
            row = tab.locator("tr:has-text('sales')")
            assert (await row.locator("td.number").all_inner_texts())[0] == "0"


@seen
async def test_what_comes_from_other_services_is_shown_where_anything_does(database18, chromium):
    async with api(database18) as client, looking(chromium, client) as tab:
        await tab.locator("main table").first.wait_for()
        received = tab.locator("section", has=tab.locator("h2", has_text="From other services"))
        assert not await received.is_visible()
        with database18.admin() as admin:
            admin.execute(
                "INSERT INTO headwater.inboxes (inbox, source, channel, position) VALUES ('inbox/shop/<b>', 'shop', 'c', 1234)"
            )
        row = received.locator("tbody tr")
        await row.wait_for()
        cells = [text.strip() for text in await row.locator("td").all_inner_texts()]
        assert cells[:3] == ["shop/<b>", "not driven", "1,234"]
        assert cells[3].endswith("ago")
        assert cells[4:] == ["0", "nobody"]


async def test_a_row_unfolds_into_the_events_behind_it(database18, chromium):
    async with api(database18) as client:
        await append(client, line("a", total="5"), line("b", total="1"))
        await append(client, line("a", total="7"))
        async with looking(chromium, client, "#/views/orders") as tab:
            await shows(tab, "section:has(#rows) td", "12")
            await tab.locator("section:has(#rows) button.row", has_text="a").first.click()
            await shows(tab, ".event", "2 events behind it")
            rows = tab.locator(".event tbody tr")
            assert ["5" in text for text in await rows.all_inner_texts()] == [True, False]
            await append(client, line("a", total="30"))  # the row goes on beneath it
            await shows(tab, "section:has(#rows) td", "42")
            await tab.locator("section:has(#rows) button.row[aria-expanded=true]").click()
            assert await tab.locator(".event").count() == 0


@seen
async def test_an_append_appears_in_the_tail_and_a_filter_narrows_it(database18, chromium):
    async with api(database18) as client:
        await append(client, line("before"))
        async with looking(chromium, client, "#/tail") as tab:
            await shows(tab, ".heading .state", "live")
            await shows(tab, "main td.name", "order/before")
            await append(client, line("during"))
            await shows(tab, "main td.name", "order/during")
            await tab.keyboard.press("Space")
            await append(client, line("paused"))
            await shows(tab, ".heading .state", "paused, 1 new")
            assert await tab.locator("main td.name").filter(has_text="order/paused").count() == 0
            await tab.keyboard.press("Space")
            await shows(tab, "main td.name", "order/paused")
            assert await tab.locator(".events tbody").count() == 3
            await tab.keyboard.press("/")
            await tab.keyboard.type("order/during")
            await tab.keyboard.press("Enter")
            await append(client, line("other"), line("during", total="77"))
            await shows(tab, "main td.data", "77")
            names = await tab.locator("main td.name").all_inner_texts()
            assert set(names) == {"order/during"}
            await tab.locator("#filter").fill("no filter")
            await tab.keyboard.press("Enter")
            await shows(tab, ".error", "such as order.placed")


@seen
async def test_it_recovers_by_itself_when_the_server_comes_back(database18, chromium):
    app = shop_app(database18, tenant="main")
    async with app, chromium.visit("http://127.0.0.1") as tab:
        tab.strays = None
        async with serving_of(app) as client:
            url = client.server.url
            made, _ = await token_for(client, scopes=("read",))
            tab.strays = []
            await tab.goto(f"{url}/#token={made.text}")
            await tab.locator("main table").first.wait_for()
            await tab.evaluate("location.hash = '#/tail'")
            await shows(tab, ".heading .state", "live")
            await append(client, line("first"))
            await shows(tab, "main td.name", "order/first")
        await shows(tab, ".heading .state", "reconnecting")
        await shows(tab, "#banner", "The server does not answer.")
        assert await tab.locator("main td.name").all_inner_texts() == ["order/first"]
        await app.append(shop.Placed("meanwhile", Decimal(5)))
        async with serving_of(app, url.removeprefix("http://")) as client:
            await shows(tab, ".heading .state", "live")
            await append(client, line("after"))
            await shows(tab, "main td.name", "order/after")
            names = await tab.locator("main td.name").all_inner_texts()
            assert names == ["order/after", "order/meanwhile", "order/first"]
            await tab.locator("#banner").wait_for(state="hidden")


@seen
async def test_hostile_text_is_shown_and_nothing_else(database18, chromium):
    async with api(database18) as client:
        note = {"note": HOSTILE + "x" * 30_000}
        await append(client, line(HOSTILE + "\u202e", metadata=note))
        async with looking(
            chromium, client, "#/tail", viewport={"width": 360, "height": 740}
        ) as tab:
            await shows(tab, "main td.name", "order/<script>")
            assert "\\u202e" in await tab.locator("main td.name").first.inner_text()
            await tab.locator("main button.row").click()
            await shows(tab, "pre", HOSTILE)
            await shows(tab, "button", "Show all 30,")
            await tab.locator("main td.name a").click()
            await shows(tab, "h1", "order/<script>")
            await tab.locator("main button.row").wait_for()
            await tab.evaluate("location.hash = '#/views/orders'")
            await shows(tab, "main td", HOSTILE)
            assert "owned" not in await tab.title()
            assert await tab.locator("main script, main img").count() == 0
            assert await tab.evaluate("document.documentElement.scrollWidth") == 360


@seen
async def test_everything_can_be_reached_by_keys(database18, chromium):
    async def focused(tab):
        return await tab.evaluate("document.activeElement.textContent")

    async with api(database18) as client:
        await append(client, line(1), line(1), line(2))
        async with looking(chromium, client) as tab:
            await tab.keyboard.press("Tab")
            assert await focused(tab) == "Skip to the content"
            await tab.keyboard.press("?")
            assert await tab.locator("#help").is_visible()
            await tab.keyboard.press("Escape")
            assert not await tab.locator("#help").is_visible()
            for key in ("j", "j", "ArrowUp", "k", "j", "j"):
                await tab.keyboard.press(key)
            assert await focused(tab) == "sales"
            await tab.keyboard.press("Enter")
            await shows(tab, "h1", "sales")
            assert await focused(tab) == "sales"
            await shows(tab, ".definition", "GROUP BY 1")
            await tab.keyboard.press("Escape")
            await shows(tab, "#views", "Views")
            await tab.locator("a.row:focus").wait_for()
            assert await focused(tab) == "sales"
            await tab.keyboard.press("g")
            await tab.keyboard.press("s")
            await shows(tab, "h1", "Streams")
            await tab.keyboard.press("/")
            await tab.keyboard.type("order/1")
            await tab.keyboard.press("Enter")
            await shows(tab, "main [role=status]", "2 events")
            await tab.keyboard.press("j")
            await tab.keyboard.press("Enter")
            await shows(tab, "pre", '"order": "1"')
            await tab.keyboard.press("Escape")
            await shows(tab, "h1", "Streams")
            await tab.keyboard.press("g")
            await tab.keyboard.press("t")
            await shows(tab, "h1", "Tail")


@seen
async def test_dark_and_light_follow_the_system_and_the_button(database18, chromium):
    async def ground(tab):
        return await tab.evaluate("getComputedStyle(document.documentElement).backgroundColor")

    async with api(database18) as client, looking(chromium, client, color_scheme="dark") as tab:
        dark = await ground(tab)
        await tab.click("#theme")
        light = await ground(tab)
        assert dark != light
        await tab.reload()
        assert await ground(tab) == light
        await tab.emulate_media(color_scheme="light")
        await tab.click("#theme")
        assert await ground(tab) == dark
        await tab.click("#theme")
        assert await ground(tab) == light


@seen
async def test_without_a_token_it_asks_and_explains(database18, chromium):
    async with api(database18) as client, chromium.visit(client.server.url) as tab:
        url = client.server.url
        await tab.goto(url)
        await shows(tab, "main", "headwater token create")
        assert [path for path in tab.asked if "/v1/" in path] == []
        assert tab.complaints == []
        unknown = f"hw_{'0' * 12}_{'a' * 43}"
        await tab.locator("#token").fill(unknown)
        await tab.keyboard.press("Enter")
        await shows(tab, "[role=alert]", "not known here. headwater token list")
        reads, _ = await token_for(client, scopes=("read",))
        await tab.locator("#token").fill(reads.text)
        await tab.keyboard.press("Enter")
        await shows(tab, "main td.name", "orders")
        await tab.get_by_role("link", name="Add one").click()
        operates, _ = await token_for(client, tenant=None, scopes=("operate",))
        await tab.locator("#token").fill(operates.text)
        await tab.keyboard.press("Enter")
        await shows(tab, ".log", "Relays alive")
        await tab.evaluate("location.hash = '#/tail'")
        await shows(tab, ".heading .state", "live")
        kept = await tab.evaluate("JSON.stringify(localStorage)")
        assert "hw_" not in kept
        await tab.get_by_role("button", name="Sign out").click()
        await shows(tab, "h1", "Open with a token")
        assert await tab.evaluate("sessionStorage.getItem('headwater.tokens')") == "[]"


AUDIT = """() => {
  const named = (e) => e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.textContent.trim()
    || (e.labels && e.labels.length);
  const wrong = [];
  const all = (selector) => [...document.querySelectorAll(selector)].filter((e) => e.checkVisibility());
  for (const e of all("a, button, input, nav, section, [role=region], [role=img], table")) {
    if (!named(e)) wrong.push("no name: " + e.outerHTML.slice(0, 80));
  }
  for (const e of all("img")) if (!e.hasAttribute("alt")) wrong.push("no alt: " + e.outerHTML);
  for (const e of all("[aria-labelledby], [aria-describedby], [aria-controls]")) {
    for (const name of ["aria-labelledby", "aria-describedby", "aria-controls"]) {
      const id = e.getAttribute(name);
      if (id && !document.getElementById(id)) wrong.push(name + " leads nowhere: " + id);
    }
  }
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  if (new Set(ids).size !== ids.length) wrong.push("an id twice");
  if (document.querySelectorAll("main h1").length !== 1) wrong.push("not one h1");
  if (document.querySelectorAll("main, header.bar, nav").length !== 3) wrong.push("landmarks");
  for (const e of all("th")) if (!e.scope) wrong.push("th without scope");
  for (const e of all("button, main a.row")) {
    if (e.getBoundingClientRect().height < 20) wrong.push("too small: " + e.textContent);
  }
  if (document.documentElement.scrollWidth > innerWidth) wrong.push("wider than the window");
  return wrong;
}"""


@seen
@pytest.mark.parametrize("width", [1280, 360])
async def test_each_place_has_names_landmarks_and_fits(database18, chromium, width):
    async with api(database18) as client:
        await append(client, *(line(n, stream=f"order/{n}") for n in range(30)))
        viewport = {"width": width, "height": 740}
        async with looking(chromium, client, viewport=viewport) as tab:
            for place, ready in {
                "#/": ".log .figure",
                "#/views/sales": ".definition:not(:empty)",
                "#/streams": "main .streams li",
                "#/streams/order%2F7": "main button.row",
                "#/tail": "main button.row",
            }.items():
                await tab.evaluate(f"location.hash = {place!r}")
                await tab.locator(ready).first.wait_for()
                assert await tab.evaluate(AUDIT) == [], place


@seen
async def test_empty_places_say_what_to_do(database18, chromium):
    async with api(database18, relay=False) as client, looking(chromium, client) as tab:
        await shows(tab, ".findings", "no relay is alive")
        await shows(tab, ".findings", "Run headwater up.")
        await shows(tab, "tr:has-text('orders')", "not driven")
        for place, words in {
            "#/streams": "Append one",
            "#/streams/order%2F1": "Names are exact",
            "#/tail": "appears here by itself",
            "#/views/sales": "Nothing is parked.",
            "#/views/absent": "has no view 'absent'",
        }.items():
            await tab.evaluate(f"location.hash = {place!r}")
            await shows(tab, "main", words)
        tab.complaints = [c for c in tab.complaints if "404" not in c]
