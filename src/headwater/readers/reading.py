"""Reading views: one row, a page of rows, or SQL, each with 'at least this token'."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from psycopg import sql

from headwater.errors import ForeignToken, KeyParked, NotCaughtUp, StaleToken, UnknownView
from headwater.log.database import Database
from headwater.readers.checkpoints import SQL, CheckpointWatch
from headwater.readers.received import DEFAULT_TIMEOUT_SECONDS, Received, Wait
from headwater.views.storage import Place

T = TypeVar("T")


class Reader:
    """Reads views in the application's role, for one tenant at a time."""

    def __init__(self, database: Database, inboxes: Sequence[str] = ()) -> None:
        self._database = database
        self._watch = CheckpointWatch(database, inboxes)
        self._received = Received(database, self._watch, inboxes)

    async def close(self) -> None:
        """Ends what waits. Idempotent."""
        await self._watch.close()

    async def rows(
        self,
        statement: sql.SQL | sql.Composed,
        parameters: Mapping[str, Any],
        *,
        views: Sequence[str],
        tenant: str,
        at_least: str | None,
        timeout_seconds: float | None = None,
        key: str | None = None,
    ) -> tuple[list[str], list[tuple[Any, ...]]]:
        """The columns and rows of a statement, once every view named has reached the token.

        Raises TokenError, NotCaughtUp, and KeyParked where an event of ``key`` (or, without one, any
        of the tenant's) is parked at or before the token, so that the answer would be from before it.
        """
        position = None
        if at_least is not None:
            wait = Wait(timeout_seconds)
            position = await self.position_of(at_least, tenant=tenant, wait=wait)
            for view in views:
                await self._watch.reached(view, position, timeout_seconds=wait.left_seconds)
        guarded = {"views": list(views), "tenant": tenant, "key": key}
        async with self._database.connection() as connection:
            # One round trip. The guard comes before the rows: what is parked at or before the token has
            # been since the checkpoint got there, and a replay in between only makes the rows newer.
            async with connection.pipeline(), connection.transaction():
                await connection.execute(SQL["readers.begin"], {"tenant": tenant}, prepare=True)
                guard = await connection.execute(SQL["readers.guard"], guarded, prepare=True)
                answer = await connection.execute(statement, parameters)
            if position is not None:
                await self._check(await guard.fetchone(), views, key)
            columns = [column.name for column in answer.description or ()]
            return columns, await answer.fetchall()

    async def outside(
        self,
        read: Callable[[Place], Awaitable[tuple[int, T]]],
        *,
        view: str,
        tenant: str,
        at_least: str | None,
        timeout_seconds: float | None = None,
        key: str | None = None,
    ) -> T:
        """What ``read`` finds in another store, once the view there has reached the token.

        ``read`` gives the store's checkpoint and the answer, read in one atomic step; so an answer from
        before the token is noticed, whatever became of the store since. Raises as ``rows`` does.
        """
        position = None
        if at_least is not None:
            wait = Wait(timeout_seconds)
            position = await self.position_of(at_least, tenant=tenant, wait=wait)
            await self._watch.reached(view, position, timeout_seconds=wait.left_seconds)
        guarded = {"view": view, "tenant": tenant, "key": key}
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute(SQL["readers.begin"], {"tenant": tenant}, prepare=True)
            cursor = await connection.execute(SQL["readers.guard_outside"], guarded, prepare=True)
            row = await cursor.fetchone()
        assert row is not None
        epoch, parked, log, generation = row
        if position is not None:
            await self._check((epoch, parked), [view], key)
        if generation is None:
            raise UnknownView(f"The view {view!r} is not deployed.", hint="Run headwater up.")
        at, answer = await read(Place(log, view, generation))
        if position is not None and at < position:
            raise NotCaughtUp(
                f"The store of {view!r} is at position {at} again, before {position}: it starts over.",
                hint="Try again, read without a token, or see `headwater views` for how far it is.",
            )
        return answer

    async def reached(
        self, view: str, position: int, *, timeout_seconds: float | None = None
    ) -> None:
        """Returns once a view has applied the log up to a position. Raises NotCaughtUp and UnknownView."""
        seconds = DEFAULT_TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds
        await self._watch.reached(view, position, timeout_seconds=seconds)

    async def position_of(self, token: str, *, tenant: str, wait: Wait) -> int:
        """The position that a token stands for in this log. Raises TokenError.

        One of a log that this app receives from: waits until what it stands for has come in. Raises NotCaughtUp, and
        KeyParked where a message at or before it is parked.
        """
        try:
            return self._database.identity.position_of(token)
        except StaleToken:  # what this process knows of the log may be from before a restore
            return (await self._database.identify()).position_of(token)
        except ForeignToken as error:
            return await self._received.position_of(token, error, tenant=tenant, wait=wait)

    async def _check(
        self, row: tuple[Any, ...] | None, views: Sequence[str], key: str | None
    ) -> None:
        """Refuses to answer a token from another epoch, or from before what is parked."""
        assert row is not None
        epoch, parked = row
        if epoch != self._database.identity.epoch:
            await self._database.identify()
            raise StaleToken(
                hint="The log was restored while this read waited: read without a token and check."
            )
        if parked is not None:
            what = f"the key {key!r}" if key is not None else "this tenant"
            raise KeyParked(
                f"The event at position {parked} for {what} is parked in {', '.join(views)}, so a read "
                "with a token would answer from before it.",
                hint="See `headwater parked`; read without a token to accept what is there.",
                position=parked,
            )
