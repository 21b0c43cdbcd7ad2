"""Batches of rows: each insert is atomic, leaves its own evidence, and carries its fence.

ClickHouse has no transactions, and recognises a repeated block for a while only. What is exactly once rests
on the data instead. A batch is recorded in the log's database before its first attempt, so whoever goes on
writes the same one. It is cut by table and month; each piece is one block in one partition, which is there
or not. Before a piece is written again the table is asked whether it is there. Every insert compares the
newest checkpoint with the holder's, when it begins; a holder that was overtaken writes nothing.

What is left is an insert that began under its own fence and stalls inside the server while the next holder
writes the same piece. Both have the same token, and the one that comes second is dropped, as long as fewer
blocks than the table's window (10,000 a partition) came between.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from headwater.errors import LeaseLost
from headwater.stores.clickhouse.asked import over
from headwater.stores.clickhouse.columns import LIMITS, kept, structure
from headwater.stores.clickhouse.engine import ClickHouseEngine
from headwater.stores.clickhouse.text import listed, quoted, statement
from headwater.views.batches import Limits, Part, RowsStep
from headwater.views.storage import Checkpoint, Hold, LastEvent, Place

SHOWN = "shown"
"""How what readers see of a generation is named within it."""


class ClickHouseBatches(ABC):
    """See OutsideBatches. Subclasses say what a piece is written to, and how it is recognised there."""

    def __init__(self, engine: ClickHouseEngine) -> None:
        self._engine = engine

    @property
    def limits(self) -> Limits:
        """What values may be."""
        return LIMITS

    @abstractmethod
    async def _is_written(self, place: Place, part: Part) -> bool:
        """Whether the part is there already."""

    @abstractmethod
    def _insert(self, place: Place, part: Part) -> tuple[str, dict[str, Any]]:
        """Where a part is inserted: the table, and the values that no column brings, by name."""

    @abstractmethod
    async def trim(self, hold: Hold, upto: int) -> None:
        """Removes what lies beyond a position; see OutsideBatches."""

    # Checkpoints ---------------------------------------------------------------------------------

    async def open(self, place: Place, fence: int) -> Checkpoint:
        """Takes the data over: a row of a higher fence is the newest from now on."""
        held, number, checkpoint = await self._newest(place)
        if held > fence:
            raise LeaseLost(f"Another relay holds fence {held}.")
        await self._begin(place, fence, number + 1 if held == fence else 1, checkpoint)
        return checkpoint

    async def adopt(self, hold: Hold, checkpoint: Checkpoint) -> None:
        """Sets position and epoch; see Storage."""
        held, number, _ = await self._newest(hold.place)
        if held != hold.fence:
            raise LeaseLost("Another relay has taken over.")
        await self._begin(hold.place, hold.fence, number + 1, checkpoint)

    async def sweep(self, place: Place, keep: Collection[int]) -> None:
        """Removes earlier generations."""
        engine = self._engine
        kept = {place.generation, *keep}
        for generation in set(range(1, place.generation)) - kept:
            prefix = self._name(Place(place.log, place.view, generation), "")
            found = await engine.query(
                statement("checkpoints.tables"), {"database": engine.database, "prefix": prefix}
            )
            # What feeds a table goes before it.
            for name in sorted((row[0] for row in found), reverse=True):
                await engine.run(
                    statement(
                        "checkpoints.drop",
                        table=quoted(engine.database, name),
                        on_cluster=engine.on_cluster,
                    )
                )
        old = statement("checkpoints.old", table=engine.checkpoints)
        if (await engine.query(old, _where(place) | {"kept": sorted(kept)}))[0][0]:
            await engine.run(
                statement(
                    "checkpoints.forget", table=engine.checkpoints, on_cluster=engine.on_cluster,
                    log=place.log, view=place.view, generation=place.generation,
                    kept=listed(map(str, sorted(kept))),
                )
            )  # fmt: skip

    async def publish(self, place: Place) -> None:
        """Creates the views that other programs read, over those of this generation; see OutsideBatches.

        Names of event types that it no longer has are dropped.
        """
        engine = self._engine
        view = {"database": engine.database, "view": place.view}
        generations = {"generations": self._name(place)[: -len(str(place.generation))]}
        shown = await self.shown(place)
        named = await engine.query(statement("checkpoints.named"), view | generations)
        for name, table in shown.items():
            await engine.run(
                statement(
                    "checkpoints.publish", name=quoted(engine.database, name),
                    on_cluster=engine.on_cluster, shown=table,
                )
            )  # fmt: skip
        for name in {row[0] for row in named} - shown.keys():
            old = quoted(engine.database, name)
            await engine.run(statement("checkpoints.drop", table=old, on_cluster=engine.on_cluster))

    async def shown(self, place: Place) -> dict[str, str]:
        """What the names that readers use stand for in one generation; see AskedViews."""
        engine, prefix = self._engine, self._name(place, SHOWN)
        found = await engine.query(
            statement("checkpoints.shown"), {"database": engine.database, "prefix": prefix}
        )
        return {
            place.view + name.removeprefix(prefix).replace("/", ".", 1): quoted(
                engine.database, name
            )
            for (name,) in found
        }

    async def ask(
        self,
        select: str,
        parameters: Mapping[str, object],
        shown: Mapping[str, str],
        tenant: str,
    ) -> list[dict[str, Any]]:
        """The rows of a SELECT over what is shown, of one tenant; see AskedViews."""
        engine = self._engine
        bound = dict(parameters) | {"tenant": tenant}
        columns, rows = await engine.named_rows(over(select, shown), bound)
        return [dict(zip(columns, row, strict=True)) for row in rows]

    async def _newest(self, place: Place) -> tuple[int, int, Checkpoint]:
        """Fence, number and checkpoint; zeros where nothing is stored."""
        engine = self._engine
        text = statement("checkpoints.newest", table=engine.checkpoints, reading=engine.reading)
        rows = await engine.query(text, _where(place))
        if not rows:
            return 0, 0, Checkpoint()
        fence, number, position, epoch, revision, last_position, last_id = rows[0]
        last = None if last_position is None else LastEvent(last_position, last_id.bytes)
        return fence, number, Checkpoint(position, epoch, revision, last)

    async def _begin(self, place: Place, fence: int, number: int, checkpoint: Checkpoint) -> None:
        engine = self._engine
        await engine.run(
            statement("checkpoints.begin", table=engine.checkpoints, settings=engine.inserting()),
            _where(place)
            | _last(checkpoint.last)
            | {
                "fence": fence,
                "number": number,
                "upto": checkpoint.position,
                "epoch": checkpoint.epoch,
                "revision": checkpoint.revision,
            },
        )

    async def position(self, place: Place) -> int:
        """The checkpoint's position; -1 where nothing is stored."""
        fence, _, checkpoint = await self._newest(place)
        return checkpoint.position if fence else -1

    # Writing -------------------------------------------------------------------------------------

    async def append(self, hold: Hold, step: RowsStep) -> None:
        """Writes what is missing of a batch, then moves the checkpoint; see OutsideBatches."""
        for part in step.parts:
            if not (step.again and await self._is_written(hold.place, part)):
                await self.put(hold, step, part)
        await self.advance(hold, step)

    async def put(self, hold: Hold, step: RowsStep, part: Part) -> None:
        """Writes one part, if the checkpoint is still the hold's. Raises LeaseLost."""
        engine = self._engine
        table, extra = self._insert(hold.place, part)
        columns = [kept(column) for column in part.columns]
        token = f"{hold.place.log}/{hold.place.view}/{hold.place.generation}/{part.type}/{part.month}/{step.after}-{step.upto}"
        text = statement(
            "rows.insert",
            table=table,
            columns=listed([*(quoted(c.name) for c in columns), *map(quoted, extra)]),
            settings=engine.inserting(token),
            values=listed([*(c.value for c in columns), *map(str, extra.values())]),
            structure=structure(columns),
            guard=statement("checkpoints.guard", table=engine.checkpoints),
        )
        await engine.run(text, self._guarded(hold, step), part.data)

    async def advance(self, hold: Hold, step: RowsStep) -> None:
        """Moves the checkpoint, if it is still the hold's. Raises LeaseLost."""
        engine = self._engine
        text = statement(
            "checkpoints.move", table=engine.checkpoints, settings=engine.inserting(),
            guard=statement("checkpoints.guard", table=engine.checkpoints),
        )  # fmt: skip
        await engine.run(
            text,
            self._guarded(hold, step) | _last(step.last) | {"upto": step.upto, "epoch": hold.epoch},
        )

    def _guarded(self, hold: Hold, step: RowsStep) -> dict[str, Any]:
        return _where(hold.place) | {"fence": hold.fence, "after": step.after}

    def _shown(self, place: Place, *names: str) -> str:
        """What readers see of one generation: of a SQL view, or of a feed's event type."""
        return quoted(self._engine.database, self._name(place, SHOWN, *names))

    def _name(self, place: Place, *names: str) -> str:
        return "/".join([place.log, place.view, str(place.generation), *names])


def _where(place: Place) -> dict[str, Any]:
    return {"log": place.log, "view": place.view, "generation": place.generation}


def _last(last: LastEvent | None) -> dict[str, Any]:
    if last is None:
        return {"last_position": None, "last_id": None}
    return {"last_position": last.position, "last_id": str(UUID(bytes=last.id))}
