"""Drives one view without a relay, or in a process that dies at a named point.

``python -m headwater.testing.driving MODULE:FUNCTION VIEW FENCE POINT AT_CALL`` drives a view of the
contract suite's app, whose store ``FUNCTION()`` declares, until it dies there; with ``replay`` in
place of the fence it replays instead, and with ``tend:FENCE`` it only tends.
"""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module
from typing import Any

from headwater import App, Settings
from headwater.log.database import connect
from headwater.log.ticker import Ticker
from headwater.relay import Pace
from headwater.relay.frontier import Frontier
from headwater.relay.runner import Runner
from headwater.testing.contract_app import fed, make, published, totalled
from headwater.testing.faults import die_at
from headwater.views import StoredView

_PATIENCE_SECONDS = 60
PACE = Pace(first_batch=40, longest_pause_seconds=0, attempts=0, first_retry_seconds=0.01)


async def publish(app: App) -> int:
    """Publishes the watermark up to everything appended; the watermark."""
    async with await connect(app.database().url, "headwater_relay") as connection:
        ticker = Ticker(connection)
        while await ticker.tick():
            pass
        return ticker.published


async def drive(app: App, view: StoredView, fence: int, upto: int | None = None) -> None:
    """Drives a view under a fence to the watermark of now, or up to a position."""
    frontier = Frontier()
    frontier.advance(await publish(app) if upto is None else upto)
    runner = Runner(view, fence, frontier, PACE)
    running = asyncio.create_task(runner.run())
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while runner.progress.checkpoint < frontier.position and not running.done():
                await asyncio.sleep(0)
    except TimeoutError as error:
        raise TimeoutError(f"{view.name}: {runner.standing}") from error
    finally:
        running.cancel()
        result = await asyncio.gather(running, return_exceptions=True)
    if isinstance(result[0], Exception):
        raise result[0]


async def _die(reference: str, name: str, fence: str, point: str, at_call: int) -> None:
    module, function = reference.split(":")
    store = getattr(import_module(module), function)()
    settings = Settings.from_environment()
    if name == "totals":
        app = totalled(settings, store)
    elif store is not None and "feed" in store.transforms:
        app = fed(settings, store)
    elif store is not None and "messages" in store.transforms:
        app = published(settings, store)
    else:
        app = make(settings, store, poisonous=fence != "replay")
    async with app:
        await app.database("headwater_relay").open()
        view: Any = app.stored(name)
        die_at(view, point, at_call=at_call)
        if fence == "replay":
            await view.replay()
        elif fence.startswith("tend:"):
            await view.open(int(fence.removeprefix("tend:")))
            await view.tend()
        else:
            await drive(app, view, int(fence))


if __name__ == "__main__":
    _, given, view_name, given_fence, given_point, given_call = sys.argv
    asyncio.run(_die(given, view_name, given_fence, given_point, int(given_call)))
