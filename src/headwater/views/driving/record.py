"""What the log's database knows of one view: its definition, its checkpoint, its parked events.

The checkpoint is moved from where a batch begins, under the relay's fence and the data's revision, so
a batch is applied once or not at all, whoever tries. Where the view's data is in the same database,
both move in one commit. Elsewhere the store keeps a checkpoint of its own, which is the truth, and
this one follows it: it is never ahead of the data. Commits need not wait for the disk: the log, which
does wait, gives again what a crash takes back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from headwater.errors import LeaseLost, ViewStale
from headwater.log import arrays
from headwater.log.database import Connection, Database, connect
from headwater.log.failures import caused_by_data, translate, translated
from headwater.log.statements import Statements
from headwater.relay import CannotApply
from headwater.views.definition import Definition
from headwater.views.documents import SetAside
from headwater.views.opening import Opened
from headwater.views.port import Status

SQL = Statements("headwater.views.driving")


def row_beside(view: str, slice_number: int | None = None) -> str:
    """The name of a candidate's rows, or of a slice's of it."""
    return f"{view}~next" if slice_number is None else f"{view}~next~{slice_number}"


def base_row(view: str) -> str:
    """The name of the rows of a view's baseline."""
    return f"{view}~base"


Aside = tuple[int, str, list[str] | None, str]
"""An event that was not applied: position, tenant, keys, status."""


class ViewRecord:
    """One view's rows in the schema ``headwater``. ``database`` is in the relay's role."""

    def __init__(self, database: Database, definition: Definition) -> None:
        self.database = database
        self.definition = definition
        self.row = definition.view
        """The name of its rows: the view's, or that of a candidate beside it."""
        self.slice: int | None = None
        """Of a candidate that several processes build, the slice of its keys that is driven."""
        self.generation = 1
        self.fence = 0
        self.revision = 0
        self._connection: Connection | None = None

    @property
    def name(self) -> str:
        """The view's name."""
        return self.definition.view

    # The definition ------------------------------------------------------------------------------

    async def status(self, connection: Connection) -> Status:
        """Whether what is stored follows from the definition; learns the generation."""
        cursor = await connection.execute(SQL["record.fingerprint"], {"view": self.row})
        row = await cursor.fetchone()
        if row is None:
            return "missing"
        self.generation = row[1]
        return "current" if row[0] == self.definition.fingerprint else "stale"

    async def fits(self, connection: Connection) -> bool:
        """Whether what is stored follows from the definition; learns nothing else, so others may go on."""
        cursor = await connection.execute(SQL["record.fingerprint"], {"view": self.row})
        row = await cursor.fetchone()
        return row is not None and row[0] == self.definition.fingerprint

    async def create(self, connection: Connection) -> None:
        """Records a new view at the beginning of the log."""
        self.generation = 1
        await connection.execute(SQL["record.create"], self._described())
        await connection.execute(SQL["record.create_checkpoint"], {"view": self.row})

    async def next_generation(self, connection: Connection) -> None:
        """Gives the record a generation that was never used."""
        cursor = await connection.execute(SQL["rebuild.next_generation"], {"view": self.name})
        row = await cursor.fetchone()
        assert row is not None
        self.generation = row[0]

    async def create_candidate(self, connection: Connection) -> None:
        """Records another generation beside the view, at the beginning of the log."""
        described = self._described() | {"generation": self.generation}
        await connection.execute(SQL["rebuild.create"], described)
        await connection.execute(SQL["record.create_checkpoint"], {"view": self.row})

    async def restart(self, connection: Connection) -> None:
        """Sets the checkpoint to the beginning; locks it against batches first."""
        await connection.execute(SQL["record.restart"], {"view": self.row})

    async def redefine(self, connection: Connection) -> None:
        """Begins the next generation by the definition of now, with nothing parked."""
        cursor = await connection.execute(SQL["record.redefine"], self._described())
        row = await cursor.fetchone()
        assert row is not None
        self.generation = row[0]
        await connection.execute(SQL["record.clear_parked"], {"view": self.row})

    def _described(self) -> dict[str, object]:
        definition = self.definition
        return {
            "view": self.row,
            "kind": definition.kind,
            "definition": definition.encoded,
            "fingerprint": definition.fingerprint,
        }

    async def generations(self) -> list[int]:
        """Those of the view, of a candidate beside it, and of the one kept."""
        cursor = await self.connection.execute(SQL["rebuild.generations"], {"view": self.name})
        return [row[0] for row in await cursor.fetchall()]

    # The checkpoint ------------------------------------------------------------------------------

    @property
    def connection(self) -> Connection:
        """The driving connection. Raises LeaseLost where the view is not open."""
        if self._connection is None:
            raise LeaseLost(f"The view {self.name!r} is not open.")
        return self._connection

    async def open(self) -> Connection:
        """Connects for driving. Raises ViewStale where the data does not follow from the definition."""
        await self.close()
        connection = await connect(
            self.database.url, "headwater_relay", name=f"headwater view {self.name}"
        )
        self._connection = connection
        await connection.execute(SQL["session.lazy_commit"])
        status = await self.status(connection)
        if status != "current":
            raise ViewStale(
                f"The view {self.name!r} is {status}: its data does not follow from its definition.",
                hint=f"Run headwater rebuild {self.name}."
                if status == "stale"
                else "Run headwater up or init.",
            )
        return connection

    async def take_over(self, fence: int) -> int:
        """Takes the view over under a fence; its checkpoint. Raises LeaseLost for a lower fence."""
        cursor = await self.connection.execute(
            SQL["record.take_over"], {"view": self.row, "fence": fence}
        )
        row = await cursor.fetchone()
        if row is None:
            raise LeaseLost(f"Another relay drives {self.name!r}.")
        position: int = row[0]
        self.fence, self.revision = fence, row[1]
        await self._require_generation()
        return position

    async def _require_generation(self) -> None:
        """Refuses to drive a generation that was replaced since its status was read.

        In a statement of its own: the one before may have waited for the swap, and sees the rest of the
        database as it was when it began. Whatever replaces the generation from here on raises the
        revision, so no batch of ours goes through.
        """
        known = self.generation
        if await self.status(self.connection) == "missing" or self.generation != known:
            raise LeaseLost(f"The view {self.name!r} was rebuilt meanwhile.")

    async def close(self) -> None:
        """Closes the driving connection. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    @asynccontextmanager
    async def batch(self, after: int, upto: int) -> AsyncIterator[Connection]:
        """A transaction whose first statement moves the checkpoint; data's faults become CannotApply."""
        # No pipeline: between its statements the server would count a paused client as active, and
        # idle_in_transaction_session_timeout would not free the checkpoint's row.
        with self.faults():
            async with self.connection.transaction():
                move = self._move(after, upto)
                await self.connection.execute(SQL["record.advance"], move, prepare=True)
                yield self.connection

    async def at_once(
        self, after: int, upto: int, statement: sql.Composed | None = None, **parameters: object
    ) -> None:
        """A batch in one statement, which moves the checkpoint itself; or the move alone."""
        with self.faults():
            await self.connection.execute(
                statement or SQL["record.advance"],
                self._move(after, upto) | parameters,
                prepare=True,
            )

    async def checkpoint(self, connection: Connection, view: str | None = None) -> int | None:
        """Where this view is, or another; None where it is not deployed."""
        cursor = await connection.execute(SQL["record.checkpoint"], {"view": view or self.row})
        row = await cursor.fetchone()
        return None if row is None else row[0]

    async def plan(self, after: int, upto: int) -> None:
        """Records a batch before the first attempt to write it.

        Raises LeaseLost where another has taken over: it may have recorded, and written, another batch.
        """
        planning = self._planning(after) | self._move(after, upto)
        cursor = await self.connection.execute(SQL["record.plan"], planning)
        if cursor.rowcount != 1:
            raise LeaseLost(f"Another relay drives {self.name!r}.")

    async def planned(self, after: int) -> int | None:
        """Where the batch recorded for this beginning ends, or None."""
        cursor = await self.connection.execute(SQL["record.planned"], self._planning(after))
        row = await cursor.fetchone()
        return None if row is None else row[0]

    def _planning(self, after: int) -> dict[str, object]:
        return {"view": self.row, "generation": self.generation, "after": after}

    async def follow_store(self, position: int) -> None:
        """Sets the checkpoint to the one that the view's store keeps, which is the truth."""
        parameters = {
            "view": self.row,
            "position": position,
            "fence": self.fence,
            "revision": self.revision,
        }
        await self.connection.execute(SQL["record.reset"], parameters)

    async def disturb(self, connection: Connection) -> None:
        """Says that others than the relay's batches change the data; locks the checkpoint."""
        await connection.execute(SQL["record.disturb"], {"view": self.row})

    def _move(self, after: int, upto: int) -> dict[str, object]:
        return {
            "view": self.row,
            "after": after,
            "upto": upto,
            "fence": self.fence,
            "revision": self.revision,
        }

    @contextmanager
    def faults(self) -> Iterator[None]:
        """What Postgres says of a batch: data's faults become CannotApply, a higher fence LeaseLost."""
        try:
            yield
        except psycopg.Error as error:
            if caused_by_data(error):
                raise CannotApply(error.diag.message_primary or str(error)) from error
            translation = translate(error)
            if isinstance(translation, LeaseLost):
                raise translation from error
            raise

    # What it opened ------------------------------------------------------------------------------

    async def register(self, connection: Connection, opened: Sequence[Opened]) -> None:
        """Registers rows under the keys whose texts they hold, before they can be read; inside a transaction.

        Raises SubjectForgotten where one of the keys has been destroyed since: read the batch again.
        """
        if opened:
            with translated():
                await connection.execute(SQL["opened.register"], self._opened(opened))

    async def register_ahead(self, opened: Sequence[Opened]) -> None:
        """The same, on disk before it returns: for rows that another store holds."""
        if opened:
            async with self.connection.transaction():
                await self.connection.execute(SQL["opened.durably"])
                await self.register(self.connection, opened)

    def _opened(self, opened: Sequence[Opened]) -> dict[str, object]:
        return {
            "view": self.name,
            "generation": self.generation,
            "key_ids": arrays.uuid_array(one.key_id for one in opened),
            "tenants": arrays.text_array(one.tenant for one in opened),
            "keys": arrays.text_array(one.key for one in opened),
        }

    async def registered(self, connection: Connection, key_id: UUID, limit: int) -> list[str]:
        """The keys of some rows of this generation that hold what a key sealed, in order."""
        asked = {"view": self.name, "generation": self.generation, "key_id": key_id, "limit": limit}
        cursor = await connection.execute(SQL["opened.registered"], asked)
        return [row[0] for row in await cursor.fetchall()]

    async def unregister(
        self, connection: Connection, key_id: UUID, keys: Sequence[str] | None = None
    ) -> None:
        """Says that rows, or all, hold nothing of a key any more. Idempotent."""
        wanted = None if keys is None else list(keys)
        asked = {"view": self.name, "generation": self.generation, "key_id": key_id, "keys": wanted}
        await connection.execute(SQL["opened.unregister"], asked)

    # Parked events -------------------------------------------------------------------------------

    async def set_aside(
        self,
        connection: Connection,
        position: int,
        keys: Sequence[str] | None,
        reason: str,
        *,
        status: str = "parked",
    ) -> None:
        """Records an event that could not be applied. Idempotent."""
        parameters = {
            "view": self.row,
            "position": position,
            "keys": None if keys is None else list(keys),
            "reason": reason[:2000],
            "culprit": True,
            "status": status,
        }
        await connection.execute(SQL["record.set_aside"], parameters)

    async def follow(
        self, connection: Connection, followers: Iterable[tuple[int, tuple[str, str]]]
    ) -> None:
        """Records events, as position and (tenant, key), that follow a parked one. Idempotent."""
        places = list(followers)
        parameters = {
            "view": self.row,
            "positions": arrays.bigint_array(position for position, _ in places),
            "tenants": arrays.text_array(key[0] for _, key in places),
            "keys": arrays.text_array(key[1] for _, key in places),
        }
        await connection.execute(SQL["record.follow"], parameters)

    async def record_aside(self, connection: Connection, aside: SetAside) -> None:
        """Records what a batch sets aside. Idempotent."""
        for position, key, reason, status in aside.culprits:
            keys = None if key is None else [key[1]]
            await self.set_aside(connection, position, keys, reason, status=status)
        if aside.followers:
            await self.follow(connection, aside.followers)

    async def not_applied(self, connection: Connection) -> list[Aside]:
        """The events that were not applied, in order."""
        cursor = await connection.execute(SQL["record.not_applied"], {"view": self.row})
        return await cursor.fetchall()

    async def parked(
        self, connection: Connection, positions: Sequence[int] | None = None
    ) -> list[tuple[Any, ...]]:
        """The parked events, or those at some positions, in order: position, tenant, keys."""
        wanted = None if positions is None else list(positions)
        cursor = await connection.execute(
            SQL["record.parked_here"], {"view": self.row, "positions": wanted}
        )
        return await cursor.fetchall()

    async def unpark(self, connection: Connection, positions: Sequence[int]) -> int:
        """Forgets parked events that were applied after all; how many. Idempotent."""
        cursor = await connection.execute(
            SQL["record.unpark"], {"view": self.row, "positions": list(positions)}
        )
        return cursor.rowcount

    async def discard(self, connection: Connection, positions: Sequence[int]) -> int:
        """Gives parked events up; how many."""
        cursor = await connection.execute(
            SQL["record.discard"], {"view": self.row, "positions": list(positions)}
        )
        return cursor.rowcount


@asynccontextmanager
async def snapshot(database: Database) -> AsyncIterator[Connection]:
    """A read-only transaction in which checkpoint, rows and log agree.

    Under REPEATABLE READ the log may be read up to a checkpoint seen in the same snapshot: the batch
    that moved it there committed after every event at or below it.
    """
    async with database.connection() as connection:
        await connection.execute(SQL["session.snapshot"])
        try:
            await connection.execute(SQL["session.patient"])
            yield connection
        finally:
            if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                await connection.execute(SQL["session.end"])
