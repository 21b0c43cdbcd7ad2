"""``--serve``: the page, and a match that is played over and over for those who look."""

from __future__ import annotations

import asyncio
from itertools import count

from msgspec.structs import replace
from rich.console import Console

from examples.football.app import Football
from examples.football.domain import Booked, Reacted, Scored, SentOff, Whistle
from examples.football.page import serving
from examples.football.referee import decide
from examples.football.source import Played
from headwater import Accepted
from headwater.entrances.http import listen

LIVE = "live"


async def serve(console: Console, football: Football, matches: list[Played], address: str) -> None:
    """Until it is interrupted. Every match is a new stream; the page follows the one that is on."""
    async with serving(football, listen(address)) as url:
        for number, played in zip(count(1), reversed(matches), strict=False):
            match = f"{LIVE}-{number}"
            console.print(f"\nlook at it: {url}/?match={match}")
            await play(football, played, match, pause_seconds=2.0)


async def play(football: Football, played: Played, match: str, *, pause_seconds: float) -> None:
    """A recorded match by a referee's commands; fans react to what goes through."""
    await decide(football, replace(played.kick_off, match=match, cup="live"))
    for number, record in enumerate(played.records, start=1):
        await asyncio.sleep(pause_seconds)
        answer = await decide(football, replace(record.decision, match=match))
        if isinstance(answer, Accepted):
            posted = [e.moment for e in answer.events if isinstance(e, Scored | Booked | SentOff)]
            if posted:
                await football.app.append(*(Reacted(moment, 7 * number) for moment in posted))
    await decide(football, Whistle(match, played.penalties))
