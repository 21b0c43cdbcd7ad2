"""The channel of a view: the rows that have changed, each as it is now.

What a message says is state, not history: the keys that events touched, and each key's row once the
view has applied them. Changes that come faster than they are read become one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
import psycopg

from headwater.app import App
from headwater.entrances.http.access import SQL
from headwater.entrances.http.keys import key_parts, row_query, written_key
from headwater.entrances.http.live.channel import Channel, Page
from headwater.entrances.http.live.messages import Message
from headwater.entrances.http.views import encode
from headwater.entrances.http.watermark import Watermark
from headwater.errors import HeadwaterError, NotCaughtUp, RequestRefused, UnknownView
from headwater.log.database import Connection
from headwater.log.tasks import ended
from headwater.readers import CheckpointWatch
from headwater.readers.handles import FoldView

_log = logging.getLogger("headwater.http.live")
_RETRY_SECONDS = 0.2
_REST_SECONDS = (0.02, 0.1)
_LOOK_SECONDS = 1.0


class Change(msgspec.Struct):
    """A row that has changed, or null where it is gone."""

    key: str
    row: msgspec.Raw | Any


class ViewChannel(Channel):
    """One tenant's changed rows of one view. Runs while someone follows it."""

    def __init__(
        self, app: App, tenant: str, view: str, watermark: Watermark, turns: asyncio.Semaphore
    ) -> None:
        super().__init__()
        self._app, self._tenant = app, tenant
        self._view, self._stored = app.view(view), app.stored(view)
        self._watermark, self._turns = watermark, turns
        self._watch = CheckpointWatch(app.database())
        self._revision = -1
        self._task: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Begins at the view's checkpoint. Raises UnknownView or RequestRefused."""
        async with self._starting:
            if self._task is None or self._task.done():
                await self._begin()

    async def _begin(self) -> None:
        if self._view.store is not None and not isinstance(self._view, FoldView):
            raise RequestRefused(
                f"The view {self._view.name!r} is in a store that does not tell what has changed.",
                hint="Follow the events, or keep the view in the log's database.",
            )
        async with self._app.database().transaction(self._tenant) as connection:
            self.position, self._revision, _ = await self._checkpoint(connection)
        self._task = asyncio.create_task(self._run(), name=f"live view {self._view.name}")

    async def close(self) -> None:
        """Ends the channel's own work. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            await ended([task])
        await self._watch.close()

    async def between(self, after: int, upto: int) -> Page:
        """The rows touched in (after, upto], as they are now."""
        async with self._turns, self._app.database().transaction(self._tenant) as connection:
            position, _, parked = await self._checkpoint(connection)
            if position < upto:
                return [], upto  # the view starts over; followers have been told
            return await self._changes(connection, after, upto, parked), upto

    async def _run(self) -> None:
        name = self._view.name
        while True:
            try:
                # A view that starts over, or a replay, is noticed although nothing is appended.
                upto = await self._watermark.beyond(self.position, timeout_seconds=_LOOK_SECONDS)
                with suppress(NotCaughtUp):
                    await self._watch.reached(name, upto, timeout_seconds=_LOOK_SECONDS)
                began = time.monotonic()
                async with self._app.database().transaction(self._tenant) as connection:
                    position, revision, parked = await self._checkpoint(connection)
                    if revision != self._revision:
                        self._revision = revision
                        self.publish(
                            [_reset(position, "the view starts over: read it again")], position
                        )
                        continue
                    if position > self.position:
                        changes = await self._changes(connection, self.position, position, parked)
                        self.publish(changes, position)
                # The log moves by all tenants' events: what changes meanwhile becomes one look.
                shortest, longest = _REST_SECONDS
                await asyncio.sleep(min(max(2 * (time.monotonic() - began), shortest), longest))
            except (HeadwaterError, psycopg.Error) as error:
                _log.warning("the channel of %s waits: %s", name, str(error).partition("\n")[0])
                await asyncio.sleep(_RETRY_SECONDS)

    async def _checkpoint(self, connection: Connection) -> tuple[int, int, list[int]]:
        cursor = await connection.execute(
            SQL["http.checkpoint"], {"view": self._view.name}, prepare=True
        )
        row = await cursor.fetchone()
        if row is None:
            raise UnknownView(
                f"The view {self._view.name!r} is not deployed.", hint="Run headwater up."
            )
        return row[0], row[1], row[2]

    async def _changes(
        self, connection: Connection, after: int, upto: int, parked: Sequence[int]
    ) -> list[Message]:
        """One message for each key; only the last says where to resume, since all are of one place."""
        touched = await self._stored.touched(connection, after=after, upto=upto, parked=parked)
        if touched is None:
            return [_reset(upto, "too much has changed: read the view again")]
        messages: list[Message] = []
        identity = self._app.database().identity
        for number, text in enumerate(touched, start=1):
            key = key_parts(text)[1:]
            row = await self._row(connection, key)
            token = str(identity.token(upto)) if number == len(touched) else None
            written = written_key(key)
            messages.append(Message(upto, token, encode(Change(written, row)), keys=(written,)))
        return messages

    async def _row(self, connection: Connection, key: Sequence[str | None]) -> msgspec.Raw | None:
        if isinstance(self._view, FoldView) and self._view.store is not None:
            document = await self._view.get(key[0], tenant=self._tenant)
            return None if document is None else msgspec.Raw(encode(document))
        statement, parameters = row_query(self._view, key)
        cursor = await connection.execute(
            statement, {"tenant": self._tenant, **parameters}, prepare=True
        )
        row = await cursor.fetchone()
        return None if row is None else msgspec.Raw(encode(self._stored.row_of(row)))


def _reset(position: int, reason: str) -> Message:
    return Message(position, None, encode({"reason": reason}), event="reset")
