"""What every view in Postgres has in common: its row of definitions, its checkpoint, its parked events.

The checkpoint lives beside the view's data and is moved by the first statement of each batch's
transaction, or by the one statement that the batch is, from where the batch begins, under the relay's fence and the data's revision. So a batch
is applied once or not at all, whoever tries. Commits need not wait for the disk: a crash takes data
and checkpoint back together, and the log, which does wait, gives both again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import psycopg
from psycopg import sql

from headwater.errors import LeaseLost, UnknownView, ViewStale
from headwater.log.database import Connection, Database, connect
from headwater.log.failures import caused_by_data, translate
from headwater.log.statements import Statements
from headwater.relay import CannotApply, OnFailure
from headwater.stores.postgres.sql_view_tables import SCHEMA
from headwater.stores.postgres.sql_view_text import table_template
from headwater.views.definition import Definition
from headwater.views.port import Status

SQL = Statements("headwater.stores.postgres")

_SECURITY = (
    "enable_row_security",
    "force_row_security",
    "tenant_policy",
    "relay_policy",
    "operator_policy",
)


class PostgresView(ABC):
    """A view in the log's own database. ``database`` is in the relay's role."""

    max_batch = 100_000

    def __init__(self, database: Database, definition: Definition, on_failure: OnFailure) -> None:
        self._database = database
        self._definition = definition
        self._on_failure: OnFailure = on_failure
        self._connection: Connection | None = None
        self._fence = 0
        self._revision = 0
        self._generation = 1

    @property
    def name(self) -> str:
        """The view's name."""
        return self._definition.view

    @property
    def definition(self) -> Definition:
        """What the view should be."""
        return self._definition

    @property
    def on_failure(self) -> OnFailure:
        """What becomes of an event that cannot be applied."""
        return self._on_failure

    @property
    def follows(self) -> str | None:
        """The view whose changes this one reads, or None for the log."""
        return None

    # What subclasses give ------------------------------------------------------------------------

    @abstractmethod
    async def _create_tables(self, connection: Connection) -> None:
        """Creates this generation's tables and the view that readers use."""

    @abstractmethod
    async def _drop_tables(self, connection: Connection) -> None:
        """Removes this generation's tables and the view that readers use."""

    async def _prepare(self, connection: Connection) -> None:
        """Plans statements that depend on the generation; called whenever it is learnt."""

    async def _opened(self, connection: Connection) -> None:
        """Loads what batches need; called after the view was taken over."""

    # Deployment ----------------------------------------------------------------------------------

    async def status(self) -> Status:
        """Whether what is stored follows from the definition."""
        async with self._database.connection() as connection:
            return await self._status(connection)

    async def _status(self, connection: Connection) -> Status:
        cursor = await connection.execute(SQL["stored.fingerprint"], {"view": self.name})
        row = await cursor.fetchone()
        if row is None:
            return "missing"
        self._generation = row[1]
        await self._prepare(connection)
        return "current" if row[0] == self._definition.fingerprint else "stale"

    async def deploy(self) -> Status:
        """Creates the view where it is missing; returns what was found."""
        async with self._database.transaction() as connection:
            await connection.execute(SQL["stored.lock_deployment"])
            status = await self._status(connection)
            if status == "missing":
                self._generation = 1
                await self._prepare(connection)
                await connection.execute(SQL["stored.create"], self._described())
                await connection.execute(SQL["stored.create_checkpoint"], {"view": self.name})
                await self._create_tables(connection)
            return status

    async def rebuild(self) -> None:
        """Starts the view over in place: empty, at the beginning, by the definition of now."""
        async with self._database.transaction() as connection:
            await connection.execute(SQL["stored.lock_deployment"])
            await self._rebuild(connection)

    async def _rebuild(self, connection: Connection) -> None:
        if await self._status(connection) == "missing":
            raise UnknownView(
                f"The view {self.name!r} is not deployed.", hint="Run headwater up or init first."
            )
        await connection.execute(SQL["stored.restart"], {"view": self.name})
        await self._drop_tables(connection)
        cursor = await connection.execute(SQL["stored.redefine"], self._described())
        row = await cursor.fetchone()
        assert row is not None
        self._generation = row[0]
        await self._prepare(connection)
        await self._create_tables(connection)
        await connection.execute(SQL["stored.clear_parked"], {"view": self.name})

    def _described(self) -> dict[str, object]:
        definition = self._definition
        return {
            "view": definition.view,
            "kind": definition.kind,
            "definition": definition.encoded,
            "fingerprint": definition.fingerprint,
        }

    # Driving -------------------------------------------------------------------------------------

    async def open(self, fence: int) -> int:
        """Takes the view over under a fence; its checkpoint."""
        await self.close()
        connection = await connect(
            self._database.url, "headwater_relay", name=f"headwater view {self.name}"
        )
        self._connection = connection
        await connection.execute(SQL["session.lazy_commit"])
        status = await self._status(connection)
        if status != "current":
            raise ViewStale(
                f"The view {self.name!r} is {status}: its data does not follow from its definition.",
                hint=f"Run headwater rebuild {self.name}."
                if status == "stale"
                else "Run headwater up or init.",
            )
        cursor = await connection.execute(
            SQL["stored.take_over"], {"view": self.name, "fence": fence}
        )
        row = await cursor.fetchone()
        if row is None:
            raise LeaseLost(f"Another relay drives {self.name!r}.")
        position: int = row[0]
        self._fence, self._revision = fence, row[1]
        await self._opened(connection)
        return position

    async def close(self) -> None:
        """Closes the driving connection. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def first_after(self, after: int, upto: int) -> int | None:
        """The first position of the source in (after, upto]."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                SQL["stored.first_after"], {"after": after, "upto": upto}
            )
            row = await cursor.fetchone()
            return None if row is None else row[0]

    @asynccontextmanager
    async def _batch(self, after: int, upto: int) -> AsyncIterator[Connection]:
        """A transaction whose first statement moves the checkpoint; data's faults become CannotApply."""
        # No pipeline: between its statements the server would count a paused client as active, and
        # idle_in_transaction_session_timeout would not free the checkpoint's row.
        with self._faults():
            async with self._driving.transaction():
                move = self._move(after, upto)
                await self._driving.execute(SQL["stored.advance"], move, prepare=True)
                yield self._driving

    async def _at_once(
        self, after: int, upto: int, statement: sql.Composed | None = None, **parameters: object
    ) -> None:
        """A batch in one statement, which moves the checkpoint itself; or the move alone."""
        with self._faults():
            await self._driving.execute(
                statement or SQL["stored.advance"],
                self._move(after, upto) | parameters,
                prepare=True,
            )

    @property
    def _driving(self) -> Connection:
        if self._connection is None:
            raise LeaseLost(f"The view {self.name!r} is not open.")
        return self._connection

    def _move(self, after: int, upto: int) -> dict[str, object]:
        return {
            "view": self.name,
            "after": after,
            "upto": upto,
            "fence": self._fence,
            "revision": self._revision,
        }

    @contextmanager
    def _faults(self) -> Iterator[None]:
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

    # Parked events -------------------------------------------------------------------------------

    async def _set_aside(
        self,
        connection: Connection,
        position: int,
        keys: Sequence[str] | None,
        reason: str,
        *,
        culprit: bool = True,
        status: str = "parked",
    ) -> None:
        parameters = {
            "view": self.name,
            "position": position,
            "keys": None if keys is None else list(keys),
            "reason": reason[:2000],
            "culprit": culprit,
            "status": status,
        }
        await connection.execute(SQL["stored.set_aside"], parameters)

    async def _not_applied(
        self, connection: Connection
    ) -> list[tuple[int, str, list[str] | None, str]]:
        cursor = await connection.execute(SQL["stored.not_applied"], {"view": self.name})
        return await cursor.fetchall()

    @abstractmethod
    async def replay(self, positions: Sequence[int] | None = None) -> int:
        """Applies parked events again, in order; returns how many are parked no more."""

    async def discard(self, positions: Sequence[int]) -> int:
        """Gives parked events up for good, then replays what followed them; returns how many."""
        async with self._database.transaction() as connection:
            await connection.execute(SQL["stored.disturb"], {"view": self.name})
            cursor = await connection.execute(
                SQL["stored.discard"], {"view": self.name, "positions": list(positions)}
            )
            discarded = cursor.rowcount
        await self.replay()
        return discarded

    # Tables --------------------------------------------------------------------------------------

    def _identifier(self, suffix: str = "") -> sql.Identifier:
        return sql.Identifier(SCHEMA, f"{self.name}{suffix}")

    async def _secure(self, connection: Connection, table: sql.Identifier) -> None:
        """Row-level security and grants, as on every table of views."""
        for policy in _SECURITY:
            await connection.execute(table_template(policy).format(table=table))
        for grant in ("grant_reading", "grant_keeping"):
            await connection.execute(table_template(grant).format(relation=table))


@asynccontextmanager
async def snapshot(database: Database) -> AsyncIterator[Connection]:
    """A read-only transaction in which checkpoint, rows and log agree.

    Under REPEATABLE READ the log may be read up to a checkpoint seen in the same snapshot: the batch
    that moved it there committed after every event at or below it.
    """
    async with database.connection() as connection:
        await connection.execute(SQL["session.snapshot"])
        try:
            yield connection
        finally:
            if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                await connection.execute(SQL["session.end"])
