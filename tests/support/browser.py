"""A headless Chromium that looks at the page, and remembers what it asked for and complained about."""

from __future__ import annotations

import shutil
from contextlib import asynccontextmanager

CHROMIUM = shutil.which("chromium")
SECONDS = 60
PROGRAM = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
)


class Browser:
    """One browser; each visit has an empty storage."""

    def __init__(self, chromium):
        self._chromium = chromium

    @asynccontextmanager
    async def visit(self, origin, **options):
        """An empty tab that knows where it may ask: `tab.strays` and `tab.complaints` should stay empty."""
        context = await self._chromium.new_context(locale="en-GB", **options)
        try:
            tab = await context.new_page()
            tab.set_default_timeout(SECONDS * 1000)
            tab.strays, tab.complaints, tab.asked = [], [], []
            tab.on("request", lambda request: _note(tab, origin, request.url))
            tab.on("console", lambda said: _heed(tab, said))
            tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
            tab.on("dialog", lambda dialog: tab.complaints.append(f"dialog: {dialog.message}"))
            yield tab
        finally:
            await context.close()


def _note(tab, origin, url):
    tab.asked.append(url)
    if not url.startswith(f"{origin}/"):
        tab.strays.append(url)


def _heed(tab, said):
    if said.type in {"error", "warning"}:
        tab.complaints.append(said.text)


@asynccontextmanager
async def chromium():
    """The installed Chromium, driven over its own protocol."""
    from playwright.async_api import async_playwright

    async with async_playwright() as driver:
        started = await driver.chromium.launch(executable_path=CHROMIUM, args=list(PROGRAM))
        try:
            yield Browser(started)
        finally:
            await started.close()
