"""A feed whose store recomputes SQL views: whether it holds what a view reads, and whether it is far enough."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from headwater.errors import NotCaughtUp, QueryRefused, UnknownView, ViewStale
from headwater.log.database import Connection
from headwater.views.driving.feed import DrivenFeed
from headwater.views.driving.record import SQL
from headwater.views.recomputation import Recomputation, Recomputed, Recomputes

Reached = Callable[[int], Awaitable[None]]
"""Returns once the feed has applied the log up to a position. Raises NotCaughtUp."""


async def recompute(feed: DrivenFeed, wanted: Recomputation, reached: Reached) -> bytes:
    """The groups of a view's query over a feed, as CSV.

    Raises QueryRefused for what cannot be computed alike, before it waits; UnknownView, ViewStale and NotCaughtUp.
    """
    async with feed.database.connection() as connection:
        status = await feed.learn(connection)
        if status == "missing":
            raise UnknownView(f"The feed {feed.name!r} is not deployed.", hint="Run headwater up.")
        if status == "stale":
            raise ViewStale(
                f"The feed {feed.name!r} is stale: it holds other columns than it declares.",
                hint=f"Run headwater rebuild {feed.name}.",
            )
        place = await feed.outside.place(connection)
        answer: Recomputed = _translated(feed, wanted)(place)
        try:
            await reached(wanted.upto)
        except NotCaughtUp as error:
            raise NotCaughtUp(
                f"The feed {feed.name!r} has not reached position {wanted.upto}, where the view "
                f"{wanted.query.name!r} is, in time.",
                hint="Let a relay drive it and try again; `headwater views` shows how far it is and what holds it up.",
            ) from error
        await _check_aside(feed, wanted, connection)
    position, groups = await answer()
    if position < wanted.upto:
        raise NotCaughtUp(
            f"The store of {feed.name!r} is at position {position}, before {wanted.upto}: it starts over.",
            hint="Try again, or see `headwater views` for how far it is.",
        )
    return groups


def _translated(feed: DrivenFeed, wanted: Recomputation) -> Callable[..., Recomputed]:
    storage, view = feed.storage, wanted.query.name
    if not isinstance(storage, Recomputes):
        raise QueryRefused(
            f"The store of {feed.name!r} does not recompute views.", hint="Use a feed in a lake or in ClickHouse."
        )  # fmt: skip
    if wanted.query.over_documents:
        raise QueryRefused(
            f"The view {view!r} reads a fold's documents, and a feed holds events.",
            hint="Verify it against the log, without --by.",
        )
    _check_columns(feed, wanted)
    if (first := storage.first()) > 0:
        raise QueryRefused(
            f"The feed {feed.name!r} keeps its newest months only: what is at or below position {first} is gone.",
            hint="Recompute by a feed without keep_months.",
        )
    return lambda place: storage.recomputed(place, feed.feed.columns, wanted)


def _check_columns(feed: DrivenFeed, wanted: Recomputation) -> None:
    """Raises QueryRefused where the feed does not hold exactly what the view reads."""
    view = wanted.query.name
    for reading in wanted.query.readings:
        type_name = reading.source.name
        if type_name not in feed.feed.columns:
            raise QueryRefused(
                f"The feed {feed.name!r} lacks the events {type_name!r}, which the view {view!r} reads.",
                hint=f"It has {', '.join(feed.feed.type_names)}. Name another feed, or add the type and rebuild it.",
            )
        held = {column.name: column for column in feed.feed.columns[type_name]}
        for name in ("tenant", "position"):
            if name not in held or held[name].expression != f"e.{name}":
                raise QueryRefused(
                    f"The events {type_name!r} have a field of their own named {name!r}, which hides the event's.",
                    hint="Verify the view against the log, without --by.",
                )
        for column in reading.columns:
            if column.name not in held or held[column.name].definition != column.definition:
                raise QueryRefused(
                    f"The feed {feed.name!r} holds {type_name}.{column.name} otherwise than the view {view!r} reads it.",
                    hint="Verify the view against the log, without --by.",
                )
            if column.sealed and column.name in feed.feed.opens:
                raise QueryRefused(
                    f"The feed {feed.name!r} holds {type_name}.{column.name} in clear, and the view {view!r} reads it sealed.",
                    hint="Name a feed without opens=, or verify the view against the log, without --by.",
                )


async def _check_aside(feed: DrivenFeed, wanted: Recomputation, connection: Connection) -> None:
    """Raises QueryRefused where the feed has set an event aside that the view has not."""
    aside = {row[0] for row in await feed.record.not_applied(connection)} - set(wanted.aside)
    missing = sorted(position for position in aside if position <= wanted.upto)
    cursor = await connection.execute(SQL["opened.types"], {"positions": missing})
    read = [position for position, kind in await cursor.fetchall() if kind in wanted.query.reads]
    if read:
        raise QueryRefused(
            f"The feed {feed.name!r} lacks {len(read)} events that the view {wanted.query.name!r} has applied, since it "
            f"has set them aside; the first is at position {min(read)}.",
            hint=f"See `headwater parked --view {feed.name}`, mend the reason and run headwater rebuild {feed.name}.",
        )
