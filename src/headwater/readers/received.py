"""Tokens of other services: what was written there, seen here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from headwater.errors import ForeignToken, KeyParked, NotCaughtUp, StaleToken
from headwater.log.database import Database
from headwater.log.tokens import parts_of
from headwater.readers.checkpoints import SQL, CheckpointWatch

DEFAULT_TIMEOUT_SECONDS = 5.0
"""How long a read with a token waits where the call does not say."""
_LOOK_SECONDS = 0.02


class Wait:
    """A time limit that several waits share; without one, the default."""

    def __init__(self, timeout_seconds: float | None) -> None:
        seconds = DEFAULT_TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds
        self._until = time.monotonic() + seconds

    @property
    def left_seconds(self) -> float:
        """What is left of it."""
        return max(self._until - time.monotonic(), 0.0)


class Received:
    """Finds what a token of another log stands for in this one. ``inboxes`` are those that the app declares."""

    def __init__(self, database: Database, watch: CheckpointWatch, inboxes: Sequence[str]) -> None:
        self._database = database
        self._watch = watch
        self._inboxes = list(inboxes)

    async def position_of(
        self, token: str, foreign: ForeignToken, *, tenant: str, wait: Wait
    ) -> int:
        """The position in this log of all that came from the other up to the token, once it has come in.

        Raises ``foreign`` where nothing is received from that log, StaleToken, NotCaughtUp, and KeyParked where a message
        of the tenant at or before it is parked, whichever key it is of: that is not known of what was not read.
        """
        of, position = parts_of(token)
        source, epoch = await self._source(of.log_id, foreign, wait)
        if epoch != of.epoch:
            raise StaleToken(
                f"The token is of epoch {of.epoch} of {source!r}, and what is received here is of epoch {epoch}.",
                hint="Read without a token and check whether the write is there.",
            )
        await self._watch.reached(f"from/{source}", position, timeout_seconds=wait.left_seconds)
        asked = {
            "inboxes": self._inboxes,
            "source": source,
            "tenant": tenant,
            "position": position,
        }
        async with self._database.connection() as connection:
            row = await (await connection.execute(SQL["readers.received"], asked)).fetchone()
        assert row is not None
        appended, parked = row
        if parked is not None:
            raise KeyParked(
                f"The message of {source!r} about its position {parked} is parked, so a read with this token would "
                "answer from before it.",
                hint="See `headwater parked`; read without a token to accept what is there.",
                position=parked,
            )
        return int(appended)

    async def _source(self, log: str, foreign: ForeignToken, wait: Wait) -> tuple[str, int]:
        """Which app's log it is, and the epoch that is received; waits for sources that are not known yet."""
        known = {"log": log, "inboxes": self._inboxes}
        while True:
            async with self._database.connection() as connection:
                row = await (await connection.execute(SQL["readers.source"], known)).fetchone()
            if row is None:
                raise foreign
            if row[1] is not None:
                return row[0], row[1]
            if not wait.left_seconds:
                raise NotCaughtUp(
                    f"Nothing has been heard of {row[0]!r} yet, whose token it may be.",
                    hint="Try again; `headwater inboxes list` shows what holds it up.",
                )
            await asyncio.sleep(min(wait.left_seconds, _LOOK_SECONDS))
