"""The football app: who reads the facts, and in which shape and store."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from examples.football import domain
from examples.football.domain import (
    Booked,
    Ended,
    KickedOff,
    Match,
    Reacted,
    RuleBroken,
    Scored,
    SentOff,
    Substituted,
    WentOffAir,
)
from headwater import App, Document, Event, FoldView, Ranking, RowsView, this_job
from headwater.jobs import Job
from headwater.stores.clickhouse import ClickHouse
from headwater.stores.redis import Redis

VIEWS = Path(__file__).parent / "sql" / "views"
DAY_SECONDS = 86_400
LINES = 10
IDLE_SECONDS = 5.0
"""How long the embedded ClickHouse, 350 MB in memory, stays after the example has gone."""

FACTS: list[type[Event]] = [
    KickedOff, Scored, Booked, SentOff, Substituted, Ended, WentOffAir, RuleBroken, Reacted
]  # fmt: skip


class Ticker(Document):
    """What a broadcaster shows of a match: its last lines, the newest first."""

    score: str = ""
    lines: tuple[str, ...] = ()


class Post(Document):
    """A post for the social feed, and how people react to it."""

    content: str = ""
    hashtags: tuple[str, ...] = ()
    engagement: int = 0


@dataclass(frozen=True)
class Football:
    """The app, and its views by who reads them."""

    app: App
    matches: FoldView[Match]
    ticker: FoldView[Ticker]
    news: RowsView[Any]
    posts: FoldView[Post]
    statistics: RowsView[Any]
    broken_rules: RowsView[Any]
    go_off_air: Job[[str], Any]


def football(statistics: str = "statistics") -> Football:
    """The app, with the analyst's statistics in one of two shapes: ``statistics`` or ``statistics_by_quarter``."""
    app = App("football", events=FACTS, tenant="fifa")
    matches = app.fold(key="match", name="matches")(domain.match_so_far)
    for rule in (domain.kick_off, domain.score, domain.show, domain.substitute, domain.whistle):
        app.command(matches)(rule)
    fast = Redis("redis")
    # ClickHouse's engine is a large wheel: without it the same SQL is kept in Postgres.
    analysis = ClickHouse("clickhouse", idle_seconds=IDLE_SECONDS) if find_spec("chdb") else None
    return Football(
        app,
        matches,
        ticker=app.fold(key="match", name="ticker", store=fast)(on_the_ticker),
        news=app.sql("news", bucket="hour", keep_seconds=DAY_SECONDS, sql=VIEWS / "news.sql"),
        posts=app.fold(key="moment", name="posts", store=fast, indexes=[Ranking("engagement")])(
            in_the_feed
        ),
        statistics=app.sql("statistics", store=analysis, sql=VIEWS / f"{statistics}.sql"),
        broken_rules=app.sql("broken_rules", sql=VIEWS / "broken_rules.sql"),
        go_off_air=app.job(queue=app.queue("broadcast"))(off_air),
    )


def on_the_ticker(
    state: Ticker, event: KickedOff | Scored | Booked | SentOff | Substituted | Ended | WentOffAir
) -> Ticker | None:
    """The broadcaster's ticker by match; gone once the match is off the air."""
    match event:
        case WentOffAir():
            return None
        case KickedOff(home=home, away=away):
            return Ticker(f"{home} 0:0 {away}", ("Kick-off",))
        case Ended(penalties=penalties):
            line = "Full time" + (f", {penalties} on penalties" if penalties else "")
        case Scored(name=name, penalty=penalty):
            line = f"Goal: {name}" + (" (penalty)" if penalty else "")
            state = state.but(score=event.score)
        case Booked(name=name):
            line = f"Yellow card: {name}"
        case SentOff(name=name, reason=reason):
            line = f"Sent off: {name} ({reason})"
        case Substituted(name=name, on_name=on_name):
            line = f"{on_name} for {name}"
    when = "" if isinstance(event, Ended) else f"{minute_of(event)}  "
    return state.but(lines=(when + line, *state.lines)[:LINES])


def in_the_feed(state: Post, event: Scored | Booked | SentOff | Reacted) -> Post:
    """A post by moment. Reactions make it rise."""
    match event:
        case Reacted(reactions=reactions):
            return state.but(engagement=state.engagement + reactions)
        case Scored():
            content, tag = f"⚽ {event.name}! {event.score}", "#Goal"
        case Booked():
            content, tag = f"🟨 {event.name} is booked in minute {event.minute}", "#YellowCard"
        case SentOff():
            content, tag = f"🟥 {event.name} is sent off in minute {event.minute}", "#RedCard"
    hashtags = ("#WorldCup", "#" + event.team.replace(" ", ""), tag)
    return state.but(content=content, hashtags=hashtags)


def minute_of(event: Scored | Booked | SentOff | Substituted) -> str:
    """A moment's minute, such as 90+3'."""
    return f"{event.minute}{f'+{event.added}' if event.added else ''}'"


async def off_air(match: str) -> None:
    """The job that ends a broadcast, some time after the match."""
    async with this_job().transaction() as tx:
        await tx.append(WentOffAir(match))


app = football().app
"""What ``HEADWATER_APP=examples.football.app:app headwater up`` runs."""
