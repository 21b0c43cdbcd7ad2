"""What every view has in common as the relay drives it and operators keep it, whatever its store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from headwater.errors import UnknownView
from headwater.log.database import Connection, Database
from headwater.relay import Batch, OnFailure
from headwater.relay.frontier import Frontier
from headwater.views.definition import Definition, Explanation, Sample, Verification
from headwater.views.driving.record import SQL, ViewRecord
from headwater.views.port import Report, Status


class DrivenView(ABC):
    """A view with its record in the log's database. ``database`` is in the relay's role."""

    max_batch = 100_000
    max_built = 0
    """How many positions a batch of a generation that nobody reads yet may span, where that is more."""
    pause_seconds = 0.0
    rewrites = True

    def __init__(self, database: Database, definition: Definition, on_failure: OnFailure) -> None:
        self.record = ViewRecord(database, definition)
        self._database = database
        self._on_failure: OnFailure = on_failure

    @property
    def name(self) -> str:
        """The view's name."""
        return self.record.name

    @property
    def database(self) -> Database:
        """The log's database, in the relay's role."""
        return self._database

    @property
    def definition(self) -> Definition:
        """What the view should be."""
        return self.record.definition

    @property
    def on_failure(self) -> OnFailure:
        """What becomes of an event that cannot be applied."""
        return self._on_failure

    @property
    def follows(self) -> str | None:
        """The view whose changes this one reads, or None for the log."""
        return None

    @property
    def frontier(self) -> Frontier | None:
        """None: positions are the log's."""
        return None

    @property
    def beside(self) -> bool:
        """Whether another generation can be built beside the one that is read."""
        return False

    @property
    def has_baselines(self) -> bool:
        """Whether a baseline of it can be kept: a copy, in the log's database."""
        return False

    # What subclasses give ------------------------------------------------------------------------

    @abstractmethod
    async def _create(self, connection: Connection) -> None:
        """Makes room for this generation in the log's database."""

    async def publish(self, connection: Connection) -> None:
        """Has readers in the log's database see this generation."""

    async def publish_outside(self) -> None:
        """Has other programs that read the store itself see the generation that is read."""

    @abstractmethod
    async def _drop(self, connection: Connection) -> None:
        """Removes this generation from the log's database."""

    async def prepare(self, connection: Connection) -> None:
        """Plans what depends on the generation; called whenever it is learnt."""

    @abstractmethod
    async def _opened(self, checkpoint: int) -> int:
        """Loads what batches need, once the view was taken over; the checkpoint to go on from."""

    @abstractmethod
    async def apply(self, batch: Batch) -> None:
        """Applies a batch; see Target."""

    @abstractmethod
    async def verify(
        self, report: Report | None = None, *, limit: int = 20, sample: Sample | None = None
    ) -> Verification:
        """Compares the view with the fold of the log up to its checkpoint."""

    @abstractmethod
    async def explain(
        self, key: Sequence[str | None], *, tenant: str, limit: int = 20
    ) -> Explanation:
        """The events behind a row, and how it changed at each of the newest."""

    @abstractmethod
    async def replay(self, positions: Sequence[int] | None = None) -> int:
        """Applies parked events again, in order; returns how many are parked no more."""

    async def touched(
        self,
        connection: Connection,  # noqa: ARG002 - the protocol's
        *,
        after: int,  # noqa: ARG002
        upto: int,  # noqa: ARG002
        parked: Sequence[int],  # noqa: ARG002
    ) -> list[str] | None:
        """None: it cannot be told which rows have changed; see StoredView."""
        return None

    # Deployment ----------------------------------------------------------------------------------

    async def status(self) -> Status:
        """Whether what is stored follows from the definition."""
        async with self._database.connection() as connection:
            return await self.learn(connection)

    async def learn(self, connection: Connection) -> Status:
        """The status, as one connection sees it; prepares for the generation found."""
        status = await self.record.status(connection)
        if status != "missing":
            await self.prepare(connection)
        return status

    async def deploy(self) -> Status:
        """Creates the view where it is missing; returns what was found."""
        async with self._database.transaction() as connection:
            await connection.execute(SQL["record.lock_deployment"])
            status = await self.learn(connection)
            if status == "missing":
                await self.record.create(connection)
                await self.prepare(connection)
                await self._create(connection)
                await self.publish(connection)
            return status

    async def create_beside(self, connection: Connection) -> None:
        """Makes room for the generation that the record knows, which nobody reads yet."""
        await self.prepare(connection)
        await self._create(connection)

    async def rebuild(self) -> None:
        """Starts the view over in place: empty, at the beginning, by the definition of now."""
        async with self._database.transaction() as connection:
            await connection.execute(SQL["record.lock_deployment"])
            await self.start_over(connection)

    async def start_over(self, connection: Connection) -> None:
        """A rebuild inside a transaction."""
        if await self.learn(connection) == "missing":
            raise UnknownView(
                f"The view {self.name!r} is not deployed.", hint="Run headwater up or init first."
            )
        await self.record.restart(connection)
        await self._drop(connection)
        await self.record.redefine(connection)
        await self.prepare(connection)
        await self._create(connection)
        await self.publish(connection)

    # Driving -------------------------------------------------------------------------------------

    async def open(self, fence: int) -> int:
        """Takes the view over under a fence; its checkpoint."""
        connection = await self.record.open()
        await self.prepare(connection)
        return await self._opened(await self.record.take_over(fence))

    async def close(self) -> None:
        """Gives back what driving holds. Idempotent."""
        await self.record.close()

    async def fits(self, connection: Connection) -> bool:
        """Whether what is stored follows from the definition, as one connection sees it."""
        return await self.record.fits(connection)

    async def first_after(self, after: int, upto: int) -> int | None:
        """The first position of the source in (after, upto]."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                SQL["record.first_after"], {"after": after, "upto": upto}
            )
            row = await cursor.fetchone()
            return None if row is None else row[0]

    async def discard(self, positions: Sequence[int]) -> int:
        """Gives parked events up for good, then replays what followed them; returns how many."""
        async with self._database.transaction() as connection:
            await self.record.disturb(connection)
            discarded = await self.record.discard(connection, positions)
        await self.replay()
        return discarded
