"""The story that the example tells, in chapters; what should be is checked."""

from __future__ import annotations

import asyncio
from collections import Counter

from msgspec.structs import replace
from rich.console import Console

from examples.football.app import LINES, Football, football
from examples.football.books import open_books, statement
from examples.football.domain import (
    Booked,
    Ended,
    NotUnderWay,
    Reacted,
    RuleBroken,
    Score,
    Scored,
    Whistle,
)
from examples.football.playback import play_back, told
from examples.football.readers import (
    breaking_news,
    goals_by_cup,
    goals_by_quarter,
    on_screen,
    scorers,
    trending,
)
from examples.football.referee import decide
from examples.football.show import serve
from examples.football.source import Played, Source
from examples.telling import Story
from headwater import Accepted, Rejection, Token

KNOWN = {"WC-2014": 171, "WC-2018": 169, "WC-2022": 172}
LIVE = "live-final"
OFF_AIR_SECONDS = 20


async def run(console: Console, source: Source, address: str | None = None) -> bool:
    """Whether all checks held. With an address the page is served there in the end, until it is interrupted."""
    story = Story(console)
    story.say(f"The data is {source.about}.")
    running, next_release = football(), football("statistics_by_quarter")
    async with running.app, next_release.app:
        await running.app.deploy()
        async with running.app.transaction() as tx:
            await open_books(tx, source)
        async with running.app.relay():
            token = await history(story, running, next_release, source)
        async with next_release.app.relay(), next_release.app.working():
            await the_analyst(story, next_release, source, token)
            await live(story, next_release, list(source.matches)[-1])
            await proved(story, next_release)
            story.say("\nAll checks passed." if story.passed else "\nA check failed.")
            if address is not None:
                await serve(console, next_release, list(source.matches), address)
    return story.passed


async def history(story: Story, running: Football, next_release: Football, source: Source) -> Token:
    """Every cup; from the middle on, the statistics are rebuilt in another shape beside the ones that are read."""
    story.chapter("Every cup is played back, and the statistics change their shape meanwhile")
    cups = list(source.cups.items())
    for _, cup in cups[: len(cups) // 2]:
        token = await play_back(running, cup)
    rebuild = next_release.app.rebuilding("statistics")
    assert rebuild is not None
    rebuilding = asyncio.create_task(rebuild.run())
    for _, cup in cups[len(cups) // 2 : -1]:
        token = await play_back(running, cup)
    read = await goals_by_cup(running, token)
    story.say(f"  {read.total()} goals in {len(read)} cups, read while they are rebuilt")
    story.check("cups with other goals than recorded", _differing(read, dict(cups[:-1])), [])
    verified = await rebuilding
    assert verified is not None
    story.check("the new shape and the log, before they are swapped", verified.summary, "equal")
    return await play_back(running, cups[-1][1])


async def the_analyst(story: Story, reading: Football, source: Source, token: Token) -> None:
    """The statistics in their new shape, against what is known and what was recorded."""
    story.chapter("The analyst")
    found = await goals_by_cup(reading, token)
    story.check("cups with other goals than recorded", _differing(found, source.cups), [])
    for cup, goals in KNOWN.items():
        if cup in source.cups:
            story.check(f"goals of {cup}", found[cup], goals)
    if "WC-1958" in source.cups:
        best = await scorers(reading, "WC-1958", token)
        story.check("the best of WC-1958", best.most_common(1), [("Just Fontaine", 13)])
    quarters = sorted((await goals_by_quarter(reading, token)).items())
    story.say(f"  by quarters of an hour: {', '.join(str(goals) for _, goals in quarters)}")
    for row in await reading.broken_rules.list(at_least=token):
        story.say(f"  against the rules, in {row.records} records: {row.rule}")


async def live(story: Story, football: Football, final: Played) -> None:
    """The last final again, by a referee's commands: what the rules do not allow does not happen."""
    story.chapter("Live: the last match again, by a referee's commands")
    first, *_ = records = [record.decision for record in final.records]
    early = await decide(football, replace(first, match=LIVE))
    story.check("before the kick-off", early, NotUnderWay("not begun"))
    await decide(football, replace(final.kick_off, match=LIVE, cup="live"))
    posts, refused = [], []
    for number, decision in enumerate(records):
        command = replace(decision, match=LIVE)
        answer = await decide(football, command, request=f"{LIVE}-{number}")
        again = await decide(football, command, request=f"{LIVE}-{number}")
        if isinstance(answer, Rejection):
            refused.append(decision.player)
            continue
        assert isinstance(again, Accepted)
        assert again.duplicate
        posts += [event.moment for event in answer.events if isinstance(event, Scored | Booked)]
    broken = [fact.event.player for fact in told(final) if isinstance(fact.event, RuleBroken)]
    story.check("refused live, and noted in playback", refused, broken)
    token = await react(football, posts)
    await what_they_see(story, football, final, token)


async def react(football: Football, posts: list[str]) -> Token:
    """Fans, made up: the later a moment, the more they like it."""
    likes = [Reacted(moment, 10 * number) for number, moment in enumerate(posts, start=1)]
    return (await football.app.append(*likes)).token


async def what_they_see(story: Story, football: Football, final: Played, token: Token) -> None:
    """Each reader, no older than the last write."""
    ticker = await on_screen(football, LIVE, token)
    assert ticker is not None
    story.say("  the ticker: " + " | ".join([ticker.score, *ticker.lines[:3]]))
    story.check("lines of the ticker", len(ticker.lines), LINES)
    feed = await trending(football, token)
    story.say(f"  trending: {feed[0].content} {' '.join(feed[0].hashtags)}")
    likes = [post.engagement for post in feed]
    story.check("posts, the most liked first", likes, sorted(likes, reverse=True))
    whistled = await decide(football, Whistle(LIVE, final.penalties), on_air_seconds=0)
    assert isinstance(whistled, Accepted)
    (ended,) = whistled.events
    assert isinstance(ended, Ended)
    news = await breaking_news(football, whistled.token)
    for headline, urgency in news:
        story.say(f"  news {urgency}: {headline}")
    story.check("the most urgent news", news[0], (headline_of(ended), 100))
    older = [row for row in await football.news.list() if row.stream != f"match/{LIVE}"]
    story.check("news that is older than a day", older, [])
    async with asyncio.timeout(OFF_AIR_SECONDS):
        while await on_screen(football, LIVE, None) is not None:
            await asyncio.sleep(0.05)
    story.check("the ticker, off the air", await on_screen(football, LIVE, None), None)


async def proved(story: Story, football: Football) -> None:
    """Each view is the fold of the log, and so are the books."""
    story.chapter("Proved")
    for view in football.app.views:
        verified = await football.app.stored(view).verify()
        story.check(f"{view} and the log", verified.summary, "equal")
    async with football.app.transaction() as tx:
        differing = await (await tx.connection.execute(statement("books_and_log"))).fetchall()
    story.check(
        "rows of the books that the log does not have, and the other way round", differing, []
    )


def headline_of(ended: Ended) -> str:
    """As the news has it."""
    return f"{ended.home} {ended.goals_home}:{ended.goals_away} {ended.away}"


def _differing(found: Counter[str], cups: dict[str, list[Played]]) -> list[str]:
    """Cups of which other goals are found than recorded."""
    return [
        cup
        for cup, matches in cups.items()
        if found[cup] != sum(isinstance(r.decision, Score) for m in matches for r in m.records)
    ]
