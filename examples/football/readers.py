"""What the four readers ask for."""

from __future__ import annotations

from collections import Counter
from typing import Any

from examples.football.app import Football, Post, Ticker
from examples.football.books import statement
from headwater import Token

URGENT = 70
WAIT_SECONDS = 60.0


async def on_screen(football: Football, match: str, token: Token | str | None) -> Ticker | None:
    """The broadcaster: the score and the last lines of a match."""
    return await football.ticker.get(match, at_least=token)


async def breaking_news(football: Football, token: Token | str | None) -> list[tuple[str, int]]:
    """Breaking news: headlines of the last day, the most urgent first, with their urgency."""
    rows = await football.app.query(
        statement("breaking_news").decode(),
        {"threshold": URGENT},
        views=[football.news],
        at_least=token,
    )
    return [(row["headline"], row["urgency"]) for row in rows]


async def trending(football: Football, token: Token | str | None, limit: int = 20) -> list[Post]:
    """The social feed: posts by how people react."""
    leaders = await football.posts.leaders(limit, at_least=token)
    found = [await football.posts.get(moment) for moment, reactions in leaders if reactions]
    return [post for post in found if post is not None]


async def goals_by_cup(football: Football, token: Token | None) -> Counter[str]:
    """The analyst: goals of each cup, own goals included, whatever the shape of the statistics."""
    goals: Counter[str] = Counter()
    for row in await _statistics(football, token):
        goals[row.cup] += int(row.goals + row.own_goals)
    return goals


async def goals_by_quarter(football: Football, token: Token | None) -> Counter[int]:
    """The analyst: goals in each quarter of an hour."""
    goals: Counter[int] = Counter()
    for row in await _statistics(football, token):
        goals[row.quarter] += int(row.goals + row.own_goals)
    return goals


async def scorers(football: Football, cup: str, token: Token | None) -> Counter[str]:
    """The analyst: goals of a cup by player."""
    goals: Counter[str] = Counter()
    for row in await _statistics(football, token):
        if row.cup == cup:
            goals[row.name] += int(row.goals)
    return goals


async def _statistics(football: Football, token: Token | None) -> list[Any]:
    rows = football.statistics.list(limit=100_000, at_least=token, timeout_seconds=WAIT_SECONDS)
    return list(await rows)
